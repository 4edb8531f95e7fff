//! A PostgreSQL of a test's own, which may be crashed, restarted and followed by a replica.

use std::{
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;

use crate::{
    TestServer,
    server::{build_folder, run_script},
};

/// As in production, where a crash loses nothing.
const FLAGS: &[&str] = &["--durable", "--stop-when-unused"];

/// A PostgreSQL server on a unix socket. It is gone when this is dropped.
#[derive(Debug)]
pub struct TestPostgres {
    folder: PathBuf,
    server: TestServer,
}

impl TestPostgres {
    /// Makes and starts a server.
    ///
    /// # Panics
    ///
    /// With a sentence that says what is missing, if there is no PostgreSQL to be had.
    pub async fn start() -> Self {
        Self::start_in(new_folder()).await
    }

    /// Makes and starts a server that follows this one.
    ///
    /// # Panics
    ///
    /// If this one can't be copied.
    pub async fn replica(&self) -> Self {
        let folder = new_folder();
        script("replica", folder.clone(), vec![self.folder.display().to_string()]).await;
        Self::start_in(folder).await
    }

    async fn start_in(folder: PathBuf) -> Self {
        let server = TestServer::start_in(folder.clone(), FLAGS).await;
        let server = server.unwrap_or_else(|error| panic!("no PostgreSQL for this test: {error:#}"));
        Self { folder, server }
    }

    /// How to reach it.
    pub fn server(&self) -> &TestServer {
        &self.server
    }

    /// Its first process, which makes the others.
    ///
    /// # Panics
    ///
    /// If it doesn't run.
    pub fn process_id(&self) -> i32 {
        let said = run_script("process", &self.folder, &[]);
        let said = said.unwrap_or_else(|error| panic!("dev/postgres process: {error:#}"));
        said.parse().unwrap_or_else(|_| panic!("dev/postgres process: {said}"))
    }

    /// Ends it without finishing anything, and without a word to those who are connected.
    ///
    /// # Panics
    ///
    /// If it doesn't run.
    pub async fn crash(&self) {
        script("crash", self.folder.clone(), Vec::new()).await;
    }

    /// Ends it as an operator would. Who is connected is told.
    ///
    /// # Panics
    ///
    /// If it doesn't end.
    pub async fn stop(&self) {
        script("stop", self.folder.clone(), Vec::new()).await;
    }

    /// Starts it after it was ended.
    ///
    /// # Panics
    ///
    /// If it doesn't start.
    pub async fn start_again(&self) {
        script("start", self.folder.clone(), FLAGS.iter().map(|&flag| flag.to_owned()).collect()).await;
    }

    /// Makes of a replica a server that takes writes.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub async fn promote(&self) {
        script("promote", self.folder.clone(), Vec::new()).await;
    }
}

impl Drop for TestPostgres {
    /// Best effort: what is left ends by itself, and `make clean` removes it.
    fn drop(&mut self) {
        drop(run_script("remove", &self.folder, &[]));
    }
}

fn new_folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);

    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let build = build_folder().unwrap_or_else(|error| panic!("no PostgreSQL for this test: {error:#}"));
    build.join("own-postgres").join(format!("{}-{number}", process::id()))
}

async fn script(command: &'static str, folder: PathBuf, arguments: Vec<String>) {
    let ran = tokio::task::spawn_blocking(move || {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run_script(command, &folder, &arguments)
    });
    let ran = ran.await.context("running dev/postgres").and_then(|ran| ran);
    ran.unwrap_or_else(|error| panic!("dev/postgres {command}: {error:#}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replica_has_what_was_committed_and_takes_over() {
        let first = TestPostgres::start().await;
        let second = first.replica().await;
        let client = first.server().connect("postgres").await.unwrap();
        client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        client.batch_execute("CREATE TABLE things AS SELECT 7 AS number").await.unwrap();
        first.crash().await;
        second.promote().await;
        let client = second.server().connect("postgres").await.unwrap();
        let number: i32 = client.query_one("SELECT number FROM things", &[]).await.unwrap().get(0);
        assert_eq!(number, 7);
        client.batch_execute("DROP TABLE things").await.unwrap();
        drop(first);
        drop(second);
    }
}
