//! JSON held to JSON: the same values; keys may be added.

use serde_json::Value;

use super::difference::Difference;

/// Values that may differ, as file name and path, `*` for any index. Their keys must be there all the same.
///
/// The fingerprint of a model may change its form; it stands in plans and observations as `model_fingerprint`,
/// in reports as `model.fingerprint`. An observation that gained a tensor has another hash. The tool's
/// version, times and memory are not results; nor are sentences for people.
pub(super) const FREE: &[(&str, &str)] = &[
    ("plan.json", "model_fingerprint"),
    ("plan.json", "observation_sha256"),
    ("plan.json", "tool"),
    ("moeprune-report.json", "model.fingerprint"),
    ("moeprune-report.json", "observation_sha256"),
    ("moeprune-report.json", "tool"),
    ("moeprune-report.json", "stages"),
    ("moeprune-report.json", "serving"),
    ("applied-verify.json", "checks.*.detail"),
    ("pruned-verify.json", "checks.*.detail"),
    ("observation.safetensors", "model_fingerprint"),
    ("other.safetensors", "model_fingerprint"),
    ("blended.safetensors", "model_fingerprint"),
];

/// Whether a value may differ.
pub(super) fn is_free(file: &str, path: &[String]) -> bool {
    FREE.iter().any(|&(name, pattern)| {
        name == file
            && pattern.split('.').count() == path.len()
            && pattern.split('.').zip(path).all(|(p, key)| p == "*" || p == key)
    })
}

/// Where `got` lacks a key of `expected` or has another value there. `file` is the file's name, for what may
/// differ in it.
pub(super) fn differences(file: &str, expected: &Value, got: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(file, &mut Vec::new(), expected, got, &mut found);
    found
}

fn walk(
    file: &str,
    path: &mut Vec<String>,
    expected: &Value,
    got: &Value,
    found: &mut Vec<Difference>,
) {
    if is_free(file, path) {
        return;
    }
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                path.push(key.clone());
                match b.get(key) {
                    Some(other) => walk(file, path, value, other, found),
                    None => found.push(Difference::new(path.join("."), value, "no such key")),
                }
                path.pop();
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (value, other)) in a.iter().zip(b).enumerate() {
                path.push(index.to_string());
                walk(file, path, value, other, found);
                path.pop();
            }
        }
        _ if expected == got => {}
        _ => found.push(Difference::new(path.join("."), expected, got)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places(file: &str, a: &Value, b: &Value) -> Vec<String> {
        differences(file, a, b).into_iter().map(|d| d.at).collect()
    }

    #[test]
    fn keys_may_be_added_but_not_changed_or_removed() {
        let old = json!({ "ratio": 0.25, "layers": [{ "kept": [0, 1] }, { "kept": [2] }] });
        let check = |new: Value, expected: &[&str]| {
            assert_eq!(places("plan.json", &old, &new), expected, "{new}");
        };
        check(old.clone(), &[]);
        let layers = json!([{ "kept": [0, 1], "new": 1 }, { "kept": [2] }]);
        check(json!({ "added": null, "layers": layers, "ratio": 0.25 }), &[]);
        check(json!({ "ratio": 0.25 }), &["layers"]);
        check(
            json!({ "ratio": 0.26, "layers": [{ "kept": [0, 3] }, {}] }),
            &["ratio", "layers.0.kept.1", "layers.1.kept"],
        );
        check(json!({ "ratio": null, "layers": [{ "kept": [0, 1] }] }), &["ratio", "layers"]);
    }

    #[test]
    fn only_what_is_listed_may_differ_and_its_key_must_be_there() {
        let old = json!({ "tool": "a 1", "model_fingerprint": "x", "layers": [{ "tool": 1 }] });
        let new = json!({ "tool": "a 2", "model_fingerprint": "y", "layers": [{ "tool": 1 }] });
        assert!(places("plan.json", &old, &new).is_empty());
        assert_eq!(places("config.json", &old, &new), ["tool", "model_fingerprint"]);
        let deeper = json!({ "tool": "a 2", "layers": [{ "tool": 2 }] });
        assert_eq!(places("plan.json", &old, &deeper), ["model_fingerprint", "layers.0.tool"]);
        let checks = |passed: bool, detail: &str| {
            let check = json!({ "name": "opens", "passed": passed, "detail": detail });
            json!({ "checks": [check] })
        };
        let file = "pruned-verify.json";
        assert!(places(file, &checks(true, "a"), &checks(true, "b")).is_empty());
        assert_eq!(places(file, &checks(true, "a"), &checks(false, "b")), ["checks.0.passed"]);
    }
}
