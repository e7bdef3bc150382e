//! What is asked of S3, counted inside the SDK: each try of each request.

use aws_sdk_s3::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::FinalizerInterceptorContextRef,
    },
    error::BoxError,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use prometheus::IntCounterVec;

use super::{list, register::Registrar};

/// The statuses that S3 servers answer with, and the proxies before them.
const STATUSES: [u16; 21] = [
    200, 204, 206, 301, 304, 307, 400, 401, 403, 404, 405, 408, 409, 412, 416, 429, 500, 501, 502,
    503, 504,
];

/// Counts requests to S3.
#[derive(Debug, Clone)]
pub struct S3Metrics {
    requests: IntCounterVec,
}

impl S3Metrics {
    pub fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            requests: registrar.counters(&list::S3_REQUESTS),
        }
    }

    /// The same client, counted.
    pub fn counting(&self, client: &Client) -> Client {
        let config = client.config().to_builder().interceptor(self.clone());
        Client::from_conf(config.build())
    }
}

impl Intercept for S3Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = config.load::<Metadata>().map_or("unknown", Metadata::name);
        let answer = context.response().map(|answer| answer.status().as_u16());
        let labels = [operation, &status(answer)];
        self.requests.with_label_values(&labels).inc();
        Ok(())
    }
}

fn status(answer: Option<u16>) -> String {
    match answer {
        None => "none".to_owned(),
        Some(status) if STATUSES.contains(&status) => status.to_string(),
        Some(_) => "other".to_owned(),
    }
}
