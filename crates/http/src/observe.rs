//! What operators see of each request: a measurement and a line in the log.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use http::Method;
use metrics::Histogram;

/// The histograms of one endpoint. Looked up once for each status rather than once for each request.
pub(crate) struct Endpoint {
    name: Arc<str>,
    /// An endpoint answers with a handful of statuses.
    by_status: RwLock<Vec<(u16, Histogram)>>,
    /// Probes come every few seconds and say nothing.
    quiet: bool,
}

impl Endpoint {
    pub(crate) fn new(name: Arc<str>, quiet: bool) -> Self {
        Self { name, by_status: RwLock::default(), quiet }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn record(&self, status: u16, seconds: f64) {
        {
            let known = self.by_status.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, histogram)) = known.iter().find(|(known, _)| *known == status) {
                return histogram.record(seconds);
            }
        }
        let name = self.name.to_string();
        let histogram = metrics::histogram!("myelin_http_request_seconds", "endpoint" => name, "status" => status.to_string());
        histogram.record(seconds);
        self.by_status.write().unwrap_or_else(PoisonError::into_inner).push((status, histogram));
    }
}

/// A request under observation. If it is dropped unfinished, the client has gone away.
pub(crate) struct Observation {
    endpoint: Arc<Endpoint>,
    method: Method,
    remote_addr: Option<IpAddr>,
    arrived: Instant,
    finished: bool,
}

/// As nginx has it: the client closed the request.
const CLIENT_CLOSED: u16 = 499;

impl Observation {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        method: Method,
        remote_addr: Option<IpAddr>,
        arrived: Instant,
    ) -> Self {
        Self { endpoint, method, remote_addr, arrived, finished: false }
    }

    pub(crate) fn finish(mut self, status: http::StatusCode) {
        self.report(status.as_u16());
    }

    fn report(&mut self, status: u16) {
        self.finished = true;
        let duration = self.arrived.elapsed();
        self.endpoint.record(status, duration.as_secs_f64());
        if self.endpoint.quiet {
            return;
        }
        // Neither path nor query: both may hold what is nobody's business, the query even an access token.
        tracing::info!(
            target: "myelin_http::access",
            method = %self.method,
            endpoint = &*self.endpoint.name,
            status,
            duration_ms = duration.as_secs_f64() * 1000.0,
            remote = self.remote_addr.map(tracing::field::display),
            "request"
        );
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if !self.finished {
            self.report(CLIENT_CLOSED);
        }
    }
}
