//! A YAML file as a tree whose nodes know the file and line they come from.
//!
//! The tree is kept (and not read into structs at once) so that files can be merged by top-level key, old spellings be
//! rewritten, and every fault of every file be told together with its line.

use std::{fmt, sync::Arc};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::fault::Fault;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// A file, or `environment variable MYELIN_…`.
    pub source: Arc<str>,
    /// Counted from 1.
    pub line: Option<u32>,
}

impl Origin {
    /// The place of what stands in no file at all, such as a key that is missing everywhere.
    pub fn nowhere() -> Self {
        Self { source: Arc::from(""), line: None }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub origin: Origin,
}

/// What YAML (in the flavor that PyYAML reads) can hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// The entries of a mapping in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Map {
    pub entries: Vec<(String, Node)>,
}

impl PartialEq for Node {
    /// Nodes are equal when they say the same, wherever they stand.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text, or the flag as the word for it: some options take `true`, `false` and further words.
    pub fn as_word(&self) -> Option<&str> {
        match &self.value {
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            _ => self.as_text(),
        }
    }

    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The node's value for humans, such as `"abc"` or `a list`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Integer(value) => format!("`{value}`"),
            Value::Float(value) => format!("`{value}`"),
            Value::Text(value) if value.chars().count() > 80 => "a long text".to_owned(),
            Value::Text(value) => format!("`{value}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The same value as JSON, for options that are passed through as they are.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => value.to_string().into(),
            },
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(map) => map.entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect(),
        }
    }

    fn set_source(&mut self, source: &Arc<str>) {
        self.origin.source = source.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.set_source(source)),
            Value::Map(map) => map.entries.iter_mut().for_each(|(_, node)| node.set_source(source)),
            _ => {}
        }
    }
}

impl Map {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The node at a path of keys, such as `["database", "args"]`.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        let (first, rest) = path.split_first()?;
        let node = self.get(first)?;
        if rest.is_empty() { Some(node) } else { node.as_map()?.at(rest) }
    }

    /// Sets `key`, replacing what stood there.
    pub fn set(&mut self, key: &str, node: Node) {
        match self.get_mut(key) {
            Some(old) => *old = node,
            None => self.entries.push((key.to_owned(), node)),
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(index).1)
    }
}

/// Reads one YAML document. `source` is what faults call the place.
pub(crate) fn parse(text: &str, source: &str) -> Result<Node, Fault> {
    // PyYAML reads `0660` as octal, and socket modes are written so.
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    let parsed: Result<Option<Spanned<Raw>>, _> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(Some(root)) => {
            let mut node = root.into_node();
            node.set_source(&Arc::from(source));
            Ok(node)
        }
        Ok(None) => {
            Ok(Node { value: Value::Null, origin: Origin { source: Arc::from(source), line: Some(1) } })
        }
        Err(error) => Err(Fault {
            file: source.to_owned(),
            line: error.location().and_then(|location| u32::try_from(location.line()).ok()),
            path: String::new(),
            message: format!("is not valid YAML: {}", error.without_snippet()),
            remedy: "mend the file at that line; indent with spaces, quote texts that hold `: ` or ` #`"
                .to_owned(),
        }),
    }
}

/// [`Node`] before its source is known, as serde makes it.
struct Raw(Value);

trait IntoNode {
    fn into_node(self) -> Node;
}

impl IntoNode for Spanned<Raw> {
    fn into_node(self) -> Node {
        let line = u32::try_from(self.referenced.line()).ok().filter(|line| *line > 0);
        Node { value: self.value.0, origin: Origin { source: Arc::from(""), line } }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw(Value::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw(Value::Integer(value.into())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw(Value::Integer(value.into())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw(Value::Float(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Raw>>()? {
            items.push(item.into_node());
        }
        Ok(Raw(Value::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut map = Map::default();
        while let Some(key) = access.next_key::<Spanned<Raw>>()? {
            let key = key.into_node();
            let mut node = access.next_value::<Spanned<Raw>>()?.into_node();
            // A fault names the line of the key: that of a mapping's value is the line below.
            node.origin.line = key.origin.line.or(node.origin.line);
            let name = match key.value {
                Value::Text(text) => text,
                Value::Bool(value) => value.to_string(),
                Value::Integer(value) => value.to_string(),
                Value::Float(value) => value.to_string(),
                Value::Null | Value::List(_) | Value::Map(_) => {
                    return Err(de::Error::custom("a key must be a text"));
                }
            };
            map.set(&name, node);
        }
        Ok(Raw(Value::Map(map)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_line() {
        let root = parse("a: 1\n\nb:\n  c:\n    - x\n    - {d: 0660}\n", "f.yaml").expect("valid YAML");
        let map = root.as_map().expect("a mapping");
        let check = |path: &[&str], line| {
            let node = map.at(path).expect("the key is there");
            assert_eq!((node.origin.line, &*node.origin.source), (Some(line), "f.yaml"), "{path:?}");
        };
        check(&["a"], 1);
        check(&["b"], 3);
        check(&["b", "c"], 4);
        let Value::List(items) = &map.at(&["b", "c"]).expect("there").value else { panic!("a list") };
        assert_eq!(items[1].origin.line, Some(6));
        assert_eq!(
            items[1].as_map().and_then(|map| map.get("d")).map(|node| &node.value),
            Some(&Value::Integer(0o660))
        );
    }

    #[test]
    fn broken_yaml_is_a_fault_with_its_line() {
        let fault = parse("a: 1\nb: [1, 2\nc: 3\n", "f.yaml").expect_err("broken");
        assert_eq!(fault.file, "f.yaml");
        assert!(fault.line.is_some(), "{fault}");
        let fault = parse("a: 1\na: 2\n", "f.yaml").expect_err("a key given twice");
        assert_eq!(fault.line, Some(2), "{fault}");
    }

    #[test]
    fn an_empty_file_is_null() {
        assert!(parse("# nothing\n", "f.yaml").expect("valid YAML").is_null());
        assert!(parse("", "f.yaml").expect("valid YAML").is_null());
    }
}
