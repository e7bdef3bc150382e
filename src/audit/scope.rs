//! What an audit is about: the sources below a prefix that feeds take, and where their outputs lie.

use crate::{
    config::{
        Config, Layout,
        matcher::{FeedMatch, MatchError, Router},
        template::{KeyTemplate, REJECTED_SUFFIX, TemplateError},
    },
    object::ObjectRef,
};

/// Why there is nothing to audit.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    #[error("output.key")]
    Template(#[from] TemplateError),
    #[error("match of a feed")]
    Match(#[from] MatchError),
    #[error(
        "find a feed that takes anything below s3://{bucket}/{prefix}; the feeds match {matches}"
    )]
    NoFeed {
        bucket: String,
        prefix: String,
        matches: String,
    },
}

/// A prefix of a source bucket, seen through the feeds.
pub struct Scope {
    pub bucket: String,
    pub prefix: String,
    pub output_bucket: String,
    /// What to list of the output bucket; none lies within another.
    pub output_prefixes: Vec<String>,
    ways: Vec<Way>,
    layout: Layout,
    router: Router,
    feeds: Vec<String>,
    template: KeyTemplate,
}

/// What stands around the source's key in the keys of its outputs.
struct Way {
    before: String,
    after: String,
}

impl Scope {
    pub fn new(config: &Config, bucket: &str, prefix: &str) -> Result<Self, ScopeError> {
        let template = KeyTemplate::parse(&config.output.key)?;
        let mut ways = Vec::new();
        let mut output_prefixes = Vec::new();
        for feed in config.feeds.iter().filter(|feed| feed.enabled) {
            let watched = FeedMatch::parse(&feed.r#match)?;
            let Some(both) = narrower(prefix, watched.prefix()) else {
                continue;
            };
            if watched.bucket() == bucket {
                let (before, after) = template.around_key(bucket, &feed.name);
                output_prefixes.push(format!("{before}{both}"));
                ways.push(Way { before, after });
            }
        }
        if ways.is_empty() {
            let matches: Vec<&str> = config.feeds.iter().map(|feed| &*feed.r#match).collect();
            return Err(ScopeError::NoFeed {
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
                matches: matches.join(", "),
            });
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            output_bucket: config.output.bucket.clone(),
            output_prefixes: outermost(output_prefixes),
            ways,
            layout: config.output.layout,
            router: Router::new(config)?,
            feeds: config.feeds.iter().map(|feed| feed.name.clone()).collect(),
            template,
        })
    }

    /// The object of this key, when a feed takes it. The markers that make folders visible are objects of no content.
    pub fn taken(&self, key: &str) -> Option<ObjectRef> {
        let object = ObjectRef::try_new(self.bucket.as_str(), key).ok()?;
        let taken = !key.ends_with('/') && self.router.find(&object).is_some();
        taken.then_some(object)
    }

    /// The source below the prefix whose output this key could be, by the template; `None` for reports of rejected
    /// records too.
    pub fn source_of(&self, output_key: &str) -> Option<ObjectRef> {
        if output_key.ends_with(REJECTED_SUFFIX) {
            return None;
        }
        let named = match self.layout {
            Layout::Mirror => output_key,
            // `<key>/<etag>-<event id>.json`
            Layout::Versioned => output_key.strip_suffix(".json")?.rsplit_once('/')?.0,
        };
        self.ways.iter().find_map(|way| {
            let key = named
                .strip_prefix(&way.before)?
                .strip_suffix(&way.after)
                .filter(|key| key.starts_with(&self.prefix))?;
            let source = self.taken(key)?;
            let feed = self.feeds.get(self.router.find(&source)?)?;
            (self.template.expand(&source, feed) == named).then_some(source)
        })
    }

    /// Whether the next write for a source takes the place of the output that stands there.
    pub fn is_written_over(&self) -> bool {
        self.layout == Layout::Mirror
    }

    /// Whether the key of a record on the topics, `bucket/key`, is of an object below the prefix.
    pub fn holds(&self, message_key: &str) -> bool {
        message_key
            .strip_prefix(&self.bucket)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|key| key.starts_with(&self.prefix))
    }
}

/// The longer of two prefixes, when one lies within the other.
fn narrower<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    match () {
        () if one.starts_with(other) => Some(one),
        () if other.starts_with(one) => Some(other),
        () => None,
    }
}

/// The prefixes without those that lie within others.
fn outermost(mut prefixes: Vec<String>) -> Vec<String> {
    prefixes.sort();
    prefixes.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(output: &str) -> Config {
        toml::from_str(&format!(
            "output = {output}\nfeeds = [
                {{ name = 'a', match = 's3://in/a/**/*.xml' }},
                {{ name = 'off', match = 's3://in/b/**', enabled = false }},
                {{ name = 'z', match = 's3://in/a/z/**' }},
                {{ name = 'other', match = 's3://other/**' }},
            ]"
        ))
        .unwrap()
    }

    fn source_of(scope: &Scope, key: &str) -> Option<String> {
        scope.source_of(key).map(|source| source.key().to_owned())
    }

    #[test]
    fn outputs_are_listed_where_the_feeds_of_the_prefix_put_them() {
        let mirror = config("{ bucket = 'out', key = 'json/{feed}/{key}.json' }");
        let prefixes = |prefix| Scope::new(&mirror, "in", prefix).unwrap().output_prefixes;
        assert_eq!(prefixes(""), ["json/a/a/", "json/z/a/z/"]);
        assert_eq!(prefixes("a/y/"), ["json/a/a/y/"]);
        let plain = config("{ bucket = 'out' }");
        assert_eq!(
            Scope::new(&plain, "in", "").unwrap().output_prefixes,
            ["a/"]
        );
        for (bucket, prefix) in [("in", "b/"), ("nowhere", "")] {
            assert!(matches!(
                Scope::new(&plain, bucket, prefix),
                Err(ScopeError::NoFeed { .. })
            ));
        }
    }

    #[test]
    fn an_output_leads_back_to_the_source_that_a_feed_takes() {
        let scope = Scope::new(&config("{ bucket = 'out' }"), "in", "a/").unwrap();
        assert_eq!(
            source_of(&scope, "a/x.xml.json").as_deref(),
            Some("a/x.xml")
        );
        for key in [
            "a/x.csv.json",
            "a/x.xml",
            "c/x.xml.json",
            "a/x.xml.json.rejected.jsonl",
        ] {
            assert_eq!(source_of(&scope, key), None, "{key}");
        }
        let versioned = config("{ bucket = 'out', layout = 'versioned', key = 'v/{key}' }");
        let scope = Scope::new(&versioned, "in", "a/").unwrap();
        let key = "v/a/x.xml/0123-0199c3a4.json";
        assert_eq!(source_of(&scope, key).as_deref(), Some("a/x.xml"));
        assert_eq!(source_of(&scope, "v/a/x.xml"), None);
    }

    #[test]
    fn only_records_below_the_prefix_are_held() {
        let scope = Scope::new(&config("{ bucket = 'out' }"), "in", "a/").unwrap();
        assert!(scope.holds("in/a/x.xml"));
        for key in ["in/b/x.xml", "inn/a/x.xml", "other/a/x.xml", "in"] {
            assert!(!scope.holds(key), "{key}");
        }
    }
}
