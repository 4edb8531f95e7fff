//! What operators and their tools ask: `/health`, `/health/live`, `/health/ready`, and the metrics.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use myelin_daemon::Readiness;
use myelin_http::{ApiError, Caller, RawRequest, RawResponse, RequestHead, Router, Routes};
use myelin_storage::{Database, query_one};
use serde_json::json;

/// How long the database may take to answer before the process counts as not ready.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

/// The endpoints for operators. Clones share the state.
#[derive(Clone)]
pub(crate) struct SystemApi(Arc<State>);

struct State {
    readiness: Readiness,
    database: Database,
    render_metrics: Box<dyn Fn() -> String + Send + Sync>,
}

struct Operator;

impl Caller<SystemApi> for Operator {
    async fn authenticate(_: &SystemApi, _: &RequestHead, _: Option<&str>) -> Result<Self, ApiError> {
        // As with Synapse, what is told here is no secret, and proxies don't pass these paths on.
        Ok(Self)
    }
}

impl SystemApi {
    pub(crate) fn new(
        readiness: Readiness,
        database: Database,
        render_metrics: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(State { readiness, database, render_metrics: Box::new(render_metrics) }))
    }

    pub(crate) fn health(&self) -> Router {
        let mut routes = Routes::new(self.clone());
        routes.add_raw(Method::GET, "/health", live);
        routes.add_raw(Method::GET, "/health/live", live);
        routes.add_raw(Method::GET, "/health/ready", ready);
        routes.build()
    }

    pub(crate) fn metrics(&self) -> Router {
        let mut routes = Routes::new(self.clone());
        routes.add_raw(Method::GET, "/_synapse/metrics", metrics);
        routes.add_raw(Method::GET, "/metrics", metrics);
        routes.build()
    }

    /// What keeps the process from doing its work right now.
    async fn unmet(&self) -> Vec<&'static str> {
        let mut unmet = self.0.readiness.unmet();
        let ask = async {
            let client = self.0.database.get().await?;
            query_one(&client, "SELECT 1", &[]).await
        };
        if !matches!(tokio::time::timeout(DATABASE_PATIENCE, ask).await, Ok(Ok(_))) {
            unmet.push("the database answers");
        }
        unmet
    }
}

async fn live(_: SystemApi, _: Operator, _: RawRequest) -> Result<RawResponse, ApiError> {
    Ok(RawResponse::text("OK"))
}

async fn ready(api: SystemApi, _: Operator, request: RawRequest) -> Result<RawResponse, ApiError> {
    let mut unmet = api.unmet().await;
    if request.head.draining().has_started() {
        unmet.push("not stopping");
    }
    let status = if unmet.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": unmet.is_empty(), "unmet": unmet }).to_string();
    Ok(RawResponse::json(body).with_status(status))
}

async fn metrics(api: SystemApi, _: Operator, _: RawRequest) -> Result<RawResponse, ApiError> {
    Ok(RawResponse::text((api.0.render_metrics)()))
}
