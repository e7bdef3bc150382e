//! All feeds, compiled: which one an object belongs to, and how it converts.

use super::{BuildError, Feed};
use crate::{
    config::{Config, matcher::Router},
    object::ObjectRef,
};

/// The feeds of one configuration. An event is handled by those of one moment, from its first look to its answer.
pub struct Feeds {
    router: Router,
    /// By their number in the configuration; `None` for one that is off.
    feeds: Vec<Option<Feed>>,
}

impl Feeds {
    pub fn compile(config: &Config) -> Result<Self, BuildError> {
        let compile = |feed: &crate::config::Feed| {
            feed.enabled
                .then(|| Feed::compile(feed, config))
                .transpose()
        };
        Ok(Self {
            router: Router::new(config)?,
            feeds: config.feeds.iter().map(compile).collect::<Result<_, _>>()?,
        })
    }

    /// The feed of an object, if it has one.
    pub fn of(&self, object: &ObjectRef) -> Option<&Feed> {
        self.feeds.get(self.router.find(object)?)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::config::{self, Sources, load};

    const MAIN: &str = r#"
        kafka.brokers = ["kafka-1:9092"]
        output = { bucket = "shop-json", key = "{feed}/{key}.json" }
    "#;

    /// A file as partners have them, each with a folder of the shop's bucket.
    fn partner(number: usize) -> String {
        format!(
            r#"
            [[feeds]]
            name = "partner-{number}"
            match = "s3://partner-files/partner-{number}/**/*.xml*"
            owner = "team-{}@shop.example"
            record = "rss/channel/item"
            namespaces = {{ g = "http://base.google.com/ns/1.0" }}

            [feeds.fields]
            id = {{ path = "g:id", required = true }}
            price = {{ path = "g:price", type = "decimal" }}
            images = {{ each = "g:image", key = "image_{{@type}}", value = "@url", fill_gaps = true }}
            shipping = {{ each = "g:shipping", fields = {{ country = "g:country", price = "g:price" }} }}
            "#,
            number % 7
        )
    }

    fn object(number: usize) -> ObjectRef {
        ObjectRef::try_new("partner-files", format!("partner-{number}/2026/a.xml.gz")).unwrap()
    }

    /// Under a second as it is shipped; the bound is for a debug build on a busy machine.
    #[test]
    fn a_thousand_partners_files_are_loaded_checked_and_compiled_in_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("feedmill.toml");
        fs::write(&main, MAIN).unwrap();
        fs::create_dir(folder.path().join("feeds.d")).unwrap();
        for number in 0..1_000 {
            let path = folder.path().join(format!("feeds.d/{number:04}.toml"));
            fs::write(path, partner(number)).unwrap();
        }
        let began = Instant::now();
        let loaded = load(Sources {
            file: Some(main),
            ..Sources::default()
        })
        .unwrap();
        assert_eq!(loaded.validate().unwrap(), []);
        let feeds = Feeds::compile(&loaded.config).unwrap();
        let took = began.elapsed();
        println!("1,000 partners' files: {took:?}");
        assert!(took < Duration::from_secs(15), "{took:?}");
        for number in [0, 1, 500, 999] {
            let name = feeds.of(&object(number)).map(|feed| feed.name.clone());
            assert_eq!(name, Some(format!("partner-{number}")));
        }
        assert!(feeds.of(&object(1_000)).is_none());
    }

    const FEED: &str = r#"
        [[feeds]]
        name = "nsx"
        match = "s3://in/nsx/**"
        record = "items/item"
        namespaces = { g = "u:g", h = "u:h" }

        [feeds.fields]
        id = { path = "@id", required = true }
        prices = { each = "price", fields = { currency = "@currency", value = "." } }
    "#;

    /// Of the only feed of a configuration.
    fn hash(text: &str) -> String {
        let config: Config = toml::from_str(text).unwrap();
        let feed: &config::Feed = &config.feeds[0];
        Feed::compile(feed, &config).unwrap().mapping_hash
    }

    #[test]
    fn the_mapping_hash_stays_when_nothing_that_decides_the_output_changes() {
        let rewritten = r#"
            # The partner's own XML.
            [[feeds]]
            labels      = { tier = "gold" }
            namespaces  = { h = "u:h", g = "u:g" } # in another order
            record      = "items/item"
            description = "daily at six"
            match       = "s3://elsewhere/*.xml"
            owner       = "partners@shop.example"
            enabled     = false
            name        = "renamed"

            [feeds.fields.id]
            required = true
            path     = "@id"

            [feeds.fields.prices]
            fields = { currency = { path = "@currency" }, value = "." }
            each   = "price"
        "#;
        assert_eq!(hash(FEED), hash(rewritten));
    }

    #[test]
    fn the_mapping_hash_changes_with_the_bytes_and_the_place_of_the_output() {
        let other_order = FEED.replace(
            "currency = \"@currency\", value = \".\"",
            "value = \".\", currency = \"@currency\"",
        );
        assert_ne!(other_order, FEED);
        for changed in [
            other_order,
            FEED.replace("items/item", "items/product"),
            FEED.replace("u:g", "u:other"),
            format!("output.bucket = 'other'\n{FEED}"),
            format!("output.key = '{{feed}}/{{key}}'\n{FEED}"),
            format!("output.layout = 'versioned'\n{FEED}"),
        ] {
            assert_ne!(hash(FEED), hash(&changed), "{changed}");
        }
    }
}
