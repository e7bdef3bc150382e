//! What a sweep looks at, derived from the feeds: prefixes of source buckets, listing files, and where outputs lie.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{
        After, Config, Feed, Layout,
        matcher::{FeedMatch, MatchError, Router},
        template::{KeyTemplate, TemplateError},
    },
    object::{ObjectRef, ObjectRefError},
};

/// Why there is no plan; `config check` says the same before anything starts.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("output.key")]
    Template(#[from] TemplateError),
    #[error("match of a feed")]
    Match(#[from] MatchError),
    #[error("sweep.lists: {list:?}")]
    List {
        list: String,
        source: ObjectRefError,
    },
}

/// What a sweep looks at, and what it knows of the feeds.
#[derive(Debug, Clone)]
pub struct Plan {
    pub parts: Vec<Part>,
    router: Router,
    feeds: Vec<String>,
    afters: Vec<After>,
    template: KeyTemplate,
}

/// One thing to look through from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Source objects, by listing what begins with the prefix.
    Sources { bucket: String, prefix: String },
    /// Source objects, by an object that names them.
    ListFile {
        list: ObjectRef,
        /// Stands before each of its lines.
        prefix: String,
    },
    /// Outputs of layout `mirror`, by listing what begins with the prefix.
    Outputs {
        bucket: String,
        prefix: String,
        ways: Vec<Way>,
    },
}

impl Part {
    /// How logs name it.
    pub fn name(&self) -> String {
        match self {
            Self::Sources { bucket, prefix } | Self::Outputs { bucket, prefix, .. } => {
                format!("s3://{bucket}/{prefix}")
            }
            Self::ListFile { list, .. } => list.to_string(),
        }
    }
}

/// The way back from an output's key to its source's: the bucket that the source is in, and what stands around its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    source_bucket: String,
    before: String,
    after: String,
}

impl Way {
    fn source_of<'a>(&self, output_key: &'a str) -> Option<&'a str> {
        output_key
            .strip_prefix(&self.before)?
            .strip_suffix(&self.after)
    }
}

impl Plan {
    pub fn new(config: &Config) -> Result<Self, PlanError> {
        let template = KeyTemplate::parse(&config.output.key)?;
        let lists = list_files(config)?;
        let mut watched = Vec::new();
        for feed in config.feeds.iter().filter(|feed| feed.enabled) {
            watched.push((feed, FeedMatch::parse(&feed.r#match)?));
        }
        let named: BTreeSet<&str> = lists.iter().map(|(list, _)| list.bucket()).collect();
        let mut parts = sources(&watched, &named);
        parts.extend(lists.iter().map(|(list, prefix)| Part::ListFile {
            list: list.clone(),
            prefix: prefix.clone(),
        }));
        if config.output.layout == Layout::Mirror {
            parts.extend(outputs(&watched, &template, &config.output.bucket));
        }
        Ok(Self {
            parts,
            router: Router::new(config)?,
            feeds: config.feeds.iter().map(|feed| feed.name.clone()).collect(),
            afters: config.feeds.iter().map(|feed| feed.after.clone()).collect(),
            template,
        })
    }

    /// What becomes of the object afterwards, when a feed takes it. The markers that make folders visible are objects of no
    /// content.
    pub fn takes(&self, object: &ObjectRef) -> Option<&After> {
        let feed = (!object.key().ends_with('/')).then(|| self.router.find(object));
        self.afters.get(feed.flatten()?)
    }

    /// Whether the object is among what is listed, and would be announced. Not so what a listing file names: that it names
    /// an object no more does not say that the object is gone.
    pub fn lists(&self, object: &ObjectRef) -> bool {
        let within = |part: &Part| match part {
            Part::Sources { bucket, prefix } => {
                bucket == object.bucket() && object.key().starts_with(prefix.as_str())
            }
            Part::ListFile { .. } | Part::Outputs { .. } => false,
        };
        self.parts.iter().any(within) && self.takes(object).is_some()
    }

    /// The source whose output this key is, when a feed takes it.
    pub fn source_of(&self, output_key: &str, ways: &[Way]) -> Option<ObjectRef> {
        ways.iter().find_map(|way| {
            let key = way.source_of(output_key)?;
            let source = ObjectRef::try_new(way.source_bucket.as_str(), key).ok()?;
            let feed = self.feeds.get(self.router.find(&source)?)?;
            (self.template.expand(&source, feed) == output_key).then_some(source)
        })
    }
}

/// The buckets and prefixes that the feeds watch, as `s3://bucket/prefix`; one within another is left out.
pub fn watched_places(config: &Config) -> Result<Vec<String>, MatchError> {
    let enabled = config.feeds.iter().filter(|feed| feed.enabled);
    let watched = enabled
        .map(|feed| Ok((feed, FeedMatch::parse(&feed.r#match)?)))
        .collect::<Result<Vec<_>, MatchError>>()?;
    let parts = sources(&watched, &BTreeSet::new());
    Ok(parts.iter().map(Part::name).collect())
}

fn list_files(config: &Config) -> Result<Vec<(ObjectRef, String)>, PlanError> {
    let lists = config.sweep.lists.iter().map(|file| {
        let list = ObjectRef::from_url(&file.list).map_err(|source| PlanError::List {
            list: file.list.clone(),
            source,
        })?;
        Ok((list, file.prefix.clone()))
    });
    lists.collect()
}

/// The prefixes that feeds watch, but for buckets whose objects a listing file names.
fn sources(watched: &[(&Feed, FeedMatch)], named: &BTreeSet<&str>) -> Vec<Part> {
    let prefixes: BTreeSet<(&str, &str)> = watched
        .iter()
        .map(|(_, watched)| (watched.bucket(), watched.prefix()))
        .filter(|(bucket, _)| !named.contains(bucket))
        .collect();
    let mut parts: Vec<Part> = Vec::new();
    for (bucket, prefix) in prefixes {
        let covered = matches!(parts.last(), Some(Part::Sources { bucket: last, prefix: shorter })
            if last == bucket && prefix.starts_with(shorter.as_str()));
        if !covered {
            parts.push(Part::Sources {
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
            });
        }
    }
    parts
}

/// Where the outputs of the feeds lie.
fn outputs(
    watched: &[(&Feed, FeedMatch)],
    template: &KeyTemplate,
    output_bucket: &str,
) -> Vec<Part> {
    let mut ways: BTreeMap<String, BTreeSet<Way>> = BTreeMap::new();
    for (feed, watched) in watched {
        let (before, after) = template.around_key(watched.bucket(), &feed.name);
        let prefix = format!("{before}{}", watched.prefix());
        let way = Way {
            source_bucket: watched.bucket().to_owned(),
            before,
            after,
        };
        ways.entry(prefix).or_default().insert(way);
    }
    let mut merged: Vec<(String, BTreeSet<Way>)> = Vec::new();
    for (prefix, more) in ways {
        match merged.last_mut() {
            Some((shorter, ways)) if prefix.starts_with(shorter.as_str()) => ways.extend(more),
            _ => merged.push((prefix, more)),
        }
    }
    let part = |(prefix, ways): (String, BTreeSet<Way>)| Part::Outputs {
        bucket: output_bucket.to_owned(),
        prefix,
        ways: ways.into_iter().collect(),
    };
    merged.into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration from TOML text.
    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    fn plan(text: &str) -> Plan {
        Plan::new(&config(text)).unwrap()
    }

    fn feeds(matches: &[&str]) -> String {
        let feed = |(number, text): (usize, &&str)| {
            format!("[[feeds]]\nname = 'f{number}'\nmatch = '{text}'\n")
        };
        matches.iter().enumerate().map(feed).collect()
    }

    fn listed(plan: &Plan) -> Vec<String> {
        let sources = plan
            .parts
            .iter()
            .filter(|part| matches!(part, Part::Sources { .. }));
        sources.map(Part::name).collect()
    }

    fn written(plan: &Plan) -> Vec<(String, usize)> {
        let outputs = plan.parts.iter().filter_map(|part| match part {
            Part::Outputs { ways, .. } => Some((part.name(), ways.len())),
            _ => None,
        });
        outputs.collect()
    }

    #[test]
    fn a_bucket_is_listed_by_the_literal_prefixes_of_its_feeds_and_the_longer_ones_are_dropped() {
        let matches = [
            "s3://a/nsx/**",
            "s3://a/nsx/deep/*.xml",
            "s3://a/nsx-2/x.xml",
            "s3://b/**",
            "s3://b/x/**",
            "s3://c/{x,y}/**",
        ];
        assert_eq!(
            listed(&plan(&feeds(&matches))),
            ["s3://a/nsx-2/x.xml", "s3://a/nsx/", "s3://b/", "s3://c/"]
        );
    }

    #[test]
    fn a_feed_that_is_switched_off_is_not_looked_for() {
        let text = feeds(&["s3://a/x/**"]) + "enabled = false\n" + &feeds(&["s3://a/y/**"]);
        assert_eq!(listed(&plan(&text)), ["s3://a/y/"]);
    }

    #[test]
    fn a_bucket_with_a_listing_file_is_not_listed() {
        let lists = "[[sweep.lists]]\nlist = 's3://a/files_list.data'\nprefix = 'x/'\n";
        let plan = plan(&(lists.to_owned() + &feeds(&["s3://a/x/**", "s3://b/y/**"])));
        assert_eq!(listed(&plan), ["s3://b/y/"]);
        assert!(plan.parts.contains(&Part::ListFile {
            list: ObjectRef::from_url("s3://a/files_list.data").unwrap(),
            prefix: "x/".to_owned(),
        }));
        assert_eq!(written(&plan).len(), 2, "outputs are compared all the same");
    }

    #[test]
    fn outputs_are_looked_for_where_the_template_puts_them_and_lead_back_to_their_sources() {
        let output = "output = { bucket = 'out', key = 'json/{bucket}/{key}.{feed}' }\n";
        let plan =
            plan(&(output.to_owned() + &feeds(&["s3://a/x/*", "s3://a/x/y/**", "s3://b/**"])));
        assert_eq!(
            written(&plan),
            [
                ("s3://out/json/a/x/".to_owned(), 2),
                ("s3://out/json/b/".to_owned(), 1)
            ]
        );
        let ways: Vec<&[Way]> = plan
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Outputs { ways, .. } => Some(ways.as_slice()),
                _ => None,
            })
            .collect();
        let source = |key: &str, ways| plan.source_of(key, ways).map(|source| source.to_string());
        let of = |url: &str| Some(url.to_owned());
        assert_eq!(source("json/a/x/1.f0", ways[0]), of("s3://a/x/1"));
        assert_eq!(source("json/a/x/y/1.f1", ways[0]), of("s3://a/x/y/1"));
        assert_eq!(source("json/b/1.f2", ways[1]), of("s3://b/1"));
        // Not what the template makes of that source, not of a feed, not an output at all.
        for stray in ["json/a/x/y/1.f0", "json/a/z/1.f0", "json/a/x/1"] {
            assert_eq!(source(stray, ways[0]), None, "{stray}");
        }
    }

    #[test]
    fn outputs_that_are_never_replaced_are_not_compared() {
        let output = "output = { bucket = 'out', layout = 'versioned' }\n";
        let plan = plan(&(output.to_owned() + &feeds(&["s3://a/x/**"])));
        assert_eq!(written(&plan), []);
        assert_eq!(listed(&plan), ["s3://a/x/"]);
    }

    #[test]
    fn an_object_is_listed_when_a_feed_takes_it_and_its_bucket_is_listed_and_not_named_by_a_file() {
        let text = "[[sweep.lists]]\nlist = 's3://c/list'\n".to_owned()
            + &feeds(&["s3://a/x/*.xml", "s3://c/**"])
            + &feeds(&["s3://b/**"]).replace("f0", "off")
            + "enabled = false\n";
        let plan = plan(&text);
        let lists = |bucket: &str, key: &str| plan.lists(&ObjectRef::try_new(bucket, key).unwrap());
        assert!(lists("a", "x/1.xml"));
        for (bucket, key) in [
            ("a", "x/1.csv"),
            ("a", "y/1.xml"),
            ("a", "x/1.xml.tmp"),
            ("b", "1"),
            ("c", "1"),
            ("gone", "1"),
        ] {
            assert!(!lists(bucket, key), "s3://{bucket}/{key}");
        }
    }

    #[test]
    fn folders_and_what_no_feed_takes_are_nobodys() {
        let plan = plan(&feeds(&["s3://a/x/**"]));
        let takes = |key: &str| plan.takes(&ObjectRef::try_new("a", key).unwrap()).is_some();
        assert!(takes("x/1.xml"));
        assert!(!takes("x/folder/") && !takes("y/1.xml"));
    }
}
