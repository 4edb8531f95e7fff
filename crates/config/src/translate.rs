//! Old spellings, rewritten to those of today with a warning that names the new one.

use crate::{
    document::{Map, Node, Value},
    fault::Findings,
};

/// Rewrites what `root` says in old words.
pub(crate) fn translate(root: &mut Map, findings: &mut Findings) {
    rename(root, findings, "streams_writers", "stream_writers");
    main_process(root, findings);
    refuse_tcp_replication(root, findings);
}

fn rename(root: &mut Map, findings: &mut Findings, old: &str, new: &str) {
    let Some(node) = root.remove(old) else { return };
    if root.get(new).is_some() {
        findings.fault_at(
            &node.origin,
            old,
            format!("is the old name of `{new}`, which is given too"),
            format!("keep `{new}` alone"),
        );
        return;
    }
    findings.warn_at(&node.origin, old, format!("is taken as `{new}`"), format!("write `{new}`"));
    root.set(new, node);
}

/// `worker_replication_host` and `worker_replication_http_port` are what `instance_map.main` is today.
fn main_process(root: &mut Map, findings: &mut Findings) {
    let host = root.remove("worker_replication_host");
    let port = root.remove("worker_replication_http_port");
    let Some(first) = host.as_ref().or(port.as_ref()) else { return };
    let origin = first.origin.clone();
    let old = if host.is_some() { "worker_replication_host" } else { "worker_replication_http_port" };
    let known = root.get("instance_map").and_then(Node::as_map).is_some_and(|map| map.get("main").is_some());
    if known {
        findings.warn_at(&origin, old, "has no effect beside `instance_map.main`", "remove it");
        return;
    }
    findings.warn_at(
        &origin,
        old,
        "is taken as `instance_map.main`",
        "write `instance_map: {main: {host: …, port: …}}` into the shared file",
    );
    let mut main = Map::default();
    for (key, node) in [("host", host), ("port", port)] {
        if let Some(node) = node {
            main.set(key, node);
        }
    }
    let main = Node { value: Value::Map(main), origin: origin.clone() };
    if let Some(Node { value: Value::Map(map), .. }) = root.get_mut("instance_map") {
        map.set("main", main);
        return;
    }
    let mut map = Map::default();
    map.set("main", main);
    root.set("instance_map", Node { value: Value::Map(map), origin });
}

/// Replication by plain TCP, which Synapse had until Redis took its place.
fn refuse_tcp_replication(root: &mut Map, findings: &mut Findings) {
    if let Some(node) = root.remove("worker_replication_port") {
        findings.fault_at(
            &node.origin,
            "worker_replication_port",
            "replication by plain TCP does not exist any more",
            "remove it, and write `redis: {enabled: true}` into the shared file",
        );
    }
}
