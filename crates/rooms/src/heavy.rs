//! Work that would hold a thread for long.

use std::sync::Arc;

use myelin_storage::StorageError;
use tokio::sync::Semaphore;

use crate::RoomError;

/// Pieces of work that are done at the same time; more of them wait.
const AT_ONCE: usize = 2;

/// Does heavy work on threads of its own, little of it at a time, so that one room can't starve the others.
#[derive(Clone, Debug)]
pub(crate) struct Heavy(Arc<Semaphore>);

impl Heavy {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Waits for the work to be done.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RoomError> {
        let permit = self.0.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let work = move || {
            // Held to the end of the work, also if nobody waits for that any more.
            let _permit = permit;
            work()
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| StorageError::Inconsistent(format!("work on events failed: {error}")).into())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        thread::{self, ThreadId},
    };

    use super::*;

    #[tokio::test]
    async fn heavy_work_is_done_on_other_threads_a_little_at_a_time() {
        let heavy = Heavy::new();
        let (started, starts) = mpsc::channel();
        let work = |number: usize| {
            let started = started.clone();
            let (go_on, told) = mpsc::channel::<()>();
            let heavy = heavy.clone();
            let task = tokio::spawn(async move {
                let work = move || -> ThreadId {
                    started.send(number).expect("the test listens");
                    told.recv().expect("the test tells");
                    thread::current().id()
                };
                heavy.run(work).await
            });
            (go_on, task)
        };
        let tasks: Vec<_> = (0..3).map(work).collect();
        // This thread does not run the work, or it would wait for itself.
        let wait = |starts: mpsc::Receiver<usize>| {
            tokio::task::spawn_blocking(move || (starts.recv().expect("somebody starts"), starts))
        };
        let (first, starts) = wait(starts).await.unwrap();
        let (second, starts) = wait(starts).await.unwrap();
        assert_eq!((first + second, starts.try_recv()), (1, Err(mpsc::TryRecvError::Empty)));
        for (go_on, _) in &tasks {
            go_on.send(()).unwrap();
        }
        for (_, task) in tasks {
            assert_ne!(task.await.unwrap().unwrap(), thread::current().id());
        }
        assert_eq!(starts.try_recv(), Ok(2), "the third came when one was done");
    }
}
