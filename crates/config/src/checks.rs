//! Contradictions between options, each an error with a remedy.

use crate::{
    config::Config,
    document::{Map, Origin},
    fault::Findings,
    sections::{MAIN, ResourceName},
};

/// Where each option was written.
pub(crate) struct Places<'a> {
    root: &'a Map,
    fallback: &'a Origin,
}

impl<'a> Places<'a> {
    pub fn new(root: &'a Map, fallback: &'a Origin) -> Self {
        Self { root, fallback }
    }

    /// The place of the option at `path`, or of the nearest option above that was written.
    pub fn of(&self, path: &[&str]) -> &Origin {
        (1..=path.len())
            .rev()
            .find_map(|length| self.root.at(&path[..length]))
            .map_or(self.fallback, |node| &node.origin)
    }
}

/// Records a fault for each contradiction.
pub(crate) fn check(config: &Config, places: &Places<'_>, findings: &mut Findings) {
    check_database(config, places, findings);
    check_redis(config, places, findings);
    check_listeners(config, places, findings);
    check_workers(config, places, findings);
}

fn check_database(config: &Config, places: &Places<'_>, findings: &mut Findings) {
    if let Err(wrong) = config.database.args.hosts() {
        let origin = places.of(&["database", "args", "port"]);
        let remedy = "give one port, or as many as there are hosts, comma separated";
        findings.fault_at(origin, "database.args.port", wrong, remedy);
    }
    let args = &config.database.args;
    if args.sslcert.is_some() != args.sslkey.is_some() {
        let (has, lacks) = if args.sslcert.is_some() { ("sslcert", "sslkey") } else { ("sslkey", "sslcert") };
        let origin = places.of(&["database", "args", has]);
        let wrong = format!("is given without `{lacks}`");
        findings.fault_at(
            origin,
            format!("database.args.{has}"),
            wrong,
            format!("give `{lacks}` too, or neither"),
        );
    }
    if config.database.args.cp_max == 0 {
        let origin = places.of(&["database", "args", "cp_max"]);
        findings.fault_at(
            origin,
            "database.args.cp_max",
            "must be at least 1",
            "leave it out for the default",
        );
    }
}

fn check_redis(config: &Config, places: &Places<'_>, findings: &mut Findings) {
    if config.redis.path.is_some() && !config.redis.sentinels.is_empty() {
        findings.fault_at(
            places.of(&["redis", "sentinels"]),
            "redis.sentinels",
            "can't be given together with `path`: Sentinels tell where Redis is",
            "leave one of them out",
        );
    }
}

fn check_listeners(config: &Config, places: &Places<'_>, findings: &mut Findings) {
    let key = if config.process().is_main() { "listeners" } else { "worker_listeners" };
    for (index, listener) in config.http.listeners.iter().enumerate() {
        let (origin, path) = (places.of(&[key]), format!("{key}[{index}]"));
        if listener.port.is_some() == listener.path.is_some() {
            let remedy = "give `port` for TCP or `path` for a unix socket";
            findings.fault_at(origin, path.clone(), "must have either a port or a path", remedy);
        }
        let has_certificate =
            config.http.tls_certificate_path.is_some() && config.http.tls_private_key_path.is_some();
        if listener.tls && !has_certificate {
            let remedy = "give `tls_certificate_path` and `tls_private_key_path`, or set `tls: false`";
            findings.fault_at(origin, format!("{path}.tls"), "has no certificate to speak TLS with", remedy);
        }
        let replication = listener.serves(ResourceName::Replication);
        if replication && !listener.is_local() && config.workers.worker_replication_secret.is_none() {
            findings.fault_at(
                origin,
                path,
                "serves `replication` to other machines without a secret",
                "give `worker_replication_secret`, or listen on 127.0.0.1",
            );
        }
    }
}

fn check_workers(config: &Config, places: &Places<'_>, findings: &mut Findings) {
    let process = config.process();
    if !process.is_main() && config.workers.worker_name.is_none() {
        let origin = places.of(&["worker_app"]);
        findings.fault_at(
            origin,
            "worker_name",
            "is missing",
            "add `worker_name: …`, another for each worker",
        );
    }
    for (stream, writers) in config.workers.stream_writers.by_stream() {
        for writer in writers {
            if writer != MAIN && !config.workers.instance_map.contains_key(writer) {
                findings.fault_at(
                    places.of(&["stream_writers", stream]),
                    format!("stream_writers.{stream}"),
                    format!("names `{writer}`, which is not in `instance_map`"),
                    format!("add `{writer}: {{host: …, port: …}}` to `instance_map`"),
                );
            }
        }
    }
    if config.workers.stream_writers.any_worker() && !config.redis.enabled {
        findings.fault_at(
            places.of(&["stream_writers"]),
            "redis.enabled",
            "must be on when streams are written by workers",
            "write `redis: {enabled: true}` into the shared file",
        );
    }
}
