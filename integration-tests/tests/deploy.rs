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
    for unit in &units {
        let file = unit.file_name().and_then(|name| name.to_str()).expect("units have names");
        let text = fs::read_to_string(unit).expect("units are text");
        let name = file.split(['@', '.']).next().unwrap_or_default();
        let Ok(daemon) = program(name) else {
            assert_eq!(file, "myelin.target", "units are named after their daemons");
            verify(folder.path(), file, &text);
            continue;
        };
        // Where packages put it, nothing is.
        let text = text.replace(&format!("/usr/bin/{name}"), &daemon.display().to_string());
        assert!(text.contains("PartOf=myelin.target"), "{file}");
        verify(folder.path(), file, &text);
    }
    let roles = units.iter().filter(|unit| unit.to_string_lossy().contains('@')).count();
    assert_eq!(roles, 6, "a template for each kind of worker");
}

fn verify(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).expect("a new folder can be written to");
    // A template is verified as one of its instances.
    let unit = folder.join(file.replace("@.", "@worker1."));
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    let output = output.expect("systemd-analyze can be run: `make prepare` installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", unit.display());
}

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

fn control(arguments: &[&str]) -> String {
    let program = program("myelin-ctl").expect("it was built");
    let output = Command::new(program).args(arguments).output().expect("a program that was built can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

#[test]
fn the_example_has_no_faults() {
    let said = control(&[
        "config",
        "check",
        "--strict",
        "--workers",
        &format!("{DEPLOY}/example/workers"),
        &format!("{DEPLOY}/example/homeserver.yaml"),
    ]);
    assert!(said.contains("The 10 processes have no faults"), "{said}");
}

#[test]
fn the_examples_of_proxies_are_as_generated() {
    for (kind, file) in [
        ("nginx", "nginx/myelin.conf"),
        ("haproxy", "haproxy/haproxy.cfg"),
        ("kubernetes", "kubernetes/ingress.yaml"),
    ] {
        let (shared, workers) =
            (format!("{DEPLOY}/example/homeserver.yaml"), format!("{DEPLOY}/example/workers"));
        let arguments = [
            "proxy-config",
            kind,
            "--server-name",
            "matrix.example.org",
            "--config-path",
            &shared,
            "--workers",
            &workers,
        ];
        let path = format!("{DEPLOY}/{file}");
        let made = control(&arguments);
        assert!(
            fs::read_to_string(&path).is_ok_and(|there| there == made),
            "{file} is out of date: myelin-ctl {} > deploy/{file}",
            arguments.join(" ").replace(DEPLOY, "deploy")
        );
    }
}
