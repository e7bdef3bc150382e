//! Which results are asked for.

use clap::Args;

use crate::{
    cli::{
        filter::{ObjectFilter, among},
        moment::moment,
    },
    topics::{Millis, Outcome, ResultRecord},
};

#[derive(Debug, Default, Args)]
pub struct Filter {
    /// Only this outcome: converted, dead_lettered, duplicate, superseded, missing, ignored or discarded
    #[arg(long, value_parser = outcome)]
    outcome: Vec<Outcome>,
    /// Only of this feed
    #[arg(long, value_name = "NAME")]
    feed: Vec<String>,
    /// Only with this reason, such as malformed_xml
    #[arg(long, value_name = "CODE")]
    reason: Vec<String>,
    #[command(flatten)]
    object: ObjectFilter,
    /// Only what was finished at this time or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Millis>,
    /// Only what was finished before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Millis>,
}

fn outcome(name: &str) -> Result<Outcome, String> {
    Outcome::ALL
        .into_iter()
        .find(|outcome| outcome.name() == name)
        .ok_or_else(|| format!("there are {}", Outcome::ALL.map(Outcome::name).join(", ")))
}

impl Filter {
    pub fn takes(&self, result: &ResultRecord) -> bool {
        let at = result.finished_at;
        self.takes_object(&result.bucket, &result.key)
            && among(&self.outcome, Some(&result.outcome))
            && among(&self.feed, result.feed.as_ref())
            && among(&self.reason, result.reason.as_ref())
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
    }

    /// What can be told without reading the whole record.
    pub fn takes_object(&self, bucket: &str, key: &str) -> bool {
        self.object.takes(bucket, key)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;
    use crate::cli::results::testing::result;

    fn filter(args: &[&str]) -> Result<Filter, clap::Error> {
        let command = Filter::augment_args(Command::new("results"));
        let args = ["results"].iter().chain(args);
        Filter::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    /// The results, by their number, that the filter takes.
    fn taken(args: &[&str]) -> Vec<usize> {
        let of = |bucket: &str, key: &str, outcome, feed: Option<&str>, reason: Option<&str>| {
            ResultRecord {
                feed: feed.map(Into::into),
                reason: reason.map(Into::into),
                ..result(bucket, key, outcome)
            }
        };
        let results = [
            of("a", "in/x.xml", Outcome::Converted, Some("nsx"), None),
            of(
                "a",
                "in/deep/y.xml",
                Outcome::DeadLettered,
                Some("nsx"),
                Some("malformed_xml"),
            ),
            of(
                "b",
                "in/z.csv",
                Outcome::DeadLettered,
                Some("google"),
                Some("too_large"),
            ),
            of("b", "else", Outcome::Ignored, None, None),
        ];
        let filter = filter(args).unwrap();
        let takes = |(_, result): &(usize, &ResultRecord)| filter.takes(result);
        let taken = results.iter().enumerate().filter(takes);
        taken.map(|(number, _)| number).collect()
    }

    #[test]
    fn a_filter_takes_any_of_its_values_and_all_filters_must_agree() {
        for (args, numbers) in [
            (&[][..], &[0, 1, 2, 3][..]),
            (&["--feed", "nsx"], &[0, 1]),
            (&["--feed", "nsx", "--feed", "google"], &[0, 1, 2]),
            (&["--outcome", "dead_lettered"], &[1, 2]),
            (&["--outcome", "dead_lettered", "--bucket", "a"], &[1]),
            (&["--outcome", "ignored", "--outcome", "converted"], &[0, 3]),
            (
                &["--reason", "too_large", "--reason", "malformed_xml"],
                &[1, 2],
            ),
            (&["--bucket", "a", "--bucket", "b"], &[0, 1, 2, 3]),
            (&["--bucket", "c"], &[]),
            (&["--key", "in/*.xml"], &[0]),
            (&["--key", "in/**"], &[0, 1, 2]),
            (&["--key", "**/*.{xml,csv}", "--bucket", "b"], &[2]),
        ] {
            assert_eq!(taken(args), numbers, "{args:?}");
        }
    }

    #[test]
    fn times_are_those_of_the_finish_from_since_up_to_until() {
        // The results are finished in the first second of 1970.
        for (args, count) in [
            (["--since", "1970-01-01T00:00:01Z"], 4),
            (["--since", "1970-01-01T00:00:01.001Z"], 0),
            (["--until", "1970-01-01T00:00:01Z"], 0),
            (["--until", "1970-01-01T00:00:01.001Z"], 4),
            (["--since", "3h"], 0),
        ] {
            assert_eq!(taken(&args).len(), count, "{args:?}");
        }
    }

    #[test]
    fn a_glob_or_a_time_that_is_none_says_why() {
        let error = |args: &[&str]| filter(args).unwrap_err().to_string();
        assert!(error(&["--key", "in/[x"]).contains("unclosed character class"));
        assert!(error(&["--since", "soon"]).contains("2026-01-31T08:00:00Z"));
    }
}
