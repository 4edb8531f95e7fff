//! Room versions 1 to 5 accept floats as power levels and truncate them
//! ([spec](https://spec.matrix.org/v1.19/rooms/v1/#mroompower_levels-events-accept-values-as-floats)); ruma's rules
//! know integers (and strings of them) only.

use serde_json::{Value, value::RawValue};

/// The content with every float truncated to an integer, or as it is if there are none.
pub(super) fn truncate(content: Box<RawValue>) -> Box<RawValue> {
    let Ok(mut tree) = serde_json::from_str::<Value>(content.get()) else {
        // A number beyond a double. The rules see it as it is, and reject it.
        return content;
    };
    if !truncate_in(&mut tree) {
        return content;
    }
    serde_json::value::to_raw_value(&tree).unwrap_or(content)
}

/// Truncates the floats among the properties and one level below, where the power levels stand.
fn truncate_in(tree: &mut Value) -> bool {
    let Value::Object(fields) = tree else { return false };
    let mut changed = false;
    for value in fields.values_mut() {
        match value {
            Value::Object(_) => changed |= truncate_in(value),
            Value::Number(number) if number.is_f64() => {
                // `as` saturates; what is outside of canonical JSON is then rejected as too large.
                *value = Value::from(number.as_f64().unwrap_or(f64::MAX) as i64);
                changed = true;
            }
            _ => {}
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &str, expected: &str) {
        let content = RawValue::from_string(content.to_owned()).unwrap();
        assert_eq!(truncate(content).get(), expected);
    }

    #[test]
    fn floats_are_truncated() {
        check(r#"{"ban":5.114698E4,"users":{"@b:x":50.57}}"#, r#"{"ban":51146,"users":{"@b:x":50}}"#);
        check(r#"{"kick":-1.9}"#, r#"{"kick":-1}"#);
    }

    #[test]
    fn anything_else_stays() {
        check(r#"{"ban": "50" ,"kick":5}"#, r#"{"ban": "50" ,"kick":5}"#);
        check(r#"{"ban":1e999}"#, r#"{"ban":1e999}"#);
    }
}
