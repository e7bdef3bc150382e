//! The ways to the records: names of elements in XML, keys in JSON.
//!
//! A feed may have several; which of them a place in the document is on is a set that shrinks on the way down.

use super::PlanError;
use super::fields::is_path_name;
use super::names::{NameTest, Namespaces};
use super::spec;

#[derive(Debug)]
pub struct RecordPath {
    /// For XML; every child element of the root unless said.
    pub elements: Paths,
    /// For JSON; the document itself unless said.
    pub keys: Paths,
    pub is_given: bool,
}

/// Paths from the root, none of which leads into another.
#[derive(Clone, Debug)]
pub struct Paths(Vec<Vec<NameTest>>);

/// Some of the paths, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSet(u64);

impl RecordPath {
    pub const MAX: usize = u64::BITS as usize;

    pub fn compile(
        given: Option<&spec::RecordPath>,
        namespaces: &Namespaces,
    ) -> Result<Self, PlanError> {
        let Some(given) = given else {
            return Ok(Self {
                elements: Paths(vec![vec![NameTest::Any, NameTest::Any]]),
                keys: Paths(vec![Vec::new()]),
                is_given: false,
            });
        };
        let paths = given.paths();
        if paths.is_empty() || paths.len() > Self::MAX {
            return Err(PlanError::RecordPathCount(paths.len()));
        }
        let tests: Vec<_> = paths
            .iter()
            .map(|path| tests(path, namespaces))
            .collect::<Result<_, _>>()?;
        for (outer, outer_tests) in tests.iter().enumerate() {
            let leads_into = |(inner, inner_tests): (usize, &Vec<NameTest>)| {
                inner != outer && overlaps(outer_tests, inner_tests)
            };
            if let Some(inner) = tests.iter().enumerate().position(leads_into) {
                return Err(PlanError::RecordInRecord {
                    outer: paths[outer].clone(),
                    inner: paths[inner].clone(),
                });
            }
        }
        Ok(Self {
            elements: Paths(tests.clone()),
            keys: Paths(tests),
            is_given: true,
        })
    }
}

impl Paths {
    pub fn all(&self) -> PathSet {
        PathSet(u64::MAX >> (u64::BITS as usize - self.0.len()))
    }

    /// Those of `set` whose name at `depth`, the root's being 0, passes.
    pub fn follow(
        &self,
        set: PathSet,
        depth: usize,
        passes: impl Fn(&NameTest) -> bool,
    ) -> PathSet {
        self.filter(set, |path| path.get(depth).is_some_and(&passes))
    }

    /// Those of `set` that have `depth` names.
    pub fn ending(&self, set: PathSet, depth: usize) -> PathSet {
        self.filter(set, |path| path.len() == depth)
    }

    /// As the configuration writes those in `set`.
    pub fn names(&self, set: PathSet) -> impl Iterator<Item = String> {
        let chosen = (0..self.0.len()).filter(move |index| set.0 & 1 << index != 0);
        chosen.map(|index| {
            let names: Vec<_> = self.0[index].iter().map(NameTest::as_str).collect();
            names.join("/")
        })
    }

    fn filter(&self, set: PathSet, passes: impl Fn(&[NameTest]) -> bool) -> PathSet {
        let mut left = set;
        for (index, path) in self.0.iter().enumerate() {
            if set.0 & 1 << index != 0 && !passes(path) {
                left.0 &= !(1 << index);
            }
        }
        left
    }
}

impl PathSet {
    pub const NONE: Self = Self(0);

    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

fn tests(path: &str, namespaces: &Namespaces) -> Result<Vec<NameTest>, PlanError> {
    path.split('/')
        .map(|name| match name {
            "*" => Ok(NameTest::Any),
            name if is_path_name(name) => Ok(namespaces.test(name)),
            _ => Err(PlanError::RecordPath(path.to_owned())),
        })
        .collect()
}

/// Whether both may find the same element, or the first one an element that the second one's lies in.
fn overlaps(outer: &[NameTest], inner: &[NameTest]) -> bool {
    let may_be_same = |(a, b): (&NameTest, &NameTest)| {
        a == b || matches!(a, NameTest::Any) || matches!(b, NameTest::Any)
    };
    outer.len() <= inner.len() && outer.iter().zip(inner).all(may_be_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(toml: &str) -> Result<RecordPath, PlanError> {
        let spec: spec::Spec = toml::from_str(&format!("record = {toml}")).unwrap();
        RecordPath::compile(spec.record.as_ref(), &Namespaces::default())
    }

    #[test]
    fn several_paths_are_followed_at_once_as_far_as_they_go_together() {
        let paths = compile("['a/b/c', 'a/d', '*/e/c']").unwrap().elements;
        let is = |wanted: &'static str| {
            move |test: &NameTest| test.matches(wanted, crate::feed::names::Namespace::Undeclared)
        };
        let root = paths.follow(paths.all(), 0, is("a"));
        assert_eq!(root, paths.all());
        let d = paths.follow(root, 1, is("d"));
        assert_eq!(paths.names(d).collect::<Vec<_>>(), ["a/d"]);
        assert_eq!(paths.ending(d, 2), d);
        assert!(paths.ending(d, 1).is_empty());
        assert!(paths.follow(d, 2, is("c")).is_empty());
        assert_eq!(
            paths.follow(root, 1, is("e")),
            paths.follow(paths.all(), 0, is("x"))
        );
    }

    #[test]
    fn paths_that_cannot_be_followed_together_are_refused() {
        for toml in [
            "['a', 'a/b']",
            "['a/b', 'a']",
            "['a/b', 'a/b']",
            "['a/*', 'a/b']",
        ] {
            assert!(
                matches!(compile(toml), Err(PlanError::RecordInRecord { .. })),
                "{toml}"
            );
        }
        assert_eq!(compile("[]").unwrap_err(), PlanError::RecordPathCount(0));
        let many: Vec<_> = (0..65).map(|n| format!("'a{n}'")).collect();
        let most = format!("[{}]", many[1..].join(","));
        assert_eq!(compile(&most).unwrap().keys.all(), PathSet(u64::MAX));
        let many = format!("[{}]", many.join(","));
        assert_eq!(compile(&many).unwrap_err(), PlanError::RecordPathCount(65));
    }
}
