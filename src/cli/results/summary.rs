//! Results counted instead of listed.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{cli::text::escaped, topics::ResultRecord};

/// Stands for results without a feed; no feed can have this name.
const NO_FEED: &str = "(none)";

/// How many results there are of each kind.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    results: u64,
    outcomes: BTreeMap<String, u64>,
    feeds: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
}

impl Summary {
    pub fn add(&mut self, result: &ResultRecord) {
        self.results += 1;
        count(&mut self.outcomes, result.outcome.name());
        count(&mut self.feeds, result.feed.as_deref().unwrap_or(NO_FEED));
        if let Some(reason) = &result.reason {
            count(&mut self.reasons, reason);
        }
    }

    /// Aligned columns, the most frequent first.
    pub fn table(&self) -> String {
        let groups = [
            ("outcome", &self.outcomes),
            ("feed", &self.feeds),
            ("reason", &self.reasons),
        ];
        let names = groups.iter().flat_map(|(_, counts)| counts.keys());
        let width = names
            .map(|name| escaped(name).chars().count() + 2)
            .fold("results".len(), usize::max);
        let mut table = format!("{:width$}  {:>9}", "results", self.results);
        for (name, counts) in groups.into_iter().filter(|(_, counts)| !counts.is_empty()) {
            table.push_str(&format!("\n{name}"));
            let mut rows: Vec<_> = counts.iter().collect();
            rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for (name, count) in rows {
                let name = format!("  {}", escaped(name));
                table.push_str(&format!("\n{name:width$}  {count:>9}"));
            }
        }
        table
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::results::testing::result, topics::Outcome};

    #[test]
    fn results_are_counted_by_outcome_feed_and_reason_the_most_frequent_first() {
        let mut summary = Summary::default();
        let reasons = [None, Some("malformed_xml"), Some("malformed_xml")];
        for reason in reasons {
            let (outcome, feed) = match reason {
                None => (Outcome::Converted, None),
                Some(_) => (Outcome::DeadLettered, Some("nsx".to_owned())),
            };
            summary.add(&ResultRecord {
                reason: reason.map(Into::into),
                feed,
                ..result("a", "k", outcome)
            });
        }
        assert_eq!(
            summary.table(),
            "\
results                  3
outcome
  dead_lettered          2
  converted              1
feed
  nsx                    2
  (none)                 1
reason
  malformed_xml          2"
        );
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["outcomes"]["dead_lettered"], 2);
        assert_eq!(json["feeds"]["(none)"], 1);
    }
}
