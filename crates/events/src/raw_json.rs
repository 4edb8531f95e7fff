//! Writing JSON objects as text, field by field: responses that are put together from ready fragments.

use std::fmt::{self, Write as _};

use serde_json::value::RawValue;

/// Writes one JSON object to the end of a text. [`end`](Self::end) closes it.
///
/// Field names are literals of the program and are not escaped; a field that is written twice stands there twice.
///
/// ```
/// use myelin_events::raw_json::ObjectWriter;
///
/// let mut json = String::new();
/// let mut object = ObjectWriter::new(&mut json);
/// object.string("type", "m.room.topic");
/// object.raw("content", r#"{"topic":"News"}"#);
/// object.end();
/// assert_eq!(json, r#"{"type":"m.room.topic","content":{"topic":"News"}}"#);
/// ```
#[derive(Debug)]
#[must_use = "an object that is not ended is not JSON"]
pub struct ObjectWriter<'a> {
    out: &'a mut String,
    is_empty: bool,
}

impl<'a> ObjectWriter<'a> {
    /// Opens an object.
    pub fn new(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, is_empty: true }
    }

    /// Goes on with an object that was left open and has at least one field.
    pub fn resume(out: &'a mut String) -> Self {
        Self { out, is_empty: false }
    }

    /// A field whose value is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) {
        self.name(name).push_str(json);
    }

    /// A field that is a string.
    pub fn string(&mut self, name: &str, text: &str) {
        push_string(self.name(name), text);
    }

    /// A field that is a string, of what something displays.
    pub fn display(&mut self, name: &str, value: impl fmt::Display) {
        push_display(self.name(name), value);
    }

    /// A field that is an integer.
    pub fn integer(&mut self, name: &str, value: i64) {
        write!(self.name(name), "{value}").expect("writing to a String works");
    }

    /// A field that is a boolean.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.name(name).push_str(if value { "true" } else { "false" });
    }

    /// A field that is an object; end it before going on.
    pub fn object(&mut self, name: &str) -> ObjectWriter<'_> {
        ObjectWriter::new(self.name(name))
    }

    /// A field that `write` appends as JSON.
    pub fn with(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        write(self.name(name));
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push('}');
    }

    /// Leaves the object open: a fragment to [`resume`](Self::resume).
    pub(crate) fn leave_open(self) {}

    fn name(&mut self, name: &str) -> &mut String {
        if !self.is_empty {
            self.out.push(',');
        }
        self.is_empty = false;
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
        self.out
    }
}

/// Appends a text as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

/// Appends what something displays as a JSON string, without a copy in between.
fn push_display(out: &mut String, value: impl fmt::Display) {
    struct Escaping<'a>(&'a mut String);

    impl fmt::Write for Escaping<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            push_escaped(self.0, text);
            Ok(())
        }
    }

    out.push('"');
    write!(Escaping(out), "{value}").expect("writing to a String works");
    out.push('"');
}

fn push_escaped(out: &mut String, text: &str) {
    let needs_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let mut rest = text;
    while let Some(index) = rest.bytes().position(needs_escape) {
        out.push_str(&rest[..index]);
        match rest.as_bytes()[index] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0C => out.push_str("\\f"),
            control => write!(out, "\\u{control:04x}").expect("writing to a String works"),
        }
        rest = &rest[index + 1..];
    }
    out.push_str(rest);
}

/// JSON text that was written here as a value to put into ruma's types.
pub(crate) fn into_raw_value(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("what was written field by field is JSON")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn objects_nest_and_resume() {
        let mut json = String::new();
        let mut object = ObjectWriter::new(&mut json);
        object.integer("a", -5);
        let mut inner = object.object("b");
        inner.boolean("c", true);
        inner.end();
        ObjectWriter::new(&mut String::new()).end();
        object.leave_open();
        let mut object = ObjectWriter::resume(&mut json);
        object.with("d", |out| out.push_str("[]"));
        object.end();
        assert_eq!(json, r#"{"a":-5,"b":{"c":true},"d":[]}"#);
    }

    proptest! {
        #[test]
        fn strings_are_escaped_as_canonical_json_wants(text: String) {
            let expected = serde_json::to_string(&text).unwrap();
            let mut written = String::new();
            push_string(&mut written, &text);
            prop_assert_eq!(&written, &expected);
            let mut displayed = String::new();
            push_display(&mut displayed, &text);
            prop_assert_eq!(&displayed, &expected);
        }
    }
}
