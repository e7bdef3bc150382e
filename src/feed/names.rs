//! Names in the configuration against names in the document.
//!
//! A configured prefix that stands for a namespace matches by that namespace, whatever prefix the document uses, its default
//! namespace included. Any other name is compared as it is written. Where the document leaves a prefix undeclared, which real
//! feeds do, there is no namespace to compare, and the prefix as written has to do.

use std::collections::BTreeMap;

/// A name as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameTest {
    Any,
    Literal(String),
    Bound {
        /// Prefix and local name, as configured.
        qualified: String,
        namespace: NamespaceId,
    },
}

/// Index into the configured namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceId(usize);

/// What the prefix of a name stands for in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Not declared, or, without a prefix, no default namespace.
    Undeclared,
    /// Declared, but not among the configured ones.
    Foreign,
    Configured(NamespaceId),
}

impl NameTest {
    #[inline]
    pub fn matches(&self, name: &str, namespace: Namespace) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(literal) => literal == name,
            Self::Bound {
                qualified,
                namespace: wanted,
            } => match namespace {
                Namespace::Configured(found) => found == *wanted && local(name) == local(qualified),
                Namespace::Undeclared => name == qualified,
                Namespace::Foreign => false,
            },
        }
    }

    /// As the configuration writes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Literal(name)
            | Self::Bound {
                qualified: name, ..
            } => name,
        }
    }

    pub fn is_bound(&self) -> bool {
        matches!(self, Self::Bound { .. })
    }
}

fn local(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, local)| local)
}

/// The namespaces of the configuration: prefix and URI.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Vec<(String, String)>);

impl Namespaces {
    pub fn new(configured: &BTreeMap<String, String>) -> Self {
        Self(
            configured
                .iter()
                .map(|(prefix, uri)| (prefix.clone(), uri.clone()))
                .collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn test(&self, name: &str) -> NameTest {
        let bound = name.split_once(':').and_then(|(prefix, _)| {
            self.0
                .iter()
                .position(|(configured, _)| configured == prefix)
        });
        match bound {
            Some(index) => NameTest::Bound {
                qualified: name.to_owned(),
                namespace: NamespaceId(index),
            },
            None => NameTest::Literal(name.to_owned()),
        }
    }

    fn find(&self, uri: &str) -> Namespace {
        match self.0.iter().position(|(_, configured)| configured == uri) {
            Some(index) => Namespace::Configured(NamespaceId(index)),
            None if uri.is_empty() => Namespace::Undeclared,
            None => Namespace::Foreign,
        }
    }
}

/// The declarations in force at one place in the document.
pub struct Scopes<'p> {
    namespaces: &'p Namespaces,
    declarations: Vec<Declaration>,
}

struct Declaration {
    depth: usize,
    prefix: String,
    namespace: Namespace,
}

impl<'p> Scopes<'p> {
    pub fn new(namespaces: &'p Namespaces) -> Self {
        Self {
            namespaces,
            declarations: Vec::new(),
        }
    }

    /// Whether any configured name depends on declarations.
    pub fn matter(&self) -> bool {
        !self.namespaces.is_empty()
    }

    /// Takes a declaration made by the element at `depth`; the default namespace has an empty prefix.
    pub fn declare(&mut self, depth: usize, prefix: &str, uri: &str) {
        self.declarations.push(Declaration {
            depth,
            prefix: prefix.to_owned(),
            namespace: self.namespaces.find(uri),
        });
    }

    /// How many declarations are in force. Each name is compared with all of them at worst.
    pub fn len(&self) -> usize {
        self.declarations.len()
    }

    /// Forgets what the element at `depth` declared.
    pub fn leave(&mut self, depth: usize) {
        while self
            .declarations
            .pop_if(|declaration| declaration.depth >= depth)
            .is_some()
        {}
    }

    pub fn of_element(&self, name: &str) -> Namespace {
        if self.declarations.is_empty() {
            return Namespace::Undeclared;
        }
        self.resolve(name.split_once(':').map_or("", |(prefix, _)| prefix))
    }

    /// An attribute without a prefix is in no namespace, whatever the default is.
    pub fn of_attribute(&self, name: &str) -> Namespace {
        match name.split_once(':') {
            Some((prefix, _)) => self.resolve(prefix),
            None => Namespace::Undeclared,
        }
    }

    fn resolve(&self, prefix: &str) -> Namespace {
        let innermost = self
            .declarations
            .iter()
            .rfind(|declaration| declaration.prefix == prefix);
        innermost.map_or(Namespace::Undeclared, |declaration| declaration.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn google() -> Namespaces {
        Namespaces::new(&BTreeMap::from([("g".into(), "urn:google".into())]))
    }

    #[test]
    fn a_bound_prefix_matches_by_namespace_whatever_the_documents_prefix() {
        let namespaces = google();
        let id = namespaces.test("g:id");
        let mut scopes = Scopes::new(&namespaces);
        scopes.declare(1, "", "urn:google");
        scopes.declare(1, "x", "urn:google");
        scopes.declare(2, "g", "urn:other");
        let matches = |name: &str, scopes: &Scopes<'_>| id.matches(name, scopes.of_element(name));
        assert!(matches("id", &scopes));
        assert!(matches("x:id", &scopes));
        assert!(
            !matches("g:id", &scopes),
            "the document gives the prefix another meaning"
        );
        scopes.leave(2);
        assert!(
            matches("g:id", &scopes),
            "undeclared, so the prefix itself is compared"
        );
        scopes.declare(2, "", "");
        assert!(
            !matches("id", &scopes),
            "the default namespace is switched off"
        );
    }

    #[test]
    fn a_prefix_not_bound_is_compared_as_it_is_written() {
        let namespaces = google();
        let category = namespaces.test("nsx:category");
        assert!(category.matches("nsx:category", Namespace::Undeclared));
        assert!(category.matches("nsx:category", Namespace::Foreign));
        assert!(!category.matches("category", Namespace::Undeclared));
    }

    #[test]
    fn the_default_namespace_does_not_reach_attributes() {
        let namespaces = google();
        let mut scopes = Scopes::new(&namespaces);
        scopes.declare(1, "", "urn:google");
        assert_eq!(scopes.of_attribute("id"), Namespace::Undeclared);
        assert_eq!(scopes.of_element("id"), namespaces.find("urn:google"));
    }
}
