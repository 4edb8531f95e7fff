//! How sections are declared and read.
//!
//! `section!` declares a struct once and derives from it what would otherwise drift apart: the reader that tells all
//! faults at once, the default values, and the text of the reference in `configs/`. Defaults are written as an operator
//! would write them in YAML (`30s`, `50M`, `{ per_second: 0.2, burst_count: 10 }`).

use crate::{
    document::{self, Map, Node, Origin, Value},
    fault::Findings,
    value::Parse,
};

/// One option, as the reference shows it.
#[derive(Clone, Debug)]
pub struct Field {
    /// The key in the file.
    pub key: &'static str,
    /// The doc comment, line by line.
    pub doc: &'static [&'static str],
    /// The default as YAML; `None` if the option must be given.
    pub default: Option<&'static str>,
    /// What may stand there.
    pub shape: Shape,
}

/// What may stand at an option.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A single value, in words: `a duration such as "5m"`.
    Value(&'static str),
    /// A single value that may also be given as `<key>_path`, a file that holds it.
    Secret,
    /// A mapping with these options.
    Section(Vec<Field>),
    /// A list of such values.
    List(Box<Shape>),
    /// A mapping from names to such values.
    Map(Box<Shape>),
}

/// A struct that is read from a mapping: a section of the file's top level, or the value of one key.
pub(crate) trait Section: Sized {
    /// The doc comment, line by line.
    const DOC: &'static [&'static str];

    /// The options, in the order of declaration.
    fn fields() -> Vec<Field>;

    /// Reads the section from `map`; `None` when a fault was recorded.
    fn read(map: &Map, origin: &Origin, findings: &mut Findings) -> Option<Self>;
}

/// Declares a section; see the module's documentation. A field without a default must be given in the file. `as "key"`
/// names the key where it can't be the field's name.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        $name:ident {
            $(
                $(#[doc = $field_doc:literal])*
                $field:ident $(as $key:literal)? : $type:ty $(= $default:tt)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $(
                $(#[doc = $field_doc])*
                $(#[doc = concat!("\n\nDefault: `", stringify!($default), "`.")])?
                pub $field: $type,
            )*
        }

        impl $crate::section::Section for $name {
            const DOC: &'static [&'static str] = &[$($doc),*];

            fn fields() -> Vec<$crate::section::Field> {
                vec![$(
                    $crate::section::Field {
                        key: $crate::section::key!($field $(as $key)?),
                        doc: &[$($field_doc),*],
                        default: $crate::section::default!($($default)?),
                        shape: <$type as $crate::value::Parse>::shape(),
                    },
                )*]
            }

            fn read(
                map: &$crate::document::Map,
                origin: &$crate::document::Origin,
                findings: &mut $crate::fault::Findings,
            ) -> Option<Self> {
                $(
                    let $field: Option<$type> = $crate::section::field(
                        map,
                        origin,
                        findings,
                        $crate::section::key!($field $(as $key)?),
                        $crate::section::default!($($default)?),
                    );
                )*
                Some(Self { $($field: $field?),* })
            }
        }

        impl $crate::value::Parse for $name {
            fn parse(node: &$crate::document::Node, findings: &mut $crate::fault::Findings) -> Option<Self> {
                $crate::section::nested(node, findings)
            }

            fn parse_over(
                node: &$crate::document::Node,
                findings: &mut $crate::fault::Findings,
                default: impl FnOnce() -> $crate::document::Node,
            ) -> Option<Self> {
                $crate::section::nested_over(node, findings, default())
            }

            fn shape() -> $crate::section::Shape {
                $crate::section::Shape::Section(<Self as $crate::section::Section>::fields())
            }
        }
    };
}

/// Gives sections whose options all have defaults a `Default` of exactly these.
macro_rules! all_defaulted {
    ($($name:ident),* $(,)?) => {
        $(
            impl Default for $name {
                /// The section as it is when the file says nothing.
                fn default() -> Self {
                    $crate::section::defaults()
                }
            }
        )*
    };
}

macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident as $key:literal) => {
        $key
    };
}

macro_rules! default {
    () => {
        None
    };
    ($default:tt) => {
        Some(stringify!($default))
    };
}

pub(crate) use {all_defaulted, default, key, section};

/// The section that an empty mapping gives.
pub(crate) fn defaults<T: Section>() -> T {
    let mut findings = Findings::default();
    let section = T::read(&Map::default(), &Origin::nowhere(), &mut findings);
    section.expect("a test reads the defaults of every section")
}

/// Reads one option of `map`, from the key itself or, for secrets, from the file that `<key>_path` names.
pub(crate) fn field<T: Parse>(
    map: &Map,
    origin: &Origin,
    findings: &mut Findings,
    key: &str,
    default: Option<&'static str>,
) -> Option<T> {
    let given = map.get(key).filter(|node| !node.is_null());
    let from_file = if T::FROM_FILE { secret_file(map, key, given, findings)? } else { None };
    match (from_file.as_ref().or(given), default) {
        (Some(node), Some(default)) => {
            findings.within(key, |findings| T::parse_over(node, findings, || default_node(default)))
        }
        (Some(node), None) => findings.within(key, |findings| T::parse(node, findings)),
        (None, Some(default)) => findings.within(key, |findings| T::parse(&default_node(default), findings)),
        (None, None) => {
            findings.within(key, |findings| {
                findings.fault(origin, "is missing", format!("add `{key}: …`, {}", article(&T::shape())));
            });
            None
        }
    }
}

fn article(shape: &Shape) -> String {
    match shape {
        Shape::Value(words) => (*words).to_owned(),
        Shape::Secret => "a secret text".to_owned(),
        Shape::Section(_) | Shape::Map(_) => "a mapping".to_owned(),
        Shape::List(_) => "a list".to_owned(),
    }
}

fn default_node(default: &'static str) -> Node {
    document::parse(default, "").expect("a test reads the defaults of every section")
}

/// The content of the file that `<key>_path` names: `Some(None)` when there is no such key, `None` after a fault.
#[expect(
    clippy::option_option,
    reason = "outer: no fault, inner: a file is named; both are told apart by one caller"
)]
fn secret_file(map: &Map, key: &str, given: Option<&Node>, findings: &mut Findings) -> Option<Option<Node>> {
    let path_key = format!("{key}_path");
    let Some(node) = map.get(&path_key).filter(|node| !node.is_null()) else { return Some(None) };
    findings.within(&path_key, |findings| {
        if given.is_some() {
            findings.fault(
                &node.origin,
                format!("both `{key}` and `{path_key}` are given"),
                format!("keep one of them, best `{path_key}`"),
            );
            return None;
        }
        let Some(path) = node.as_text() else {
            findings.fault(
                &node.origin,
                format!("must be a path, not {}", node.describe()),
                "give the path of a file",
            );
            return None;
        };
        match std::fs::read_to_string(path) {
            Ok(content) if content.trim().is_empty() => {
                findings.fault(
                    &node.origin,
                    format!("the file `{path}` is empty"),
                    "write the secret into it",
                );
                None
            }
            Ok(content) => Some(Some(Node {
                value: Value::Text(content.trim().to_owned()),
                origin: node.origin.clone(),
            })),
            Err(error) => {
                findings.fault(
                    &node.origin,
                    format!("the file `{path}` can't be read: {error}"),
                    "create it with the secret as its only line, readable for the user that runs the daemons",
                );
                None
            }
        }
    })
}

/// Reads a section that is the value of a key, and warns of keys that it doesn't have.
pub(crate) fn nested<T: Section>(node: &Node, findings: &mut Findings) -> Option<T> {
    let empty = Map::default();
    let map = match &node.value {
        Value::Map(map) => map,
        // `redis:` with every line below it commented out.
        Value::Null => &empty,
        _ => {
            findings.fault(
                &node.origin,
                format!("must be a mapping of options, not {}", node.describe()),
                "write one `option: value` a line, indented below the key",
            );
            return None;
        }
    };
    warn_of_unknown(map, &keys_of(&T::fields()), findings);
    T::read(map, &node.origin, findings)
}

/// Like [`nested`]; options that `node` leaves out are those of `default`, if that is a mapping.
pub(crate) fn nested_over<T: Section>(node: &Node, findings: &mut Findings, default: Node) -> Option<T> {
    let (Value::Map(given), Value::Map(mut merged)) = (&node.value, default.value) else {
        return nested(node, findings);
    };
    for (key, value) in &given.entries {
        merged.set(key, value.clone());
    }
    nested(&Node { value: Value::Map(merged), origin: node.origin.clone() }, findings)
}

/// The keys that `fields` take from a mapping, `<key>_path` of secrets included.
pub(crate) fn keys_of(fields: &[Field]) -> Vec<String> {
    let mut keys = Vec::with_capacity(fields.len());
    for field in fields {
        keys.push(field.key.to_owned());
        if matches!(field.shape, Shape::Secret) {
            keys.push(format!("{}_path", field.key));
        }
    }
    keys
}

/// Warns of each key of `map` that is not in `known`.
pub(crate) fn warn_of_unknown(map: &Map, known: &[String], findings: &mut Findings) {
    for (key, node) in &map.entries {
        if known.iter().any(|known| known == key) {
            continue;
        }
        findings.within(key, |findings| {
            let remedy = match closest(key, known.iter().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "remove it".to_owned(),
            };
            findings.warn(&node.origin, "is not an option; it has no effect", remedy);
        });
    }
}

/// The known key that `key` most likely is a slip of.
pub(crate) fn closest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| {
        strsim::jaro_winkler(key, known).max(strsim::normalized_damerau_levenshtein(key, known))
    };
    known
        .map(|known| (likeness(known), known))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}
