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

async fn healthz(State(state): State<AdminState>) -> (StatusCode, String) {
    let stale = state
        .runtimes
        .iter()
        .find(|(_, status)| status.since_poll() > STALE);
    match stale {
        None => (StatusCode::OK, "ok\n".into()),
        Some((stage, status)) => {
            let seconds = status.since_poll().as_secs();
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{stage}: the kafka thread has been silent for {seconds} s\n"),
            )
        }
    }
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
