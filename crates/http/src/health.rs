//! What operators and their machines ask: liveness, readiness, metrics.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map as JsonMap, Value as JsonValue, json};

use crate::{error::ApiError, request::RawRequest, response::RawResponse, router::Router, routes::Routes};

/// One of the things without which a process should not be sent requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// A name for operators: `database`, `streams`.
    pub name: &'static str,
    /// Whether it is met.
    pub met: bool,
}

/// Tells whether a process should be sent requests.
///
/// It is asked every few seconds by anybody who can reach the port, so it looks at what is known and asks nobody
/// else.
pub trait Readiness: Send + Sync + 'static {
    /// All conditions, met or not. Ready is who meets all.
    fn conditions(&self) -> Vec<Condition>;
}

impl<F> Readiness for F
where
    F: Fn() -> Vec<Condition> + Send + Sync + 'static,
{
    fn conditions(&self) -> Vec<Condition> {
        self()
    }
}

/// `/health/live`: the process answers. `/health/ready`: it should be sent requests; 503 and the conditions if not.
/// `/health`: as Synapse has it, 200 `OK` while the process is alive.
pub fn health_routes(readiness: impl Readiness) -> Router {
    let mut routes = Routes::new(Health(Arc::new(readiness)));
    routes.add_raw(Method::GET, "/health", live).quiet();
    routes.add_raw(Method::GET, "/health/live", live).quiet();
    routes.add_raw(Method::GET, "/health/ready", ready).quiet();
    routes.build()
}

#[derive(Clone)]
struct Health(Arc<dyn Readiness>);

async fn live(_: Health, _: RawRequest) -> Result<RawResponse, ApiError> {
    Ok(RawResponse::text("OK"))
}

async fn ready(Health(readiness): Health, request: RawRequest) -> Result<RawResponse, ApiError> {
    let mut conditions = readiness.conditions();
    conditions.push(Condition { name: "not_stopping", met: !request.head.draining().has_started() });
    let ready = conditions.iter().all(|condition| condition.met);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let by_name: JsonMap<String, JsonValue> =
        conditions.into_iter().map(|condition| (condition.name.to_owned(), condition.met.into())).collect();
    let body = json!({ "ready": ready, "conditions": by_name });
    Ok(RawResponse::json(body.to_string()).with_status(status))
}

/// `/_synapse/metrics` and `/metrics`, in Prometheus' text format. `render` gives the text.
pub fn metrics_routes(render: impl Fn() -> String + Send + Sync + 'static) -> Router {
    let mut routes = Routes::new(Metrics(Arc::new(render)));
    routes.add_raw(Method::GET, "/_synapse/metrics", metrics).quiet().also_at("/metrics");
    routes.build()
}

#[derive(Clone)]
struct Metrics(Arc<dyn Fn() -> String + Send + Sync>);

async fn metrics(Metrics(render): Metrics, _: RawRequest) -> Result<RawResponse, ApiError> {
    Ok(RawResponse::new("text/plain; version=0.0.4; charset=utf-8", render()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn ready_means_that_all_conditions_are_met() {
        let database = Arc::new(AtomicBool::new(false));
        let seen = database.clone();
        let router = health_routes(move || {
            vec![
                Condition { name: "streams", met: true },
                Condition { name: "database", met: seen.load(Ordering::Relaxed) },
            ]
        });
        let ask = async |path: &str| {
            let response = router.call(http::Request::get(path).body("").unwrap()).await;
            (response.status().as_u16(), String::from_utf8(response.bytes().unwrap().to_vec()).unwrap())
        };
        assert_eq!(ask("/health").await, (200, "OK".to_owned()));
        assert_eq!(ask("/health/live").await, (200, "OK".to_owned()));
        let (status, body) = ask("/health/ready").await;
        assert_eq!(status, 503);
        assert_eq!(
            serde_json::from_str::<JsonValue>(&body).unwrap(),
            json!({ "ready": false, "conditions": { "streams": true, "database": false, "not_stopping": true } })
        );
        database.store(true, Ordering::Relaxed);
        assert_eq!(ask("/health/ready").await.0, 200);
    }
}
