//! The reference of all options.

use crate::{
    config::reference_sections,
    section::{Field, Shape},
};

/// The text of `configs/homeserver.reference.yaml`: every option with its description and default, as comments.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Every option of Myelin with its default. Generated from the doc comments of crates/config by\n\
         # `myelin-ctl config reference`; don't edit.\n",
    );
    for section in reference_sections() {
        text.push_str("\n# ----------------------------------------------------------------------------\n");
        section.doc.iter().for_each(|line| push_line(&mut text, 0, line));
        for field in &section.fields {
            text.push('\n');
            push_field(&mut text, 0, field);
        }
    }
    text
}

fn push_line(text: &mut String, depth: usize, line: &str) {
    let line = format!("{}# {}", "  ".repeat(depth), line.trim());
    text.push_str(line.trim_end());
    text.push('\n');
}

fn push_field(text: &mut String, depth: usize, field: &Field) {
    field.doc.iter().for_each(|line| push_line(text, depth, line));
    if let Some(words) = described(&field.shape) {
        push_line(text, depth, &format!("({words})"));
    }
    let default = match field.default {
        None => "  (required)".to_owned(),
        Some(default) => format!(" {default}"),
    };
    match options_of(&field.shape) {
        None => push_line(text, depth, &format!("{}:{default}", field.key)),
        Some((wrapper, fields)) => {
            push_line(text, depth, &format!("{}:{wrapper}", field.key));
            fields.iter().for_each(|field| push_field(text, depth + 1, field));
        }
    }
}

fn described(shape: &Shape) -> Option<String> {
    match shape {
        Shape::Value(words) => Some((*words).to_owned()),
        Shape::Secret => Some("a secret; `…_path` names a file that holds it instead".to_owned()),
        Shape::List(item) => described(item).map(|words| format!("a list, each {words}")),
        Shape::Map(item) => described(item).map(|words| format!("a mapping from names, each to {words}")),
        Shape::Section(_) => None,
    }
}

fn options_of(shape: &Shape) -> Option<(&'static str, &[Field])> {
    match shape {
        Shape::Section(fields) => Some(("", fields)),
        Shape::List(item) => options_of(item).map(|(_, fields)| ("  # a list of", fields)),
        Shape::Map(item) => options_of(item).map(|(_, fields)| ("  # a mapping from names to", fields)),
        Shape::Value(_) | Shape::Secret => None,
    }
}
