//! What can be wrong between the files of several processes.

use std::{collections::BTreeMap, fmt};

use myelin_config::{Address, Listener, MAIN, ResourceName};

use super::{Fleet, Member};

/// Something that is wrong, or likely to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file to change.
    pub file: String,
    /// The key in it.
    pub key: String,
    pub message: String,
    pub remedy: String,
    /// Not an error: it works, though perhaps not as was meant.
    pub is_warning: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_warning { "warning: " } else { "" };
        write!(f, "{kind}{}: {}: {}\n  remedy: {}", self.file, self.key, self.message, self.remedy)
    }
}

/// Everything that is wrong between the processes.
pub(crate) fn check(fleet: &Fleet) -> Vec<Finding> {
    let mut findings = Findings::default();
    names(fleet, &mut findings);
    listeners(fleet, &mut findings);
    shared(fleet, &mut findings);
    duties(fleet, &mut findings);
    instances(fleet, &mut findings);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn fault(&mut self, member: &Member, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(member, key, message.into(), remedy.into(), false);
    }

    fn warn(&mut self, member: &Member, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(member, key, message.into(), remedy.into(), true);
    }

    fn add(&mut self, member: &Member, key: &str, message: String, remedy: String, is_warning: bool) {
        let finding = Finding {
            file: member.file.display().to_string(),
            key: key.to_owned(),
            message,
            remedy,
            is_warning,
        };
        // The shared file is read with every worker's.
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }
}

/// Two of a kind where there may be one: names, pid files.
fn names(fleet: &Fleet, findings: &mut Findings) {
    let mut names: BTreeMap<&str, &Member> = BTreeMap::new();
    let mut pid_files: BTreeMap<_, &Member> = BTreeMap::new();
    for member in &fleet.members {
        if let Some(first) = names.insert(&member.process.name, member) {
            let message = format!("`{}` is also the name of {}", member.process.name, first.file.display());
            findings.fault(member, "worker_name", message, "give each process a name of its own");
        }
        let Some(pid_file) = member.pid_file() else { continue };
        if let Some(first) = pid_files.insert(pid_file.to_owned(), member) {
            let key = if member.process.is_main() { "pid_file" } else { "worker_pid_file" };
            let message = format!("{} is also that of `{}`", pid_file.display(), first.process.name);
            findings.fault(member, key, message, "give each process a file of its own");
        }
    }
}

fn listeners(fleet: &Fleet, findings: &mut Findings) {
    let mut taken: BTreeMap<String, &Member> = BTreeMap::new();
    for member in &fleet.members {
        let key = if member.process.is_main() { "listeners" } else { "worker_listeners" };
        for listener in &member.config.http.listeners {
            let mut places: Vec<String> =
                listener.path.iter().map(|path| path.display().to_string()).collect();
            if let Some(port) = listener.port {
                let unspecified = listener.bind_addresses.iter().any(std::net::IpAddr::is_unspecified);
                let addresses = listener.bind_addresses.iter().filter(|_| !unspecified);
                places.extend(addresses.map(|address| format!("{address} port {port}")));
                places.extend(unspecified.then(|| format!("port {port}")));
            }
            for place in places {
                if let Some(first) = taken.insert(place.clone(), member) {
                    let message = format!("{place} is taken by `{}`", first.process.name);
                    findings.fault(member, key, message, "give each listener a place of its own");
                }
            }
        }
    }
}

/// Options that all processes must agree in.
fn shared(fleet: &Fleet, findings: &mut Findings) {
    let Some((first, others)) = fleet.members.split_first() else { return };
    for member in others {
        let mut agree = |key: &str, is_same: bool| {
            if !is_same {
                let message = format!("is another one than that of `{}`", first.process.name);
                findings.fault(member, key, message, "leave it to the shared file");
            }
        };
        let (one, other) = (&first.config, &member.config);
        agree("server_name", one.server.server_name == other.server.server_name);
        agree(
            "database",
            format!("{:?}", one.database.to_postgres()) == format!("{:?}", other.database.to_postgres()),
        );
        agree(
            "redis",
            one.redis.host == other.redis.host
                && one.redis.port == other.redis.port
                && one.redis.path == other.redis.path,
        );
        let secret = |member: &Member| {
            member.config.workers.worker_replication_secret.as_ref().map(|secret| secret.expose().to_owned())
        };
        agree("worker_replication_secret", secret(first) == secret(member));
        agree("stream_writers", writers(first) == writers(member));
    }
}

fn writers(member: &Member) -> Vec<(&'static str, Vec<String>)> {
    member.config.workers.stream_writers.by_stream().map(|(stream, names)| (stream, names.to_vec())).collect()
}

/// Names of processes that there are not.
fn duties(fleet: &Fleet, findings: &mut Findings) {
    let Some(first) = fleet.members.first() else { return };
    let is_known = |name: &String| fleet.members.iter().any(|member| member.process.name == *name);
    let workers = &first.config.workers;
    let lists = [
        ("pusher_instances", workers.pusher_instances.to_vec()),
        ("federation_sender_instances", workers.federation_sender_instances.to_vec()),
        ("outbound_federation_restricted_to", workers.outbound_federation_restricted_to.to_vec()),
        ("notify_appservices_from_worker", workers.notify_appservices_from_worker.to_vec()),
        ("update_user_directory_from_worker", workers.update_user_directory_from_worker.to_vec()),
        ("run_background_tasks_on", workers.run_background_tasks_on.to_vec()),
        ("instance_map", workers.instance_map.keys().cloned().collect()),
    ];
    let streams =
        writers(first).into_iter().map(|(stream, names)| (format!("stream_writers.{stream}"), names));
    let lists = lists.into_iter().map(|(key, names)| (key.to_owned(), names)).chain(streams);
    for (key, names) in lists {
        for name in names.iter().filter(|name| *name != MAIN && !is_known(name)) {
            let message = format!("names `{name}`, and there is no such process");
            findings.warn(first, &key, message, "add the worker's file, or take the name away");
        }
    }
}

/// Where the processes say that they are reached, and where they are.
fn instances(fleet: &Fleet, findings: &mut Findings) {
    for member in &fleet.members {
        let name = &member.process.name;
        let writes: Vec<&str> = writers(member)
            .into_iter()
            .filter(|(_, names)| names.contains(name))
            .map(|(stream, _)| stream)
            .collect();
        let listener = member.address(&[ResourceName::Replication]);
        let key = if member.process.is_main() { "listeners" } else { "worker_listeners" };
        let is_alone = fleet.members.len() == 1;
        if listener.is_none() && !writes.is_empty() && !is_alone {
            let message =
                format!("has no `replication` listener, and the process writes {}", writes.join(", "));
            findings.fault(member, key, message, "add one with `resources: [{names: [replication]}]`");
        }
        let said = member.config.workers.instance_map.get(name);
        // The host may have many names.
        let is_same = |address: &Address| match (address, said) {
            (_, None) => true,
            (Address::Unix(path), Some(said)) => said.path.as_ref() == Some(path),
            (Address::Tcp { port, tls, .. }, Some(said)) => said.port == Some(*port) && said.tls == *tls,
        };
        let serves =
            member.config.http.listeners.iter().filter(|listener| listener.serves(ResourceName::Replication));
        let mut addresses = serves.filter_map(Listener::address).peekable();
        if addresses.peek().is_some() && !addresses.any(|address| is_same(&address)) {
            let message =
                format!("`instance_map.{name}` is the place of none of its `replication` listeners");
            findings.fault(member, key, message, "make the two the same");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SHARED: &str = "
server_name: example.org
report_stats: false
pid_file: /run/main.pid
redis: {enabled: true}
database: {name: psycopg2, args: {host: localhost, user: myelin, dbname: myelin}}
instance_map: {main: {host: localhost, port: 9001}, w1: {host: localhost, port: 9002}}
stream_writers: {events: [w1]}
listeners:
  - {port: 8001, type: http, bind_addresses: [127.0.0.1], resources: [{names: [client]}]}
  - {port: 9001, type: http, bind_addresses: [127.0.0.1], resources: [{names: [replication]}]}
";
    const WORKER: &str = "
worker_app: synapse.app.generic_worker
worker_name: w1
worker_pid_file: /run/w1.pid
worker_listeners:
  - {port: 8002, type: http, bind_addresses: [127.0.0.1], resources: [{names: [client]}]}
  - {port: 9002, type: http, bind_addresses: [127.0.0.1], resources: [{names: [replication]}]}
";

    /// The keys that are found wrong when the shared file and two workers' are these.
    fn found(shared: &str, workers: &[&str]) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("homeserver.yaml");
        fs::write(&path, shared).unwrap();
        fs::create_dir(folder.path().join("workers")).unwrap();
        for (index, worker) in workers.iter().enumerate() {
            fs::write(folder.path().join(format!("workers/{index}.yaml")), worker).unwrap();
        }
        let fleet = Fleet::load(&[path], Some(&folder.path().join("workers"))).unwrap();
        let findings = check(&fleet);
        assert!(findings.iter().all(|finding| !finding.remedy.is_empty()));
        findings.into_iter().map(|finding| (finding.key, finding.message)).collect()
    }

    #[test]
    fn contradictions_between_files_are_found() {
        let check = |shared: &str, workers: &[&str], wanted: &[(&str, &str)]| {
            let found = found(shared, workers);
            let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(keys, wanted.iter().map(|(key, _)| *key).collect::<Vec<_>>(), "{found:#?}");
            for ((_, message), (_, words)) in found.iter().zip(wanted) {
                assert!(message.contains(words), "{message:?} says nothing of {words:?}");
            }
        };
        let second = |changes: &[(&str, &str)]| {
            let mut text = WORKER.replace("w1", "w2").replace("8002", "8003").replace("9002", "9003");
            for (from, to) in changes {
                text = text.replace(from, to);
            }
            text
        };
        check(SHARED, &[WORKER], &[]);
        check(SHARED, &[WORKER, &second(&[])], &[]);
        check(
            SHARED,
            &[WORKER, &second(&[("worker_name: w2", "worker_name: w1"), ("9003", "9002")])],
            &[
                ("worker_name", "`w1` is also the name of"),
                ("worker_listeners", "127.0.0.1 port 9002 is taken by `w1`"),
            ],
        );
        check(
            SHARED,
            &[WORKER, &second(&[("w2.pid", "w1.pid")])],
            &[("worker_pid_file", "also that of `w1`")],
        );
        check(SHARED, &[WORKER, &second(&[("8003", "8001")])], &[("worker_listeners", "is taken by `main`")]);
        check(SHARED, &[], &[("instance_map", "`w1`"), ("stream_writers.events", "`w1`")]);
        check(
            SHARED,
            &[&WORKER.replace("names: [replication]", "names: [media]")],
            &[("worker_listeners", "the process writes events")],
        );
        check(SHARED, &[&WORKER.replace("9002", "9005")], &[("worker_listeners", "`instance_map.w1`")]);
        let other = format!("{WORKER}server_name: example.com\nworker_replication_secret: x\n");
        check(SHARED, &[&other], &[("server_name", "`main`"), ("worker_replication_secret", "`main`")]);
        let pushers = format!("{SHARED}pusher_instances: [p1]\n");
        check(&pushers, &[WORKER], &[("pusher_instances", "`p1`")]);
    }
}
