//! Every finding as a person reads it.

use super::check;
use crate::config::testing::layered;

const COMPLETE: &str = r#"
    kafka.brokers = ["kafka-1:9092"]
    output.bucket = "shop-json"
    feeds = [{ name = "nsx", match = "s3://partner-files/nsx/**" }]
"#;

/// The findings on a complete configuration with these settings over it.
fn findings(settings: &str) -> Vec<String> {
    check(&layered(COMPLETE, settings))
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Those on these feeds, each a name and a match.
fn findings_on_feeds(output: &str, feeds: &[(&str, &str)]) -> Vec<String> {
    let feed =
        |(name, matches): &(&str, &str)| format!("{{ name = '{name}', match = '''{matches}''' }}");
    let feeds: Vec<String> = feeds.iter().map(feed).collect();
    findings(&format!("feeds = [{}]\n{output}", feeds.join(", ")))
}

#[track_caller]
fn only(settings: &str, expected: &str) {
    assert_eq!(findings(settings), [expected], "{settings}");
}

#[test]
fn a_complete_configuration_has_no_findings() {
    assert_eq!(findings(""), [""; 0]);
}

#[test]
fn what_has_no_default_is_asked_for() {
    only(
        "kafka.brokers = []",
        "error: kafka.brokers: is not set; for example [\"kafka-1:9092\", \"kafka-2:9092\"], or FEEDMILL_KAFKA__BROKERS=kafka-1:9092",
    );
    only(
        "output.bucket = ''",
        "error: output.bucket: is not set; it names the bucket that gets the JSON",
    );
    only(
        "feeds = []",
        "error: feeds: there is none; each partner's feed is a [[feeds]] table with a name and a match",
    );
}

#[test]
fn settings_out_of_bounds_are_refused() {
    only(
        "kafka.brokers = ['kafka-1']",
        "error: kafka.brokers: expected host:port, found \"kafka-1\"",
    );
    only(
        "kafka.partitions = -1",
        "error: kafka.partitions: must be at least 1",
    );
    only(
        "kafka.replication = 0",
        "error: kafka.replication: must be at least 1",
    );
    only("kafka.group = ' '", "error: kafka.group: is empty");
    only(
        "kafka.topic_prefix = 'feed mill'",
        "error: kafka.topic_prefix: expected 1 to 226 letters, digits, dots, underscores and hyphens, found \"feed mill\"",
    );
    only(
        "convert.max_in_flight = 0",
        "error: convert.max_in_flight: must be at least 1",
    );
    only(
        "output.part_bytes = 1_000_000",
        "error: output.part_bytes: S3 takes parts of 5242880 (5 MiB) to 5368709120 (5 GiB) bytes, found 1000000",
    );
    only(
        "output.bucket = 's3://shop-json'",
        "error: output.bucket: the bucket name \"s3://shop-json\" contains a slash; expected its bare name",
    );
    only(
        "s3.endpoint = 'localhost:8333'",
        "error: s3.endpoint: expected http:// or https:// and a host, found \"localhost:8333\"",
    );
}

#[test]
fn a_log_level_that_would_silence_everything_is_refused() {
    only(
        "log.level = 'inof'",
        "error: log.level: \"inof\" is no level, did you mean \"info\"?",
    );
    only(
        "log.level = 'loud'",
        "error: log.level: \"loud\" is no level; there are off, error, warn, info, debug, trace",
    );
    assert!(
        findings("log.level = 'feedmill=fast'")[0]
            .starts_with("error: log.level: \"feedmill=fast\" is no filter: ")
    );
    assert_eq!(
        findings("log.level = 'WARN,feedmill::kafka=debug,rdkafka=off'"),
        [""; 0]
    );
}

#[test]
fn listening_beyond_loopback_needs_a_token_or_a_word() {
    only(
        "intake.listen = '0.0.0.0:8080'",
        "error: intake.listen: 0.0.0.0:8080 can be reached from outside and there is no intake.token; set one (FEEDMILL_INTAKE__TOKEN), or intake.allow_unauthenticated = true where something else keeps strangers out",
    );
    assert_eq!(
        findings("intake.listen = '0.0.0.0:8080'\nintake.token = 'x'"),
        [""; 0]
    );
    assert_eq!(
        findings("intake.listen = '0.0.0.0:8080'\nintake.allow_unauthenticated = true"),
        [""; 0]
    );
    assert_eq!(findings("intake.listen = '[::1]:8080'"), [""; 0]);
    only("intake.token = ''", "error: intake.token: is empty");
}

#[test]
fn two_servers_cannot_share_a_port() {
    only(
        "admin.listen = '0.0.0.0:8080'",
        "error: admin.listen: 0.0.0.0:8080 is taken by intake.listen 127.0.0.1:8080",
    );
    assert_eq!(
        findings("admin.listen = '127.0.0.1:0'\nintake.listen = '127.0.0.1:0'"),
        [""; 0]
    );
}

#[test]
fn security_that_is_half_given_is_refused() {
    assert_eq!(
        findings("kafka.security = { protocol = 'sasl_ssl', username = 'u' }"),
        [
            "error: kafka.security.sasl_mechanism: is not set, and SASL needs it",
            "error: kafka.security.password: is not set, and SASL needs it",
        ]
    );
    only(
        "kafka.security = { protocol = 'plaintext', username = 'u' }",
        "error: kafka.security.protocol: has no SASL, so sasl_mechanism, username and password have no effect; name sasl_ssl",
    );
    only(
        "kafka.security = { protocol = 'plaintext', ca_file = 'Cargo.toml' }",
        "error: kafka.security.protocol: has no TLS, so ca_file, certificate_file and key_file have no effect; name ssl or sasl_ssl",
    );
    only(
        "kafka.security = { certificate_file = 'Cargo.toml' }",
        "error: kafka.security.key_file: is not set, and certificate_file needs it",
    );
    only(
        "kafka.security = { key_file = 'Cargo.toml' }",
        "error: kafka.security.certificate_file: is not set, and key_file needs it",
    );
    only(
        "kafka.security = { ca_file = 'no/such.pem' }",
        "error: kafka.security.ca_file: no/such.pem cannot be read: No such file or directory (os error 2)",
    );
    only(
        "kafka.security = { protocol = 'sasl_plaintext', sasl_mechanism = 'PLAIN', username = 'u', password = 'p' }",
        "warning: kafka.security: PLAIN without TLS sends the password readably over the network",
    );
}

#[test]
fn a_password_is_sent_with_tls_unless_told_otherwise() {
    use crate::config::SecurityProtocol;
    let security = |text: &str| {
        layered("", &format!("kafka.security = {{ {text} }}"))
            .kafka
            .security
    };
    assert_eq!(
        security("").effective_protocol(),
        SecurityProtocol::Plaintext
    );
    assert_eq!(
        security("ca_file = 'x'").effective_protocol(),
        SecurityProtocol::Ssl
    );
    assert_eq!(
        security("username = 'x'").effective_protocol(),
        SecurityProtocol::SaslSsl
    );
}

#[test]
fn properties_that_exactly_once_rests_on_are_refused() {
    only(
        "kafka.properties = { 'isolation.level' = 'read_uncommitted' }",
        "error: kafka.properties: \"isolation.level\" cannot be changed, exactly-once processing rests on it",
    );
    only(
        "kafka.properties = { 'group.id' = 'x' }",
        "error: kafka.properties: \"group.id\" is set by kafka.group",
    );
    assert_eq!(
        findings("kafka.properties = { 'socket.keepalive.enable' = true }"),
        [""; 0]
    );
}

#[test]
fn a_feed_that_cannot_work_is_named_with_the_reason() {
    assert_eq!(
        findings_on_feeds(
            "",
            &[
                ("", "s3://a/1/**"),
                ("x", "s3://a/2/**"),
                ("x", "s3://a/3/**"),
                ("a/b", "s3://a/4/**")
            ]
        ),
        [
            "error: feeds[0]: its name is empty",
            "error: feed \"x\": there are two of this name",
            "error: feed \"a/b\": expected letters, digits, dots, underscores and hyphens in the name",
        ]
    );
    assert_eq!(
        findings_on_feeds("", &[("x", "partner/**"), ("y", "s3://a/[b")]),
        [
            "error: feed \"x\": match: expected s3://bucket/glob, found \"partner/**\"",
            "error: feed \"y\": match: the glob \"[b\" cannot be read: unclosed character class; missing ']'",
        ]
    );
    let mapping = findings("feeds = [{ name = 'x', match = 's3://a/**', record = 'a//b' }]");
    assert!(mapping[0].starts_with("error: feed \"x\": "), "{mapping:?}");
}

#[test]
fn a_feed_that_never_gets_an_object_is_suspicious() {
    assert_eq!(
        findings_on_feeds("", &[("all", "s3://a/in/**"), ("nsx", "s3://a/in/nsx/*.xml"), ("b", "s3://b/in/**")]).first(),
        Some(
            &"warning: feed \"nsx\": never gets an object, feed \"all\" before it takes them all (s3://a/in/** covers s3://a/in/nsx/*.xml); put it first"
                .to_owned()
        )
    );
    assert_eq!(
        findings_on_feeds(
            "",
            &[("nsx", "s3://a/in/nsx/*.xml"), ("all", "s3://a/in/**")]
        ),
        [""; 0]
    );
}

#[test]
fn sources_of_two_buckets_cannot_share_an_output() {
    let feeds = [("one", "s3://a/in/**"), ("two", "s3://b/in/**")];
    assert_eq!(
        findings_on_feeds("", &feeds),
        [
            "error: output.key: with \"{key}.json\" sources of the buckets a (feed \"one\") and b (feed \"two\") can get the same output; put the bucket in, as in \"{bucket}/{key}.json\""
        ]
    );
    assert_eq!(
        findings_on_feeds("output.key = '{bucket}/{key}'", &feeds),
        [""; 0]
    );
    assert_eq!(
        findings_on_feeds("output.layout = 'versioned'", &feeds),
        [""; 0]
    );
    let apart = [("one", "s3://a/x/**"), ("two", "s3://b/y/**")];
    assert_eq!(
        findings_on_feeds("", &apart),
        [""; 0],
        "the keys differ anyhow"
    );
}

#[test]
fn a_bucket_beside_the_key_without_a_slash_is_ambiguous() {
    // `a` with key `b-x` and `a-b` with key `x`.
    let feeds = [("one", "s3://a/**"), ("two", "s3://a-b/**")];
    assert_eq!(
        findings_on_feeds("output.key = '{bucket}-{key}'", &feeds).len(),
        1
    );
    assert_eq!(
        findings_on_feeds("output.key = '{key}-{bucket}'", &feeds),
        [""; 0],
        "one cannot end the other"
    );
    assert_eq!(
        findings_on_feeds(
            "output.key = '{feed}{key}'",
            &[("n", "s3://a/*x"), ("ns", "s3://a/*y")]
        ),
        [
            "error: output.key: with \"{feed}{key}\" a source of feed \"n\" and one of feed \"ns\" can get the same output; part {feed} from {key} by a slash, as in \"{feed}/{key}.json\""
        ]
    );
}

#[test]
fn feedmill_does_not_read_its_own_outputs() {
    let loops = |output: &str, glob: &str| {
        let output = format!("output.bucket = 'a'\noutput.key = '{output}'");
        findings_on_feeds(&output, &[("nsx", &format!("s3://a/{glob}"))])
    };
    assert_eq!(
        loops("{key}.json", "nsx/**"),
        [
            "error: feed \"nsx\": its match s3://a/nsx/** can take feedmill's own outputs for sources: those of feed \"nsx\" go to s3://a/nsx/...; write to another bucket, or under a prefix that no feed matches"
        ]
    );
    assert_eq!(loops("nsx/json/{key}", "nsx/**").len(), 1);
    assert_eq!(loops("json/{key}", "**/*").len(), 1);
    assert_eq!(loops("json/{key}", "**/feed.{xml,json}").len(), 1);
    assert_eq!(
        loops("json/{key}.json", "nsx/**"),
        [""; 0],
        "another prefix"
    );
    assert_eq!(
        loops("{key}.json", "nsx/**/*.xml"),
        [""; 0],
        "another ending"
    );
}

#[test]
fn the_outputs_of_one_feed_are_no_sources_of_another_either() {
    let feeds = [("nsx", "s3://a/nsx/*.xml"), ("json", "s3://a/**/*.json")];
    assert_eq!(
        findings_on_feeds("output.bucket = 'a'", &feeds)
            .first()
            .map(String::as_str),
        Some(
            "error: feed \"json\": its match s3://a/**/*.json can take feedmill's own outputs for sources: those of feed \"nsx\" go to s3://a/nsx/...; write to another bucket, or under a prefix that no feed matches"
        )
    );
    let versioned = "output.bucket = 'a'\noutput.key = '{key}.xml'\noutput.layout = 'versioned'";
    assert_eq!(
        findings_on_feeds(versioned, &feeds[..1]),
        [""; 0],
        "versioned outputs end in .json"
    );
}

#[test]
fn an_output_key_that_is_no_template_says_why() {
    only(
        "output.key = 'products.json'",
        "error: output.key: \"products.json\": it needs {key} exactly once, or different sources would share an output",
    );
    only(
        "output.key = '{buckt}/{key}'",
        "error: output.key: \"{buckt}/{key}\": {buckt} is not known, did you mean {bucket}?",
    );
}

#[test]
fn writes_without_conditions_are_suspicious() {
    only(
        "output.conditional_writes = false",
        "warning: output.conditional_writes: is off, so a stalled worker's late write can replace a newer output",
    );
}

#[test]
fn a_thousand_feeds_of_as_many_buckets_are_fine() {
    let feeds: Vec<(String, String)> = (0..1_000)
        .map(|n| (format!("p{n}"), format!("s3://partner-{n}/**/*.xml")))
        .collect();
    let feeds: Vec<(&str, &str)> = feeds
        .iter()
        .map(|(name, glob)| (name.as_str(), glob.as_str()))
        .collect();
    assert_eq!(
        findings_on_feeds("output.key = '{bucket}/{key}'", &feeds),
        [""; 0]
    );
}

#[test]
fn a_queue_that_cannot_be_asked_for_is_named_by_its_place() {
    const URL: &str = "https://sqs.eu-central-1.amazonaws.com/111122223333/feeds";
    let queues = |list: &str| format!("intake.queues = [{list}]");
    only(
        &queues(&format!("{{ url = '{URL}' }}, {{ url = 'feeds' }}")),
        "error: intake.queues[1].url: expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, found \"feeds\"",
    );
    only(
        &queues(&format!("{{ url = '{URL}' }}, {{ url = '{URL}' }}")),
        &format!("error: intake.queues[1].url: {URL} is there twice"),
    );
    for endpoint in [
        "queues.internal",
        "ftp://queues.internal",
        "http://id:hush@host",
    ] {
        only(
            &queues(&format!("{{ url = '{URL}', endpoint = '{endpoint}' }}")),
            "error: intake.queues[0].endpoint: expected http:// or https:// and a host, without a user name",
        );
    }
}

#[test]
fn an_sns_topic_is_named_by_its_arn() {
    only(
        "intake.sns_topics = ['arn:aws:sns:eu-central-1:111122223333:feeds', 'feeds']",
        "error: intake.sns_topics: expected arn:aws:sns:REGION:ACCOUNT:NAME, found \"feeds\"",
    );
}
