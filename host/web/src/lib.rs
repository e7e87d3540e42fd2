//! What a running scheduler shows over HTTP.
//!
//! | path | what it answers |
//! |---|---|
//! | `/metrics` | counters and histograms in the Prometheus text format |
//! | `/livez` | 200 while the scheduler's loop turns, else 500 and since when it does not |
//! | `/readyz` | 200 once every list is complete and as long as the watches hold, else 503 and what is missing |
//! | `/explain/NAMESPACE/POD` | why the pod waits, or where it runs, as JSON; 404 for a pod that is not partita's |
//!
//! The crate knows nothing of what it shows: a [`Source`] does. Answers are made of what the source keeps at hand, so a request costs the
//! scheduler no more than a lock, and what is asked is bounded: other methods, other paths and long names are refused by themselves.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// The longest name of a namespace or a pod in the Kubernetes API (RFC 1123 subdomain).
const NAME_MAX: usize = 253;

/// What there is to show.
pub trait Source: Send + Sync + 'static {
    /// All metrics, in the Prometheus (`OpenMetrics`) text format.
    fn metrics(&self) -> String;
    /// Whether the loop turns.
    ///
    /// # Errors
    /// Since when and why it does not, for a person.
    fn live(&self) -> Result<(), String>;
    /// Whether it knows the cluster well enough to decide.
    ///
    /// # Errors
    /// What is missing, for a person.
    fn ready(&self) -> Result<(), String>;
    /// Why a pod waits or where it runs; none for a pod that it does not look after.
    fn explain(&self, namespace: &str, pod: &str) -> Option<Value>;
}

/// Answers requests until `stop` becomes true or its sender is gone.
///
/// # Errors
/// The operating system's, when the listener fails.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    tracing::info!(address = ?listener.local_addr().ok(), "metrics and health are served");
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    axum::serve(listener, router(source)).with_graceful_shutdown(stopped).await
}

fn router(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/explain/{namespace}/{pod}", get(explain))
        .with_state(source)
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> Response {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], source.metrics()).into_response()
}

async fn live(State(source): State<Arc<dyn Source>>) -> Response {
    health(source.live(), StatusCode::INTERNAL_SERVER_ERROR)
}

async fn ready(State(source): State<Arc<dyn Source>>) -> Response {
    health(source.ready(), StatusCode::SERVICE_UNAVAILABLE)
}

fn health(state: Result<(), String>, bad: StatusCode) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(missing) => (bad, format!("{missing}\n")).into_response(),
    }
}

async fn explain(State(source): State<Arc<dyn Source>>, Path((namespace, pod)): Path<(String, String)>) -> Response {
    let known = if namespace.len() > NAME_MAX || pod.len() > NAME_MAX { None } else { source.explain(&namespace, &pod) };
    if let Some(answer) = known {
        return Json(answer).into_response();
    }
    let error = "partita does not know this pod; is its schedulerName partita, and does it wait or run?";
    (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
}
