//! The configuration of a homeserver to try.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use rand::{RngExt as _, distr::Alphanumeric};
use serde_json::{Value, json};

use super::{Folder, Topology, Up};
use crate::keys;

/// The longest path of a unix socket that Linux takes.
const MAX_SOCKET_PATH: usize = 107;

/// The workers: name, `worker_app`, and what they serve.
const WORKERS: [(&str, &str, &[&str]); 9] = [
    ("worker1", "synapse.app.generic_worker", &["client", "federation"]),
    ("worker2", "synapse.app.generic_worker", &["client", "federation"]),
    ("events1", "synapse.app.generic_worker", &["client"]),
    ("events2", "synapse.app.generic_worker", &["client"]),
    ("pusher1", "synapse.app.pusher", &[]),
    ("appservice1", "synapse.app.appservice", &[]),
    ("federation1", "synapse.app.federation_sender", &[]),
    ("media1", "synapse.app.media_repository", &["media"]),
    ("users1", "synapse.app.user_dir", &["client"]),
];

/// Writes the shared file, the workers' and a signing key.
pub(super) fn write(folder: &Folder, arguments: &Up, topology: Topology) -> anyhow::Result<()> {
    let run = folder.0.join("run");
    fs::create_dir_all(&run).with_context(|| format!("making the folder {}", run.display()))?;
    let longest = run.join("federation1-replication.sock");
    if topology == Topology::Cluster && longest.as_os_str().len() > MAX_SOCKET_PATH {
        bail!(
            "{} is too long for the path of a socket: choose a folder with a shorter name",
            longest.display()
        );
    }
    let key = folder.0.join(format!("{}.signing.key", arguments.server_name));
    if !key.exists() {
        keys::write_new_key(&key)?;
    }
    if topology == Topology::Cluster {
        let workers = folder.workers();
        fs::create_dir_all(&workers).with_context(|| format!("making the folder {}", workers.display()))?;
        for (name, app, resources) in WORKERS {
            let file = json!({
                "worker_app": app,
                "worker_name": name,
                "worker_listeners": sockets(&run, name, resources),
                "worker_pid_file": run.join(format!("{name}.pid")),
            });
            write_file(&workers.join(format!("{name}.yaml")), &file)?;
        }
    }
    let shared = shared_file(folder, arguments, topology, &key);
    write_file(&folder.shared_file(), &shared)
}

fn shared_file(folder: &Folder, arguments: &Up, topology: Topology, key: &Path) -> Value {
    let run = folder.0.join("run");
    let secret = || rand::rng().sample_iter(Alphanumeric).take(40).map(char::from).collect::<String>();
    let mut shared = json!({
        "server_name": arguments.server_name,
        "public_baseurl": format!("http://localhost:{}/", arguments.port),
        "pid_file": run.join("main.pid"),
        "signing_key_path": key,
        "registration_shared_secret": secret(),
        "trusted_key_servers": [],
        "listeners": [{
            "port": arguments.port,
            "type": "http",
            "bind_addresses": ["127.0.0.1"],
            "resources": [{ "names": ["client", "metrics"] }],
        }],
        "database": {
            "name": "psycopg2",
            "args": {
                "host": arguments.database_host,
                "user": arguments.database_user,
                "dbname": arguments.database_name,
            },
        },
    });
    if topology == Topology::Single {
        return shared;
    }
    let names = ["main"].into_iter().chain(WORKERS.map(|(name, ..)| name));
    let instances = names.map(|name| (name.to_owned(), json!({ "path": replication_socket(&run, name) })));
    shared["instance_map"] = Value::Object(instances.collect());
    shared["listeners"] = sockets(&run, "main", &["client", "federation", "media", "metrics"]);
    shared["redis"] = match &arguments.redis_socket {
        Some(path) => json!({ "enabled": true, "path": path }),
        None => json!({ "enabled": true }),
    };
    shared["stream_writers"] = json!({ "events": ["events1", "events2"] });
    shared["worker_replication_secret"] = secret().into();
    // Each of these has a daemon of its own.
    for left in [
        "enable_media_repo",
        "start_pushers",
        "send_federation",
        "notify_appservices",
        "update_user_directory",
    ] {
        shared[left] = false.into();
    }
    shared
}

/// A process's listeners.
fn sockets(run: &Path, name: &str, resources: &[&str]) -> Value {
    let mut listeners = vec![json!({
        "path": replication_socket(run, name),
        "type": "http",
        "mode": 0o600,
        "resources": [{ "names": ["replication", "metrics"] }],
    })];
    if !resources.is_empty() {
        listeners.push(json!({
            "path": run.join(format!("{name}.sock")),
            "type": "http",
            "x_forwarded": true,
            "resources": [{ "names": resources }],
        }));
    }
    listeners.into()
}

fn replication_socket(run: &Path, name: &str) -> std::path::PathBuf {
    run.join(format!("{name}-replication.sock"))
}

/// JSON is YAML, too.
fn write_file(path: &Path, content: &Value) -> anyhow::Result<()> {
    keys::write_secret(path, &format!("{content:#}\n"))
}
