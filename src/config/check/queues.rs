//! Findings about `intake.queues`.

use std::collections::HashSet;

use crate::config::Queue;
use crate::config::queue_url::QueueUrl;

use super::Finding;
use super::s3::check_credentials;

pub(super) fn check(queues: &[Queue], findings: &mut Vec<Finding>) {
    let mut seen = HashSet::new();
    for (number, queue) in queues.iter().enumerate() {
        let setting = format!("intake.queues[{number}]");
        let mut error = |message: String| findings.push(Finding::error(message));
        if let Err(wrong) = QueueUrl::parse(&queue.url) {
            error(format!("{setting}.url: {wrong}"));
        } else if !seen.insert(&queue.url) {
            error(format!("{setting}.url: {} is there twice", queue.url));
        }
        if let Some(endpoint) = &queue.endpoint
            && !is_endpoint(endpoint)
        {
            error(format!(
                "{setting}.endpoint: expected http:// or https:// and a host, without a user name"
            ));
        }
        let credentials = format!("{setting}.credentials");
        check_credentials(&credentials, &queue.credentials, findings);
    }
}

fn is_endpoint(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && !text.contains('@')
    })
}
