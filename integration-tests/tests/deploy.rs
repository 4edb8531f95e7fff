//! What packagers take from `deploy/`.

use std::{fs, path::Path, process::Command};

use myelin_integration_tests::program;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd");

#[test]
fn systemd_understands_every_unit() {
    let folder = tempfile::tempdir().expect("the system's temporary folder can be written to");
    let units: Vec<_> =
        fs::read_dir(UNITS).expect("deploy/systemd is there").map(|unit| unit.unwrap().path()).collect();
    assert!(!units.is_empty());
    for unit in units {
        let name = unit.file_stem().and_then(|name| name.to_str()).expect("units have names");
        let daemon = program(name).expect("units are named after their daemons");
        // Where packages put it, nothing is.
        let text = fs::read_to_string(&unit).expect("units are text");
        let text = text.replace(&format!("/usr/bin/{name}"), &daemon.display().to_string());
        verify(&folder.path().join(unit.file_name().expect("units have names")), &text);
    }
}

fn verify(unit: &Path, text: &str) {
    fs::write(unit, text).expect("a new folder can be written to");
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).output();
    let output = output.expect("systemd-analyze can be run: `make prepare` installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", unit.display());
}
