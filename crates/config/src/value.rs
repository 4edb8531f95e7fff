//! The kinds of values that options take, and how each is read from YAML.

mod duration;
mod glob;
mod one_or_many;
mod rate_limit;
mod scalars;
mod secret;
mod size;

use std::collections::BTreeMap;

pub(crate) use self::scalars::choice;
pub use self::{glob::Glob, one_or_many::OneOrMany, rate_limit::RateLimit, secret::Secret, size::ByteSize};
use crate::{
    document::{Node, Value},
    fault::Findings,
    section::Shape,
};

/// A type that an option can have.
pub(crate) trait Parse: Sized {
    /// Whether the value may stand in a file that `<key>_path` names.
    const FROM_FILE: bool = false;

    /// Reads the value; `None` after recording a fault.
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self>;

    /// Like [`Parse::parse`] for an option whose default is `default`, of which a mapping may replace only parts.
    fn parse_over(node: &Node, findings: &mut Findings, _default: impl FnOnce() -> Node) -> Option<Self> {
        Self::parse(node, findings)
    }

    /// Whether `node` says that an optional value is not there.
    fn is_absent(node: &Node) -> bool {
        node.is_null()
    }

    /// What may stand in the file.
    fn shape() -> Shape;
}

/// Records that `node` isn't what `T` takes.
fn mismatch<T: Parse>(node: &Node, findings: &mut Findings) -> Option<T> {
    let expected = match T::shape() {
        Shape::Value(words) => words,
        Shape::Secret => "a text",
        Shape::Section(_) | Shape::Map(_) => "a mapping",
        Shape::List(_) => "a list",
    };
    let found = match T::shape() {
        Shape::Secret => "something else".to_owned(),
        _ => node.describe(),
    };
    findings.fault(&node.origin, format!("must be {expected}, not {found}"), format!("give {expected}"));
    None
}

impl<T: Parse> Parse for Option<T> {
    const FROM_FILE: bool = T::FROM_FILE;

    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        if T::is_absent(node) { Some(None) } else { T::parse(node, findings).map(Some) }
    }

    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: Parse> Parse for Vec<T> {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let Value::List(items) = &node.value else { return mismatch(node, findings) };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            values.push(findings.within_item(index, |findings| T::parse(item, findings)));
        }
        values.into_iter().collect()
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

impl<T: Parse> Parse for BTreeMap<String, T> {
    fn parse(node: &Node, findings: &mut Findings) -> Option<Self> {
        let Value::Map(map) = &node.value else { return mismatch(node, findings) };
        let mut values = Vec::with_capacity(map.entries.len());
        for (key, node) in &map.entries {
            values.push(findings.within(key, |findings| Some((key.clone(), T::parse(node, findings)?))));
        }
        values.into_iter().collect()
    }

    fn shape() -> Shape {
        Shape::Map(Box::new(T::shape()))
    }
}

impl Parse for serde_json::Value {
    fn parse(node: &Node, _findings: &mut Findings) -> Option<Self> {
        Some(node.to_json())
    }

    fn shape() -> Shape {
        Shape::Value("any value")
    }
}
