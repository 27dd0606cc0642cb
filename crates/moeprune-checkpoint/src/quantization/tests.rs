//! Rewritten configs, held against their sources by how they treat each module.

use std::{collections::BTreeMap, fs, path::Path};

use fancy_regex::Regex;
use serde_json::{Value, json};

use super::{Modules, edits};

type Kept = BTreeMap<String, Vec<usize>>;

/// Names of a model's modules, and which experts of each layer stay.
struct Model {
    names: Vec<String>,
    kept: BTreeMap<String, Vec<usize>>,
}

impl Model {
    /// `experts` experts in layers of these names, of which these stay.
    fn new(experts: usize, layers: &[(&str, &[usize])]) -> Self {
        let mut names: Vec<String> = vec!["lm_head".to_owned()];
        let mut kept = Kept::new();
        for (layer, stay) in layers {
            names.push(format!("{layer}.mlp.gate"));
            names.push(format!("{layer}.self_attn.q_proj"));
            for expert in 0..experts {
                let name = |p: &str| format!("{layer}.mlp.experts.{expert}.{p}_proj");
                names.extend(["gate", "up", "down"].map(name));
            }
            kept.insert(format!("{layer}.mlp.experts"), stay.to_vec());
        }
        Self { names, kept }
    }

    fn modules(&self, experts: usize) -> Modules {
        let numbers = |kept: &Vec<usize>| {
            (0..experts).map(|expert| kept.iter().position(|k| *k == expert)).collect()
        };
        let of_layers = self.kept.iter().map(|(layer, kept)| (layer.clone(), numbers(kept)));
        Modules::new(of_layers.collect(), self.names.iter().map(String::as_str))
    }

    /// The new name of a module; `None` if it is gone.
    fn renamed(&self, name: &str) -> Option<String> {
        for (layer, kept) in &self.kept {
            let Some(rest) = name.strip_prefix(&format!("{layer}.")) else { continue };
            let (number, rest) = rest.split_once('.').expect("is of an expert");
            let number: usize = number.parse().expect("is a number");
            let new = kept.iter().position(|k| *k == number)?;
            return Some(format!("{layer}.{new}.{rest}"));
        }
        Some(name.to_owned())
    }
}

fn rewritten(text: &str, modules: &Modules) -> Result<String, String> {
    let mut changed = text.to_owned();
    for (range, new) in edits(text, text, modules)?.into_iter().rev() {
        changed.replace_range(range, &new);
    }
    Ok(changed)
}

fn matches(regex: &str, name: &str) -> bool {
    Regex::new(&format!(r"\A(?:{regex})")).expect("compiles").is_match(name).expect("ends")
}

/// Whether an entry of a list selects a module.
fn is_selected(key: &str, method: &str, entry: &str, name: &str) -> bool {
    match (key, method) {
        ("modules_to_not_convert", "awq") => name.contains(entry),
        ("modules_to_not_convert" | "ignored_layers", _) => {
            matches(entry, name) || name.ends_with(entry)
        }
        ("modules_in_block_to_quantize", _) => name.ends_with(entry),
        _ if entry.contains('*') && !entry.starts_with("re:") => {
            matches(&format!("{}$", entry.replace('.', r"\.").replace('*', ".*")), name)
        }
        _ => match entry.strip_prefix("re:") {
            Some(regex) => matches(regex, name),
            None => name == entry,
        },
    }
}

/// What a config says of a module, place by place.
fn treatment(config: &Value, name: &str) -> Vec<Value> {
    let method = config["quant_method"].as_str().unwrap_or_default();
    let mut said = Vec::new();
    for key in [
        "ignore",
        "modules_to_not_convert",
        "ignored_layers",
        "exclude",
        "exclude_modules",
        "modules_in_block_to_quantize",
    ] {
        let lists = config[key].as_array().into_iter().flatten();
        let mut entries = lists.flat_map(|item| match item {
            Value::Array(inner) => inner.clone(),
            item => vec![item.clone()],
        });
        let is = |entry: Value| is_selected(key, method, entry.as_str().expect("a name"), name);
        said.push(json!(entries.any(is)));
    }
    for group in config["config_groups"].as_object().into_iter().flatten() {
        let targets = group.1["targets"].as_array().expect("is a list");
        let is = |entry: &Value| is_selected("targets", method, entry.as_str().expect("is"), name);
        said.push(json!(targets.iter().any(is)));
    }
    for key in ["quantized_layers", "extra_config"] {
        let table = config[key].as_object();
        let above = |key: &&String| name.starts_with(&format!("{key}."));
        let of = |table: &serde_json::Map<String, Value>| {
            let exact = table.get(name).cloned();
            exact.or_else(|| table.keys().find(above).map(|key| table[key].clone()))
        };
        said.push(json!(table.and_then(of)));
    }
    let mut dynamic = config["dynamic"].as_object().into_iter().flatten();
    let rule = dynamic.find(|(key, _)| matches(&key[2..], name));
    said.push(json!(rule.map(|(key, value)| json!([&key[..1], value]))));
    said
}

#[track_caller]
fn check_meaning(model: &Model, before: &Value, after: &Value) {
    for name in &model.names {
        let Some(new) = model.renamed(name) else { continue };
        assert_eq!(treatment(before, name), treatment(after, &new), "{name} -> {new}: {after:#}");
    }
}

#[test]
fn vectors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/quantised");
    let text = fs::read_to_string(root.join("config_rewrites.json")).expect("reads");
    let vectors: Value = serde_json::from_str(&text).expect("is JSON");
    let names = vectors["modules"].as_array().expect("is a list").iter();
    let names = names.map(|name| name.as_str().expect("is a name").to_owned()).collect();
    let kept: Kept = serde_json::from_value(vectors["kept"].clone()).expect("is a table");
    let kept = kept.into_iter().map(|(l, kept)| (format!("model.layers.{l}.mlp.experts"), kept));
    let model = Model { names, kept: kept.collect() };
    let modules = model.modules(4);
    let cases = vectors["cases"].as_array().expect("is a list");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let text = serde_json::to_string_pretty(&case["before"]).expect("is JSON");
        let got = rewritten(&text, &modules).expect("rewrites");
        let after: Value = serde_json::from_str(&got).expect("is JSON");
        check_meaning(&model, &case["before"], &case["after"]);
        check_meaning(&model, &case["before"], &after);
        assert_eq!(after, case["after"], "{}", case["note"]);
        if case["before"] == case["after"] {
            assert_eq!(got, text, "{}", case["note"]);
        }
    }
}

const FIRST: &str = "model.layers.0";
const ELEVENTH: &str = "model.layers.11";

/// Twelve experts in two layers of which different numbers stay.
fn uneven() -> Model {
    Model::new(12, &[(FIRST, &[0, 1, 3, 10, 11]), (ELEVENTH, &[2, 4, 5, 6, 7, 8])])
}

#[track_caller]
fn check(before: &Value) -> Value {
    let model = uneven();
    let text = serde_json::to_string(before).expect("is JSON");
    let got = rewritten(&text, &model.modules(12)).expect("rewrites");
    let after = serde_json::from_str(&got).expect("is JSON");
    check_meaning(&model, before, &after);
    after
}

#[test]
fn prefixes_reach_more_than_one_expert() {
    let expert = "model.layers.0.mlp.experts.1";
    for (method, key) in [("fp8", "modules_to_not_convert"), ("awq", "modules_to_not_convert")] {
        let after = check(&json!({"quant_method": method, key: [expert, "lm_head"]}));
        assert_eq!(after[key].as_array().map(Vec::len), Some(10), "1, 10 and 11, and the head");
    }
    check(&json!({"quant_method": "fp8", "ignored_layers": ["model.layers.1", "11.up_proj"]}));
    check(&json!({"quant_method": "awq", "modules_to_not_convert": ["experts.1", "s.2.u"]}));
}

#[test]
fn patterns_with_numbers() {
    let check = |entry: &str| {
        check(&json!({"quant_method": "compressed-tensors", "ignore": [entry],
            "config_groups": {"a": {"targets": [entry, "Linear"]}, "b": {"targets": []}}}))
    };
    check(r"re:.*experts\.(1|10)\.up_proj");
    check(r"re:.*experts\.\d\.up_proj");
    check(r"re:.*experts\.\d{2}\.");
    check(r"re:(?!.*experts\.(0|5)\.).*");
    check(r"re:.*layers\.11\..*(q_proj|experts\.7\.)");
    let same = r"re:.*layers\.11\.mlp\.experts.*";
    assert_eq!(check(same)["ignore"], json!([same]));
}

#[test]
fn tables_keep_their_order_and_exact_names_win() {
    check(&json!({"quant_method": "gptq", "dynamic": {
        r"-:.*experts\.3\.up_proj": {}, r"+:.*experts\.(3|4)\.": {"bits": 8}, r"+:.*": {"bits": 3}}}));
    let up = |expert: usize| format!("model.layers.0.mlp.experts.{expert}.up_proj");
    let after = check(&json!({"quant_method": "modelopt", "quantized_layers": {
        "model.layers.0.mlp.experts.3": {"a": 1}, up(3): {"a": 2}, up(2): {"a": 3}}}));
    assert_eq!(after["quantized_layers"].as_object().map(serde_json::Map::len), Some(2));
    check(&json!({"quant_method": "auto-round", "extra_config": {up(1): {"bits": 8}}}));
}

#[test]
fn ends_of_names_that_are_the_same_in_each_layer() {
    let ends = |experts: &[usize]| -> Vec<String> {
        experts.iter().map(|expert| format!("mlp.experts.{expert}.up_proj")).collect()
    };
    let check_on = |model: &Model, listed: &[usize], expected: Option<&[usize]>| {
        let before = json!({"modules_in_block_to_quantize": [["self_attn.q_proj"], ends(listed)]});
        let got = rewritten(&before.to_string(), &model.modules(12)).expect("rewrites");
        let after: Value = serde_json::from_str(&got).expect("is JSON");
        check_meaning(model, &before, &after);
        if let Some(expected) = expected {
            assert_eq!(after["modules_in_block_to_quantize"][1], json!(ends(expected)));
        }
    };
    let all: Vec<usize> = (0..12).collect();
    check_on(&uneven(), &all, Some(&[0, 1, 2, 3, 4, 5]));
    check_on(&uneven(), &[4, 10], None);
    let even = Model::new(12, &[(FIRST, &[0, 4, 10]), (ELEVENTH, &[0, 4, 10])]);
    check_on(&even, &[4, 5, 11], Some(&[1]));
}

#[test]
fn what_says_nothing_of_experts_stays() {
    let check_same = |text: &str| {
        assert_eq!(rewritten(text, &uneven().modules(12)).expect("rewrites"), text);
    };
    check_same(r#"{"ignore": [ ], "modules_to_not_convert":null, "dynamic": {}}"#);
    check_same(r#"{"quant_method" : "fp8",  "modules_to_not_convert": ["nothing.at.all", "x.5"]}"#);
    check_same(r#"{"ignore": ["model.layers.0.mlp.experts.99.up_proj"], "bits": 4}"#);
    check_same(r#"{"exclude": ["re:.*experts.*"], "x": {"y": [1, {"z": [[]]}]}}"#);
    check_same(r#"{"dynamic": true, "weights": {"dynamic": "local"}, "targets": "Linear"}"#);
}

#[test]
fn names_that_begin_otherwise_and_layers_behind() {
    let mtp = "mtp.layers.0";
    let first = "model.language_model.layers.0";
    let model = Model::new(4, &[(first, &[1, 2, 3]), (mtp, &[0, 2])]);
    let check = |entry: &str, expected: &Value| {
        let text = json!({"exclude": [entry]}).to_string();
        let got = rewritten(&text, &model.modules(4)).expect("rewrites");
        let got: Value = serde_json::from_str(&got).expect("is JSON");
        assert_eq!(got["exclude"], *expected, "{entry}");
    };
    check("mtp.layers.0.mlp.experts.2.up_proj", &json!(["mtp.layers.0.mlp.experts.1.up_proj"]));
    check("mtp.layers.0.mlp.experts.1.up_proj", &json!([]));
    let other = "language_model.layers.0.mlp.experts";
    check(&format!("{other}.3.up_proj"), &json!([format!("{other}.2.up_proj")]));
    check(&format!("{other}.0"), &json!([]));
}

#[test]
fn lists_keep_their_white_space() {
    let text = "{\"ignore\": [\n  \"lm_head\",\n  \"model.layers.0.mlp.experts.3.up_proj\",\n  \
                \"model.layers.0.mlp.experts.4.up_proj\"\n ]\t, \"other_place\": \
                [\"model.layers.0.mlp.experts.3.up_proj\"]}";
    let expected = "{\"ignore\": [\n  \"lm_head\",\n  \"model.layers.0.mlp.experts.2.up_proj\"\n \
                    ]\t, \"other_place\": [\"model.layers.0.mlp.experts.2.up_proj\"]}";
    assert_eq!(rewritten(text, &uneven().modules(12)).as_deref(), Ok(expected));
}

#[test]
fn expressions_that_are_none_are_named() {
    let check = |text: &str, expected: &[&str]| {
        let message = rewritten(text, &uneven().modules(12)).expect_err("is refused");
        expected.iter().for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    let text = r#"{"quant_method": "compressed-tensors", "ignore": ["re:experts.(1"]}"#;
    check(text, &["`ignore`", "`re:experts.(1`", "name the modules"]);
    check(r#"{"dynamic": {"+:*": {}}}"#, &["`dynamic`", "`+:*`"]);
    check(r#"{"ignore": {"a": 1, "a": 2}}"#, &["`ignore`", "appears twice"]);
}
