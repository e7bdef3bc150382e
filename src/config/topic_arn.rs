//! The ARN of an SNS topic, and the one host that speaks for it.

/// A topic, and where its certificates and confirmations are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicArn {
    pub arn: String,
    /// `sns.REGION.amazonaws.com`, and `.cn` behind it in China.
    pub host: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected arn:aws:sns:REGION:ACCOUNT:NAME, found {0:?}")]
pub struct TopicArnError(String);

impl TopicArn {
    pub fn parse(text: &str) -> Result<Self, TopicArnError> {
        let parts: Vec<&str> = text.split(':').collect();
        let host = match parts[..] {
            ["arn", partition, "sns", region, account, name]
                if is_region(region) && is_account(account) && is_name(name) =>
            {
                host(partition, region)
            }
            _ => None,
        };
        Ok(Self {
            host: host.ok_or_else(|| TopicArnError(text.to_owned()))?,
            arn: text.to_owned(),
        })
    }
}

/// AWS's partitions that are on the public internet.
fn host(partition: &str, region: &str) -> Option<String> {
    let china = match partition {
        "aws" | "aws-us-gov" => "",
        "aws-cn" => ".cn",
        _ => return None,
    };
    Some(format!("sns.{region}.amazonaws.com{china}"))
}

/// `eu-central-1`, `us-gov-west-1`. Strict, because other hosts of AWS are anybody's: `sns.s3-us-west-2.amazonaws.com` is a
/// bucket.
fn is_region(region: &str) -> bool {
    let parts: Vec<&str> = region.split('-').collect();
    let [area, middle @ .., number] = &parts[..] else {
        return false;
    };
    let letters = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    letters(area)
        && !middle.is_empty()
        && middle.iter().all(letters)
        && number.bytes().all(|b| b.is_ascii_digit())
        && !number.is_empty()
}

fn is_account(account: &str) -> bool {
    account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_speaks_for_a_topic() {
        for (arn, host) in [
            (
                "arn:aws:sns:eu-central-1:111122223333:feeds",
                "sns.eu-central-1.amazonaws.com",
            ),
            (
                "arn:aws-us-gov:sns:us-gov-west-1:111122223333:feeds",
                "sns.us-gov-west-1.amazonaws.com",
            ),
            (
                "arn:aws-cn:sns:cn-north-1:111122223333:feeds.fifo",
                "sns.cn-north-1.amazonaws.com.cn",
            ),
        ] {
            assert_eq!(TopicArn::parse(arn).unwrap().host, host);
        }
    }

    #[test]
    fn what_would_name_another_host_is_no_topic() {
        for arn in [
            "",
            "feeds",
            "arn:aws:sqs:eu-central-1:111122223333:feeds",
            "arn:aws:sns:eu-central-1:111122223333",
            "arn:aws:sns:eu-central-1:111122223333:feeds:4711",
            "arn:aws:sns::111122223333:feeds",
            "arn:aws:sns:s3-us-west-2:111122223333:feeds",
            "arn:aws:sns:s3:111122223333:feeds",
            "arn:aws:sns:evil.example/-a-1:111122223333:feeds",
            "arn:aws:sns:eu-central:111122223333:feeds",
            "arn:aws:sns:eu-central-1:1111:feeds",
            "arn:other:sns:eu-central-1:111122223333:feeds",
            "arn:aws:sns:eu-central-1:111122223333:",
        ] {
            assert_eq!(TopicArn::parse(arn), Err(TopicArnError(arn.to_owned())));
        }
    }
}
