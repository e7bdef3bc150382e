//! `/healthz`, `/readyz` and `/metrics`, in every process.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::{kafka::Status, reload::ReloadStatus};

/// A kafka thread that has not gone round its loop for this long is not healthy.
const STALE: Duration = Duration::from_secs(60);

/// What the answers are made from.
#[derive(Clone)]
pub struct AdminState {
    pub metrics: Metrics,
    /// The stages that run in this process, by name.
    pub runtimes: Vec<(Arc<str>, Status)>,
    pub reload: ReloadStatus,
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    state: AdminState,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state);
    axum::serve(listener, routes)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

/// Whether every kafka thread polled lately, a line each.
async fn healthz(State(state): State<AdminState>) -> (StatusCode, String) {
    let mut code = StatusCode::OK;
    let mut body = String::new();
    for (stage, status) in &state.runtimes {
        let silent = status.since_poll();
        let secs = silent.as_secs();
        if silent > STALE {
            code = StatusCode::SERVICE_UNAVAILABLE;
            body += &format!("{stage}: the kafka thread has been silent for {secs} s\n");
        } else {
            body += &format!("{stage}: the kafka thread polled {secs} s ago\n");
        }
    }
    if body.is_empty() {
        body.push_str("ok\n");
    }
    (code, body)
}

async fn readyz(State(state): State<AdminState>) -> (StatusCode, String) {
    let mut body = String::new();
    let mut code = StatusCode::OK;
    for (stage, status) in &state.runtimes {
        let text = status.readiness().unwrap_or_else(|obstacles| {
            code = StatusCode::SERVICE_UNAVAILABLE;
            obstacles
        });
        body.extend(text.lines().map(|line| format!("{stage}: {line}\n")));
    }
    if body.is_empty() {
        body.push_str("ok\n");
    }
    // What ran before goes on, so this is said and holds up nothing.
    if let Some(failure) = state.reload.failure() {
        body.push_str(&failure);
        body.push('\n');
    }
    (code, body)
}

async fn metrics(State(state): State<AdminState>) -> String {
    state.metrics.render(&state.runtimes)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::kafka::status::PartitionStatus;

    fn state(runtimes: &[(&str, &Status)]) -> State<AdminState> {
        let runtimes = runtimes.iter();
        State(AdminState {
            metrics: Metrics::new(),
            runtimes: runtimes
                .map(|(stage, status)| ((*stage).into(), (*status).clone()))
                .collect(),
            reload: ReloadStatus::default(),
        })
    }

    #[tokio::test]
    async fn a_kafka_thread_that_is_silent_makes_the_process_unhealthy_and_is_named() {
        let (lively, silent) = (Status::new("convert"), Status::new("retry.1m"));
        let (code, body) = healthz(state(&[("convert", &lively)])).await;
        assert_eq!(code, StatusCode::OK);
        assert_eq!(body, "convert: the kafka thread polled 0 s ago\n");
        let long_ago = Instant::now().checked_sub(STALE + Duration::from_secs(5));
        silent.polled_at(long_ago.expect("the machine is up for a minute"));
        let both = state(&[("convert", &lively), ("retry.1m", &silent)]);
        let (code, body) = healthz(both).await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("retry.1m: the kafka thread has been silent for 65 s"));
        assert_eq!(healthz(state(&[])).await, (StatusCode::OK, "ok\n".into()));
    }

    #[tokio::test]
    async fn a_stage_is_ready_when_it_is_assigned_restored_and_kafka_is_there() {
        let status = Status::new("convert");
        let ready = async || readyz(state(&[("convert", &status)])).await;
        let (code, body) = ready().await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "convert: not in the consumer group yet\n");
        status.joined_group();
        status.set_partition(3, Some(PartitionStatus::Restoring));
        let (code, body) = ready().await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "convert: partition 3 is being restored\n");
        status.set_partition(3, Some(PartitionStatus::Running));
        let running = (StatusCode::OK, "convert: 1 partitions running\n".to_owned());
        assert_eq!(ready().await, running);
        status.trouble("Kafka: all brokers are down".into());
        let (code, body) = ready().await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "convert: Kafka: all brokers are down\n");
        status.recovered();
        assert_eq!(ready().await, running);
    }
}
