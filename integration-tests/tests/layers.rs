//! The layers of `ARCHITECTURE.md` hold: dependencies between our crates point down.

use std::collections::BTreeSet;

use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand, Package};

/// The crates from top to bottom, without their prefix. A crate may depend on all layers below its own.
const LAYERS: [(&str, &[&str]); 6] = [
    (
        "daemons",
        &[
            "main",
            "generic-worker",
            "pusher",
            "appservice-sender",
            "federation-sender",
            "media-repo",
            "user-dir",
            "ctl",
        ],
    ),
    ("composition", &["node"]),
    ("edge", &["client-api", "admin-api"]),
    ("domain", &["rooms", "sync", "accounts", "devices", "push", "ephemeral", "events"]),
    ("infra", &["storage", "replication", "leases", "routing", "http"]),
    ("ground", &["config", "telemetry", "types", "daemon"]),
];

/// What is allowed within a layer. An arrow that is added here is a design change: it wants a commit of its own, with its
/// reason.
const WITHIN_A_LAYER: [(&str, &[&str]); 7] = [
    // Sync shows what all others keep, and none of them knows of it.
    ("sync", &["rooms", "accounts", "devices", "push", "ephemeral", "events"]),
    // A room decides on push actions while it persists an event.
    ("rooms", &["events", "push"]),
    ("replication", &["storage", "leases"]),
    ("leases", &["storage"]),
    ("http", &["routing"]),
    ("daemon", &["config", "telemetry", "types"]),
    ("telemetry", &["config"]),
];

/// The ground that the ground stands on.
const EVERYWHERE: &str = "types";

/// Crates that only tests use and that stand outside of the layers, and what they depend on.
const OUTSIDE: [(&str, &[&str]); 2] =
    [("testing", &["storage"]), ("integration-tests", &["testing", "routing"])];

#[test]
fn dependencies_point_down_the_layers() {
    let metadata = metadata();
    let wrong: Vec<_> = metadata
        .workspace_packages()
        .into_iter()
        .flat_map(|package| package.dependencies.iter().map(move |dependency| (package, dependency)))
        .filter(|(package, dependency)| !allowed(package, dependency))
        .map(|(package, dependency)| format!("{} -> {} ({})", package.name, dependency.name, dependency.kind))
        .collect();

    assert!(wrong.is_empty(), "these arrows point up or sideways: {wrong:#?}");
}

#[test]
fn every_crate_has_its_place_in_one_layer() {
    let metadata = metadata();
    let ours: BTreeSet<_> =
        metadata.workspace_packages().into_iter().map(|package| short(&package.name)).collect();
    let placed: Vec<_> =
        LAYERS.iter().flat_map(|(_, crates)| *crates).copied().chain(OUTSIDE.map(|(name, _)| name)).collect();

    assert_eq!(placed.len(), placed.iter().collect::<BTreeSet<_>>().len(), "a crate is in two layers");
    assert_eq!(ours, placed.into_iter().collect(), "the crates of the workspace, and those in the layers");
}

#[test]
fn allowances_that_nobody_uses_are_taken_back() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let used = |from: &str, to: &str| {
        let package = packages.iter().find(|package| short(&package.name) == from);
        package.is_some_and(|package| {
            package.dependencies.iter().any(|dependency| short(&dependency.name) == to)
        })
    };
    let unused: Vec<_> = WITHIN_A_LAYER
        .iter()
        .flat_map(|(from, targets)| targets.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| !used(from, to))
        .collect();

    assert!(unused.is_empty(), "{unused:?}");
}

fn allowed(package: &Package, dependency: &Dependency) -> bool {
    let (from, to) = (short(&package.name), short(&dependency.name));
    if !dependency.name.starts_with("myelin-") {
        return true;
    }
    if let Some((_, targets)) = OUTSIDE.iter().find(|(name, _)| *name == from) {
        return targets.contains(&to);
    }
    if to == "testing" {
        return dependency.kind == DependencyKind::Development;
    }
    let Some((above, below)) = layer(from).zip(layer(to)) else { return false };
    let within = WITHIN_A_LAYER.iter().any(|(crate_, targets)| *crate_ == from && targets.contains(&to));

    above < below || (above == below && (within || to == EVERYWHERE))
}

/// The layer of a crate, counted from the top.
fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, crates)| crates.contains(&name))
}

fn short(name: &str) -> &str {
    name.trim_start_matches("myelin-")
}

fn metadata() -> Metadata {
    MetadataCommand::new().no_deps().exec().expect("cargo tells what the workspace consists of")
}
