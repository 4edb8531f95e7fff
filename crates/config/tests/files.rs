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
    let (config, warnings) = load_text("server_name: example.com\ndatabase: {name: psycopg2}\n").expect("no faults");
    assert_eq!(warnings, []);
    assert_eq!(config.server.server_name, "example.com");
    assert_eq!(config.rooms.default_room_version.as_str(), "12");
    assert_eq!(config.rate_limits.rc_message.burst_count, 10);
    assert!(config.process().is_main());
}
