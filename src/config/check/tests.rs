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
fn a_feed_is_not_expected_every_few_seconds() {
    only(
        "feeds = [{ name = 'nsx', match = 's3://partner-files/nsx/**', expect_every = '5s' }]",
        "error: feed \"nsx\": expect_every is shorter than a minute, so the feed would be missed all the time; say how often its partner delivers, or leave it out",
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
        "memory.limit = '100 MB'",
        "error: memory.limit: must be at least 128 MiB, found 100000000 bytes",
    );
    only(
        "memory.limit = '128 MiB'\noutput.part_bytes = 33_554_432",
        "error: output.part_bytes: a large file holds three parts of its output, 100663296 bytes, and memory.limit leaves 67108864 for files; make the parts smaller or the limit higher",
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
fn the_reports_of_rejected_records_are_no_sources_either() {
    let found = |max_rejected: &str| {
        findings(&format!(
            "kafka.brokers = ['a:1']\noutput.bucket = 'a'\n[[feeds]]\nname = 'nsx'\nmatch = 's3://a/nsx/*.xml'\n{max_rejected}\n[[feeds]]\nname = 'lines'\nmatch = 's3://a/**/*.jsonl'"
        ))
    };
    assert_eq!(found(""), Vec::<String>::new());
    let looped = found("max_rejected = 1");
    assert!(
        looped[0].contains("feed \"lines\": its match s3://a/**/*.jsonl can take"),
        "{looped:?}"
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
fn credentials_that_are_half_given_or_contradict_each_other_are_refused() {
    let with = |credentials: &str| findings(&format!("s3.credentials = {{ {credentials} }}"));
    let keys = "access_key_id = 'a', secret_access_key = 'hush'";
    for sound in [
        "",
        keys,
        "profile = 'shop'",
        "role_arn = 'arn:aws:iam::1:role/x', external_id = 'y'",
        &format!("{keys}, session_token = 't', role_arn = 'arn:aws:iam::1:role/x'"),
    ] {
        assert_eq!(with(sound), [""; 0], "{sound}");
    }
    for (credentials, expected) in [
        (
            "secret_access_key = 'hush'",
            "error: s3.credentials.access_key_id: is not set, and secret_access_key needs it",
        ),
        (
            "access_key_id = 'a'",
            "error: s3.credentials.secret_access_key: is not set, and access_key_id needs it",
        ),
        (
            "external_id = 'y'",
            "error: s3.credentials.role_arn: is not set, and external_id needs it",
        ),
        (
            "role_arn = 'reader'",
            "error: s3.credentials.role_arn: expected arn:aws:iam::ACCOUNT:role/NAME, found \"reader\"",
        ),
        (
            "profile = ''",
            "error: s3.credentials.profile: is empty; leave it out",
        ),
        (
            &format!("profile = 'shop', {keys}"),
            "error: s3.credentials.profile: access_key_id is set too; choose one of them",
        ),
    ] {
        assert_eq!(with(credentials), [expected], "{credentials}");
    }
    let anonymous = findings(&format!(
        "s3.buckets.partner-files.credentials = {{ anonymous = true, {keys} }}"
    ));
    assert_eq!(
        anonymous,
        [
            "error: s3.buckets.partner-files.credentials.anonymous: requests are not signed, so access_key_id, secret_access_key would have no effect; choose one of them"
        ]
    );
}

#[test]
fn a_bucket_of_its_own_account_is_one_that_is_used() {
    assert_eq!(
        findings("s3.buckets.partner-files = { endpoint = 'aws', region = 'eu-west-1' }"),
        [""; 0]
    );
    only(
        "s3.buckets.partner-file.region = 'eu-west-1'",
        "warning: s3.buckets.partner-file: no feed in use reads this bucket and no output goes there, did you mean \"partner-files\"?",
    );
    only(
        "s3.buckets.shop-json.endpoint = 'server:8333'",
        "error: s3.buckets.shop-json.endpoint: expected http:// or https:// and a host, found \"server:8333\"",
    );
    only(
        "s3.buckets.shop-json = {}",
        "warning: s3.buckets.shop-json: says nothing; the bucket is like all others without it",
    );
    only(
        "s3.credentials.anonymous = true",
        "warning: output.bucket: shop-json is written to without credentials, which few buckets allow",
    );
    assert_eq!(
        findings("s3.buckets.partner-files.credentials.anonymous = true"),
        [""; 0],
        "a public input bucket"
    );
}

#[test]
fn a_password_in_an_endpoint_is_refused_and_not_quoted() {
    only(
        "s3.endpoint = 'https://user:hush@server'",
        "error: s3.endpoint: holds a user name, which S3 does not know; credentials go under credentials",
    );
}

#[test]
fn how_outputs_are_stored_must_make_sense() {
    assert_eq!(
        findings(
            "output = { storage_class = 'STANDARD_IA', encryption = 'aws:kms', kms_key_id = 'alias/x', cache_control = 'max-age=60' }"
        ),
        [""; 0]
    );
    only(
        "output.kms_key_id = 'alias/x'",
        "error: output.kms_key_id: has no effect without output.encryption = \"aws:kms\"",
    );
    only(
        "output.storage_class = 'standard-ia'",
        "warning: output.storage_class: AWS has no \"standard-ia\", did you mean \"STANDARD_IA\"?",
    );
    only(
        "output.storage_class = 'COLD'",
        "warning: output.storage_class: AWS has no \"COLD\", if the server is not AWS it may know it",
    );
    only(
        "output.storage_class = 'GLACIER'",
        "warning: output.storage_class: nobody can read an output in GLACIER before it is restored",
    );
    only(
        "output.content_type = \"a\\nb\"",
        "error: output.content_type: expected ASCII on one line, as a header needs it, found \"a\\nb\"",
    );
}

#[test]
fn states_are_forgotten_after_a_day_at_the_soonest_and_only_by_a_sweep() {
    assert_eq!(findings("state.retention = '1d'"), [""; 0]);
    only(
        "state.retention = '23h 59m'",
        "error: state.retention: must be at least a day; left out, states are kept for ever",
    );
    only(
        "state.retention = '90d'\nsweep.enabled = false",
        "warning: state.retention: nothing is forgotten, because sweep.enabled is off and only a sweep sees what is gone",
    );
}

#[test]
fn sweeps_come_again_and_lists_name_objects_of_watched_buckets() {
    let list = "list = 's3://partner-files/files_list.data'";
    only(
        "sweep.interval = '0s'",
        "error: sweep.interval: must be longer than 0; sweep.enabled = false ends the sweeps",
    );
    assert_eq!(
        findings(&format!(
            "sweep.lists = [{{ {list} }}, {{ {list}, prefix = 'nsx/' }}]"
        )),
        [""; 0]
    );
    only(
        &format!("sweep.lists = [{{ {list} }}, {{ {list} }}]"),
        "error: sweep.lists: s3://partner-files/files_list.data is named twice with the prefix \"\"",
    );
    only(
        "sweep.lists = [{ list = 'files_list.data' }]",
        "error: sweep.lists: \"files_list.data\" is not of the form s3://bucket/key; it names the object that has one key a line",
    );
    only(
        "sweep.lists = [{ list = 's3://other/list' }]",
        "warning: sweep.lists: no feed in use reads the bucket of s3://other/list, so nothing in it is taken",
    );
    only(
        &format!("sweep = {{ enabled = false, lists = [{{ {list} }}] }}"),
        "warning: sweep.lists: are not read, because sweep.enabled is off",
    );
}

#[test]
fn notifications_come_from_topics_of_others_each_once() {
    assert_eq!(findings("intake.topics = ['s3-events', 'b']"), [""; 0]);
    only(
        "intake.topics = ['s3-events', 's3-events']",
        "error: intake.topics: \"s3-events\" is named twice",
    );
    only(
        "intake.topics = ['feedmill.events']",
        "error: intake.topics: \"feedmill.events\" is one of feedmill's own; name the topic that the S3 server writes its notifications to",
    );
    only(
        "intake.topics = ['s3 events']",
        "error: intake.topics: expected 1 to 249 letters, digits, dots, underscores and hyphens, found \"s3 events\"",
    );
}

#[test]
fn excluded_keys_are_globs_of_keys() {
    for (glob, expected) in [
        ("", "error: intake.exclude: a glob in it is empty"),
        (
            "s3://partner-files/x/**",
            "error: intake.exclude: \"s3://partner-files/x/**\" is a URL; expected a glob of keys, it holds in every bucket",
        ),
        (
            "[x",
            "error: intake.exclude: the glob \"**/[x\" cannot be read: unclosed character class; missing ']'",
        ),
        (
            "drafts/",
            "warning: intake.exclude: \"drafts/\" is about the folder's marker only; \"drafts/**\" excludes what is in it",
        ),
        (
            "/drafts/**",
            "warning: intake.exclude: \"/drafts/**\" begins with a slash, as hardly any key does; leave it out",
        ),
        (
            "nsx/**",
            "warning: feed \"nsx\": never gets an object, intake.exclude has \"nsx/**\", which covers s3://partner-files/nsx/**",
        ),
    ] {
        only(&format!("intake.exclude = [{glob:?}]"), expected);
    }
}

#[test]
fn a_feed_that_is_off_keeps_its_name_and_stops_nothing() {
    only(
        "feeds = [{ name = 'nsx', match = 's3://a/**', enabled = false }]",
        "warning: feeds: all of them are off (enabled = false), so every object is ignored",
    );
    let off = |rest: &str| {
        findings(&format!(
            "feeds = [{{ name = 'x', match = 's3://a/x/**', enabled = false }}, {rest}]"
        ))
    };
    assert_eq!(
        off("{ name = 'x', match = 's3://a/y/**' }"),
        ["error: feed \"x\": there are two of this name"]
    );
    assert_eq!(
        off("{ name = 'all', match = 's3://a/**/*.xml' }"),
        [
            "warning: feed \"x\": is off, and feed \"all\" may take its objects (s3://a/**/*.xml for s3://a/x/**), with another mapping; exclude their keys by intake.exclude if they must wait"
        ]
    );
    let broken = off(
        "{ name = 'off', match = 's3://a/z/**', record = 'a//b', enabled = false }, { name = 'y', match = 's3://a/y/**' }",
    );
    assert_eq!(
        broken,
        [
            "warning: feed \"off\": the record path \"a//b\" is not names joined by `/` (it is off, so this stops nothing)"
        ]
    );
}

#[test]
fn ten_thousand_feeds_of_one_bucket_are_checked_in_a_moment() {
    let feeds: Vec<(String, String)> = (0..10_000)
        .map(|n| (format!("p{n}"), format!("s3://partner-files/p{n}/**")))
        .collect();
    let feeds: Vec<(&str, &str)> = feeds
        .iter()
        .map(|(name, glob)| (name.as_str(), glob.as_str()))
        .collect();
    let began = std::time::Instant::now();
    assert_eq!(
        findings_on_feeds("output.key = '{feed}/{key}'", &feeds),
        [""; 0]
    );
    // Each with every other would be a hundred million comparisons, twice.
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
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
    only(
        &queues(&format!(
            "{{ url = '{URL}', credentials = {{ access_key_id = 'a' }} }}"
        )),
        "error: intake.queues[0].credentials.secret_access_key: is not set, and access_key_id needs it",
    );
}

#[test]
fn an_sns_topic_is_named_by_its_arn() {
    only(
        "intake.sns_topics = ['arn:aws:sns:eu-central-1:111122223333:feeds', 'feeds']",
        "error: intake.sns_topics: expected arn:aws:sns:REGION:ACCOUNT:NAME, found \"feeds\"",
    );
}
