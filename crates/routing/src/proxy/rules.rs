//! Which requests a group takes: regular expressions over path and query, few and generated.

use std::collections::BTreeMap;

use regex::Regex;

use crate::Operation;

/// Expressions longer than this are split: nginx takes no longer words.
const MAX_LENGTH: usize = 3000;
/// What may stand for a parameter of a path.
const PARAMETER: &str = "[^/?]+";

/// Requests with one of these methods whose path and query match an expression.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The methods.
    pub methods: Vec<&'static str>,
    /// The expression, anchored at both ends of the path, in the syntax that PCRE and Rust share.
    pub path: String,
    compiled: Regex,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        (&self.methods, &self.path) == (&other.methods, &other.path)
    }
}

impl Eq for Rule {}

impl Rule {
    fn new(methods: Vec<&'static str>, path: String) -> Self {
        let compiled = Regex::new(&path).expect("the expression is ours");
        Self { methods, path, compiled }
    }

    /// Whether it is for this request.
    pub fn matches(&self, method: &str, path_and_query: &str) -> bool {
        self.methods.contains(&method) && self.compiled.is_match(path_and_query)
    }
}

/// The rules for some operations.
pub(super) fn of(operations: &[&'static Operation]) -> Vec<Rule> {
    // By methods and what the paths begin with, what comes then.
    let mut methods: BTreeMap<&'static str, Vec<&'static str>> = BTreeMap::new();
    for operation in operations {
        let of_path = methods.entry(operation.path).or_default();
        of_path.push(operation.method.as_str());
        if operation.method == http::Method::GET {
            of_path.push("HEAD");
        }
    }
    let mut rests: BTreeMap<(Vec<&'static str>, String), Vec<String>> = BTreeMap::new();
    for (path, mut methods) in methods {
        methods.sort_unstable();
        let (prefix, rest) = split(path);
        rests.entry((methods, prefix)).or_default().push(expression(rest));
    }
    let mut rules = Vec::new();
    for ((methods, prefix), rests) in rests {
        let mut chunk: Vec<String> = Vec::new();
        let finish = |chunk: &mut Vec<String>, rules: &mut Vec<Rule>| {
            let rests = std::mem::take(chunk).join("|");
            rules.push(Rule::new(methods.clone(), format!("^{prefix}(?:{rests})(?:\\?|$)")));
        };
        for rest in rests {
            if chunk.iter().map(String::len).sum::<usize>() + rest.len() > MAX_LENGTH {
                finish(&mut chunk, &mut rules);
            }
            chunk.push(rest);
        }
        finish(&mut chunk, &mut rules);
    }
    rules
}

/// What many paths begin with, as an expression, and the rest. The older `r0` is served wherever `v3` is.
fn split(path: &'static str) -> (String, &'static str) {
    let mut segments = path.match_indices('/').map(|(index, _)| index);
    // "/_matrix/client/v3/…": up to the fourth slash.
    match segments.nth(3).filter(|_| path.starts_with("/_matrix/")) {
        Some(end) => {
            let prefix = regex::escape(&path[..=end]).replace("/v3/", "/(?:v3|r0)/");
            (prefix, &path[end + 1..])
        }
        None => ("/".to_owned(), path.strip_prefix('/').unwrap_or(path)),
    }
}

fn expression(rest: &str) -> String {
    let mut expression = String::new();
    for (index, segment) in rest.split('/').enumerate() {
        let slash = if index == 0 { "" } else { "/" };
        if segment == "{stateKey}" {
            // The empty one may leave its slash away.
            expression.push_str("(?:/[^/?]*)?");
        } else if segment.starts_with('{') {
            expression.push_str(slash);
            expression.push_str(PARAMETER);
        } else {
            expression.push_str(slash);
            expression.push_str(&regex::escape(segment).replace("\\-", "-"));
        }
    }
    expression
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find;

    #[test]
    fn expressions_take_what_they_are_for_and_nothing_else() {
        let operation = |method: http::Method, path| find(&method, path).expect("there is such an operation");
        let rules = of(&[
            operation(http::Method::PUT, "/_matrix/client/v3/rooms/!r/state/m.room.name/x"),
            operation(http::Method::GET, "/_matrix/client/v3/sync"),
            operation(http::Method::GET, "/.well-known/matrix/client"),
        ]);
        let check = |method: &str, path: &str, wanted: bool| {
            assert_eq!(rules.iter().any(|rule| rule.matches(method, path)), wanted, "{method} {path}");
        };
        check("GET", "/_matrix/client/v3/sync", true);
        check("HEAD", "/_matrix/client/v3/sync", true);
        check("GET", "/_matrix/client/r0/sync?since=1", true);
        check("POST", "/_matrix/client/v3/sync", false);
        check("GET", "/_matrix/client/v3/sync/", false);
        check("GET", "/x/_matrix/client/v3/sync", false);
        check("PUT", "/_matrix/client/v3/rooms/!r%2F:b/state/m.room.name/", true);
        check("PUT", "/_matrix/client/v3/rooms/!r/state/m.room.name", true);
        check("PUT", "/_matrix/client/v3/rooms/!r/state/m.room.name/k%2Fk?x", true);
        check("PUT", "/_matrix/client/v3/rooms/!r/s/state/m.room.name/k", false);
        check("GET", "/.well-known/matrix/client", true);
        check("GET", "/xwell-known/matrix/client", false);
    }
}
