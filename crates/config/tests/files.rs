//! Good and bad files, read as a daemon reads them.

use std::path::PathBuf;

use myelin_config::{Config, Faults, Warning, load_with};

fn load_text(text: &str) -> Result<(Config, Vec<Warning>), Faults> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("homeserver.yaml");
    std::fs::write(&file, text).expect("a file in it");
    load_with(&[PathBuf::from(&file)], [])
}

#[test]
fn the_smallest_file_is_enough() {
    let (config, warnings) =
        load_text("server_name: example.com\ndatabase: {name: psycopg2}\n").expect("no faults");
    assert_eq!(warnings, []);
    assert_eq!(config.server.server_name, "example.com");
    assert_eq!(config.rooms.default_room_version.as_str(), "12");
    assert_eq!(config.rate_limits.rc_message.burst_count, 10);
    assert!(config.process().is_main());
}

/// What is expected of a bad file: of each fault the key path, and words of message and remedy.
type Expected = &'static [(&'static str, &'static str, &'static str)];

const SMALLEST: &str = "server_name: example.com\ndatabase: {name: psycopg2}\n";

#[test]
fn bad_files_are_refused_with_every_fault_its_place_and_a_remedy() {
    let cases: &[(&str, Expected)] = &[
        (
            "worker_replication_port: 9092",
            &[("worker_replication_port", "plain TCP", "redis: {enabled: true}")],
        ),
        (
            "listeners: [{type: http}]",
            &[("listeners[0]", "either a port or a path", "`path` for a unix socket")],
        ),
        (
            "listeners: [{port: 8448, tls: true}]",
            &[("listeners[0].tls", "no certificate", "tls_certificate_path")],
        ),
        (
            "listeners: [{port: 9093, bind_addresses: [0.0.0.0], resources: [{names: [replication]}]}]",
            &[("listeners[0]", "without a secret", "worker_replication_secret")],
        ),
        (
            "redis: {enabled: true}\nstream_writers: {events: persister}",
            &[("stream_writers.events", "`persister`", "instance_map")],
        ),
        (
            "instance_map: {persister: {host: localhost, port: 1}}\nstream_writers: {events: persister}",
            &[("redis.enabled", "must be on", "enabled: true")],
        ),
        ("worker_app: synapse.app.pusher", &[("worker_name", "is missing", "worker_name: …")]),
        (
            "stream_writers: {}\nstreams_writers: {}",
            &[("streams_writers", "is given too", "`stream_writers` alone")],
        ),
        (
            "default_room_version: 99\nmax_upload_size: 50Q\nrc_message: {per_second: fast}",
            &[
                ("default_room_version", "not `99`", "`\"12\"`"),
                ("max_upload_size", "not `50Q`", "50M"),
                ("rc_message.per_second", "not `fast`", "number"),
            ],
        ),
        (
            "redis: {enabled: true, path: /run/redis.sock, sentinels: [{host: a}]}",
            &[("redis.sentinels", "together with `path`", "leave one of them out")],
        ),
        (
            "database: {name: psycopg2, args: {sslcert: a.crt, cp_max: 0}}",
            &[
                ("database.args.sslcert", "without `sslkey`", "sslkey"),
                ("database.args.cp_max", "at least 1", "default"),
            ],
        ),
        (
            "worker_replication_port: 1\nlisteners: [{type: http}]",
            &[
                ("worker_replication_port", "plain TCP", "redis"),
                ("listeners[0]", "either a port or a path", "port"),
            ],
        ),
    ];
    for (text, expected) in cases {
        let rest = if text.contains("database:") { "server_name: example.com\n" } else { SMALLEST };
        let faults = load_text(&format!("{rest}{text}\n")).expect_err(text).faults;
        assert_eq!(faults.len(), expected.len(), "{text}: {faults:?}");
        for (path, message, remedy) in *expected {
            let Some(fault) = faults.iter().find(|fault| fault.path == *path) else {
                panic!("{text}: no fault at {path}: {faults:?}");
            };
            assert!(fault.file.ends_with("homeserver.yaml") && fault.line.is_some(), "{text}: {fault:?}");
            assert!(fault.message.contains(message), "{text}: {fault:?}");
            assert!(fault.remedy.contains(remedy), "{text}: {fault:?}");
        }
    }
}

#[test]
fn old_spellings_are_translated_with_a_warning() {
    let text = "
redis: {enabled: true}
instance_map: {persister: {host: localhost, port: 8034}}
streams_writers: {events: persister}
worker_replication_host: 127.0.0.1
worker_replication_http_port: 9093
redits: {}
saml2_config: {}
";
    let (config, warnings) = load_text(&format!("{SMALLEST}{text}")).expect("no faults");
    assert_eq!(&*config.workers.stream_writers.events, ["persister"]);
    assert_eq!(config.workers.instance_map["main"].port, Some(9093));
    let warned = |path: &str, words: &str| {
        let found =
            warnings.iter().any(|warning| warning.path == path && warning.to_string().contains(words));
        assert!(found, "{path}: {warnings:?}");
    };
    warned("streams_writers", "write `stream_writers`");
    warned("worker_replication_host", "instance_map");
    warned("redits", "did you mean `redis`?");
    warned("saml2_config", "nobody can log in through SAML");
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[test]
fn the_committed_reference_is_what_the_doc_comments_say() {
    let committed = include_str!("../../../configs/homeserver.reference.yaml");
    assert!(
        committed == myelin_config::reference(),
        "stale: cargo run -p myelin-ctl -- config reference > configs/homeserver.reference.yaml"
    );
}
