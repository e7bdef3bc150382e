//! What the URL of an SQS queue tells: its name, its region, and where requests about it go.

use url::Url;

/// A queue's URL, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueUrl {
    /// The last part of its path.
    pub name: String,
    /// Of a host of AWS.
    pub region: Option<String>,
    /// Scheme, host and port; `None` for AWS's earlier hosts, which do not speak today's protocol.
    pub endpoint: Option<String>,
}

/// Why a text is no queue's URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueUrlError {
    #[error("expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, found {0:?}")]
    NoQueue(String),
    // Not quoted: what stands before the @ may be a password.
    #[error("holds a user name, which SQS does not know; credentials go under credentials")]
    UserName,
}

impl QueueUrl {
    pub fn parse(text: &str) -> Result<Self, QueueUrlError> {
        if text.contains('@') {
            return Err(QueueUrlError::UserName);
        }
        Self::read(text).ok_or_else(|| QueueUrlError::NoQueue(text.to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_plain = matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none();
        let host = url.host_str().filter(|_| is_plain)?;
        let name = url.path_segments()?.next_back()?;
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(known) {
            return None;
        }
        let (region, is_earlier) = place(host);
        Some(Self {
            name: name.to_owned(),
            region: region.map(str::to_owned),
            endpoint: (!is_earlier).then(|| url.origin().ascii_serialization()),
        })
    }
}

/// The region that a host of AWS is in, and whether it is one of the earlier kind.
/// <https://docs.aws.amazon.com/general/latest/gr/sqs-service.html>
fn place(host: &str) -> (Option<&str>, bool) {
    let labels: Vec<&str> = host.split('.').collect();
    match labels[..] {
        ["queue", "amazonaws", "com"] => (Some("us-east-1"), true),
        [region, "queue", "amazonaws", "com", ..] => (Some(region), true),
        ["sqs" | "sqs-fips", region, "amazonaws", "com"]
        | ["sqs" | "sqs-fips", region, "amazonaws", "com", "cn"]
        | ["sqs" | "sqs-fips", region, "api", "aws"]
        | [_, "sqs", region, "vpce", "amazonaws", "com", ..] => (Some(region), false),
        _ => (None, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_queue_on_aws_tells_its_region() {
        for (host, region) in [
            ("sqs.eu-central-1.amazonaws.com", "eu-central-1"),
            ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("sqs-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("sqs.eu-west-3.api.aws", "eu-west-3"),
            ("vpce-1a2b.sqs.us-east-2.vpce.amazonaws.com", "us-east-2"),
        ] {
            let read = QueueUrl::parse(&format!("https://{host}/111122223333/feeds.fifo")).unwrap();
            assert_eq!(read.name, "feeds.fifo");
            assert_eq!(read.region.as_deref(), Some(region), "{host}");
            assert_eq!(read.endpoint, Some(format!("https://{host}")));
        }
    }

    #[test]
    fn requests_about_a_queue_of_an_earlier_url_go_where_its_region_is_served_today() {
        for (host, region) in [
            ("queue.amazonaws.com", "us-east-1"),
            ("eu-west-1.queue.amazonaws.com", "eu-west-1"),
        ] {
            let read = QueueUrl::parse(&format!("https://{host}/111122223333/feeds")).unwrap();
            assert_eq!(
                (read.region.as_deref(), read.endpoint),
                (Some(region), None)
            );
        }
    }

    #[test]
    fn a_queue_elsewhere_is_asked_for_where_its_url_says() {
        let read = QueueUrl::parse("http://localhost:9324/000000000000/feeds").unwrap();
        assert_eq!(read.endpoint.as_deref(), Some("http://localhost:9324"));
        assert_eq!(read.region, None);
    }

    #[test]
    fn what_is_no_queues_url_is_refused_and_a_password_not_repeated() {
        for text in [
            "",
            "feeds",
            "arn:aws:sqs:eu-central-1:111122223333:feeds",
            "https://sqs.eu-central-1.amazonaws.com",
            "https://sqs.eu-central-1.amazonaws.com/111122223333/",
            "https://sqs.eu-central-1.amazonaws.com/1/a?b",
            "https://sqs.eu-central-1.amazonaws.com/1/a%20b",
            "ftp://host/1/feeds",
        ] {
            assert_eq!(
                QueueUrl::parse(text),
                Err(QueueUrlError::NoQueue(text.into()))
            );
        }
        let error = QueueUrl::parse("https://id:hush@host/1/feeds").unwrap_err();
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}
