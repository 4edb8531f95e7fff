//! Requests and their answers, as raw as a test of bad input needs them.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{
    Client, Method,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde_json::Value;

/// How long a test waits for something that should happen at once, before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server's HTTP interface, without any user.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    bases: Arc<[String]>,
    /// How many requests were made so far; the next one goes to that base, modulo their number.
    requests: Arc<AtomicUsize>,
}

impl Api {
    /// The interface under a base URL such as `http://127.0.0.1:8008`.
    pub fn new(base: String) -> Self {
        Self::over(vec![base])
    }

    /// A server of several processes: each request goes to the next one. What one process answered must hold on all others.
    ///
    /// # Panics
    ///
    /// Without any process.
    pub fn over(bases: Vec<String>) -> Self {
        assert!(!bases.is_empty(), "a server has a process");
        Self { http: http_client(), bases: bases.into(), requests: Arc::default() }
    }

    /// The base URL, without a slash at its end; of several, that of the first.
    pub fn base(&self) -> &str {
        &self.bases[0]
    }

    fn next_base(&self) -> &str {
        &self.bases[self.requests.fetch_add(1, Ordering::Relaxed) % self.bases.len()]
    }

    /// Sends a request with any body, by a user or by nobody.
    ///
    /// # Errors
    ///
    /// If no whole answer came: the server is gone, or hung for longer than any request may take.
    pub async fn try_request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.next_base()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await?;

        Ok(Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }

    /// Sends a request without a user. `body` is what goes over the wire: it needn't be JSON.
    ///
    /// # Panics
    ///
    /// If no answer comes.
    pub async fn request(&self, method: Method, path: &str, body: Option<&str>) -> Answer {
        let sent = self.try_request(method.clone(), path, None, body.map(|body| body.as_bytes().to_vec()));

        sent.await.unwrap_or_else(|error| panic!("no answer to {method} {path}: {error}"))
    }

    /// Gets a path without a user.
    ///
    /// # Panics
    ///
    /// If no answer comes.
    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, None).await
    }
}

/// An answer; its body is null where it was not JSON.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The HTTP headers.
    pub headers: HeaderMap,
    /// The body, null where it was not JSON.
    pub body: Value,
}

impl Answer {
    /// The body of a 200.
    ///
    /// # Panics
    ///
    /// If it is another status.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "the server answered {}", self.body);
        self.body
    }

    /// Checks that this is a [standard error](https://spec.matrix.org/v1.19/client-server-api/#standard-error-response).
    ///
    /// # Panics
    ///
    /// If it is a success, or another error, or has no message for people.
    #[track_caller]
    pub fn is_error(&self, status: u16, errcode: &str) {
        let found = (self.status, self.body["errcode"].as_str());
        assert_eq!(found, (status, Some(errcode)), "the server answered {}", self.body);
        assert!(self.body["error"].is_string(), "an error has a message: {}", self.body);
    }
}

/// A client that keeps its connections and gives up on a request after twice the time that a test waits.
fn http_client() -> Client {
    static CLIENT: OnceLock<()> = OnceLock::new();

    // Nothing here speaks TLS, but a client isn't made without a provider.
    CLIENT.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
    Client::builder()
        .timeout(2 * PATIENCE)
        .no_proxy()
        .build()
        .expect("a client without certificates of its own can always be made")
}
