//! How many requests may be under way at once.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// The requests under way in this process. Those that work and those that wait (long polls) are counted apart: ten
/// thousand sleeping clients must not keep one message out.
pub(crate) struct InFlight {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    max_working: u32,
    max_waiting: u32,
}

/// A place among the requests under way. It is free again when this is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    kind: &'static str,
}

impl InFlight {
    pub(crate) fn new(max_working: usize, max_waiting: usize) -> Self {
        // What can be taken back at once is counted in 32 bits.
        let bounded = |max: usize| u32::try_from(max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let semaphore = |max: u32| Arc::new(Semaphore::new(max as usize));
        let (max_working, max_waiting) = (bounded(max_working), bounded(max_waiting));
        let (working, waiting) = (semaphore(max_working), semaphore(max_waiting));
        Self { working, waiting, max_working, max_waiting }
    }

    /// Waits until nothing is under way.
    pub(crate) async fn idle(&self) {
        // An error would mean that the semaphore was closed, which nobody does.
        let _ = self.working.acquire_many(self.max_working).await;
        let _ = self.waiting.acquire_many(self.max_waiting).await;
    }

    /// Takes a place, or says that there are too many already. Never waits: a client that is told so at once can go
    /// to another process.
    pub(crate) fn enter(&self, long_poll: bool) -> Result<Place, ApiError> {
        let (semaphore, kind) =
            if long_poll { (&self.waiting, "waiting") } else { (&self.working, "working") };
        match semaphore.clone().try_acquire_owned() {
            Ok(permit) => {
                metrics::gauge!("myelin_http_requests_in_flight", "kind" => kind).increment(1);
                Ok(Place { _permit: permit, kind })
            }
            Err(_) => {
                metrics::counter!("myelin_http_requests_refused_total", "kind" => kind).increment(1);
                let pause = Duration::from_secs(2);
                let error = ApiError::unavailable("The server is overloaded", pause);
                // Not every client reads the header.
                Err(error.with_field("retry_after_ms", u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("myelin_http_requests_in_flight", "kind" => self.kind).decrement(1);
    }
}
