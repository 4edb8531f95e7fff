//! Options from environment variables.

use std::sync::Arc;

use super::ENVIRONMENT_PREFIX;
use crate::{
    document::{self, Map, Node, Origin, Value},
    fault::Findings,
};

/// Sets in `root` what variables with our prefix say. Two underscores go one level down, and the value is YAML, so that
/// lists can be given: `MYELIN_PUSHER_INSTANCES='[pusher1, pusher2]'`.
pub(super) fn apply(
    root: &mut Map,
    environment: impl IntoIterator<Item = (String, String)>,
    findings: &mut Findings,
) {
    let mut variables: Vec<_> = environment
        .into_iter()
        .filter(|(name, _)| name.len() > ENVIRONMENT_PREFIX.len() && name.starts_with(ENVIRONMENT_PREFIX))
        .collect();
    // `MYELIN_REDIS` before `MYELIN_REDIS__HOST`, in whatever order the environment has them.
    variables.sort();
    for (name, text) in variables {
        let key = name[ENVIRONMENT_PREFIX.len()..].to_ascii_lowercase();
        let source: Arc<str> = format!("environment variable {name}").into();
        let path: Vec<&str> = key.split("__").collect();
        if path.iter().any(|segment| segment.is_empty()) {
            findings.warn_at(
                &Origin { source, line: None },
                "",
                "has no effect: its name has an empty part",
                "write `MYELIN_REDIS__HOST` for the option `host` of `redis`",
            );
            continue;
        }
        let mut node = match document::parse(&text, &source) {
            // A text that reads like a list or flow mapping but isn't one, such as a password: taken as it is.
            Err(_) => {
                Node { value: Value::Text(text), origin: Origin { source: source.clone(), line: None } }
            }
            Ok(node) => match &node.value {
                Value::List(_) | Value::Map(_) | Value::Null | Value::Bool(_) => node,
                // Numbers are kept as written, so that `0123` is still that where a text is wanted.
                _ => Node { value: Value::Text(text), origin: node.origin },
            },
        };
        clear_lines(&mut node);
        set(root, &path, node);
    }
}

/// A line within an environment variable would only confuse.
fn clear_lines(node: &mut Node) {
    node.origin.line = None;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(clear_lines),
        Value::Map(map) => map.entries.iter_mut().for_each(|(_, node)| clear_lines(node)),
        _ => {}
    }
}

fn set(map: &mut Map, path: &[&str], node: Node) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        map.set(first, node);
        return;
    }
    if map.get(first).and_then(Node::as_map).is_none() {
        map.set(first, Node { value: Value::Map(Map::default()), origin: node.origin.clone() });
    }
    if let Some(Node { value: Value::Map(inner), .. }) = map.get_mut(first) {
        set(inner, rest, node);
    }
}
