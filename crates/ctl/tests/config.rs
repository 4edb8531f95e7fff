//! The program as an operator runs it.

use std::process::{Command, Output};

fn ctl(arguments: &[&str], folder: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_myelin-ctl"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it speaks UTF-8")
}

#[test]
fn a_generated_configuration_is_complete_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let generate = ["config", "generate", "--server-name", "example.org", "--port", "8123"];
    let first = ctl(&generate, folder.path());
    assert!(first.status.success(), "{}", text(&first.stderr));
    let checked = ctl(&["config", "check", "--strict", "homeserver.yaml"], folder.path());
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    for file in ["homeserver.yaml", "example.org.signing.key"] {
        let mode = std::fs::metadata(folder.path().join(file)).expect(file).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }

    let before = std::fs::read(folder.path().join("homeserver.yaml")).expect("it was written");
    let second = ctl(&generate, folder.path());
    assert!(!second.status.success() && text(&second.stderr).contains("is there already"));
    assert_eq!(std::fs::read(folder.path().join("homeserver.yaml")).expect("it is still there"), before);
}

#[test]
fn what_is_wrong_is_told_with_file_key_and_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("bad.yaml"), "server_name: example.org\nworker_replication_port: 1\n")
        .expect("a file");
    let checked = ctl(&["config", "check", "bad.yaml"], folder.path());
    assert!(!checked.status.success());
    let said = text(&checked.stderr);
    for words in ["bad.yaml:2", "worker_replication_port", "remedy:", "database"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn signing_keys_are_in_synapses_format() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = ctl(&["generate-signing-key"], folder.path());
    let words: Vec<&str> = text(&made.stdout).split_whitespace().collect();
    assert_eq!((words[0], words.len(), words[2].len()), ("ed25519", 3, 43));
}
