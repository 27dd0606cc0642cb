use serde_json::json;

use super::*;
use crate::Recipe;

/// A report of experts that were removed by a text, as far as a card reads it.
fn report() -> Report {
    let layer = json!({
        "index": 0, "experts_before": 8, "kept": [0, 1, 2, 3, 4, 5], "merged": [], "dropped": [6, 7],
        "clusters": [], "ratio": null, "achieved": 0.25,
    });
    let recipe =
        Recipe::from_toml("sparsity = 0.25\n[experts]\nsparsity = 0.25\ncriterion = \"reap\"")
            .unwrap();
    let text = json!({
        "name": "c4.json.gz", "sha256": "b2", "samples": 128, "sequence_len": 2048, "seed": 7,
        "read": {"format": "JSON lines of `text`", "files": 1, "documents": 9, "tokens": 99},
    });
    let report = json!({
        "format": 1, "tool": "moeprune 0.1.0",
        "model": {"family": "mixtral", "fingerprint": "m-1", "parameters": {"all": 9, "linears": 8, "experts": 7}},
        "sparsity": {
            "requested": 0.25, "requested_experts": 0.25,
            "achieved": {"experts": 0.25, "linears": 0.24, "all": 0.2},
        },
        "bytes": {"before": 100, "after": 75}, "layers": [layer], "ties": 0, "idle_experts": [], "stages": [],
        "corpora": [text], "observation_sha256": null, "recipe": recipe, "serving": ["It is smaller."],
    });
    serde_json::from_value(report).unwrap()
}

fn base(id: Option<&str>, name: &str) -> Base {
    Base { id: id.map(str::to_owned), commit: None, name: name.to_owned() }
}

/// A card of a changed report has all these lines.
#[track_caller]
fn check(change: impl Fn(&mut Report), base: &Base, expected: &[&str]) {
    let mut report = report();
    change(&mut report);
    let front = FrontMatter::default();
    let facts =
        Facts { report: &report, base, front: &front, has_base_card: true, is_transformers: true };
    let card = facts.render();
    for expected in expected {
        assert!(card.contains(expected), "no {expected:?} in:\n{card}");
    }
}

#[test]
fn what_was_done_is_in_the_title_and_the_tags() {
    let known = base(Some("org/name"), "name");
    check(
        |_| (),
        &known,
        &[
            "base_model: org/name\n",
            "tags:\n- moe\n- pruned\n- moeprune\n- reap\n---\n",
            "# name, 2 of 8 experts removed\n",
            "All other weights are as they were.",
            "| experts removed | 25.00 % | 25.00 % |",
            "Weights on disk: 100 bytes before, 75 after (25.0 % smaller).",
            "It is smaller.",
        ],
    );
    check(
        |report| report.recipe = Recipe::arctic(),
        &known,
        &[
            "- stun\n- wanda\n- owl\n---\n",
            "# name, 2 of 8 experts removed, weights zeroed to 24.00 %\n",
        ],
    );
    let all = |report: &mut Report| report.layers[0].kept = (0..8).collect();
    check(all, &known, &["- moeprune\n---\n", "# name, nothing removed\n"]);
    let zeroed = |report: &mut Report| {
        all(report);
        report.recipe = Recipe::arctic();
        report.weights_changed = true;
    };
    check(
        zeroed,
        &known,
        &[
            "# name, weights zeroed to 24.00 %\n",
            "Of those that are left, weights that stay were changed",
        ],
    );
}

#[test]
fn names_are_text() {
    check(
        |_| (),
        &base(None, "<b>`x`|[y](z)\n\u{1b}"),
        &[
            "---\nlibrary_name: transformers\ntags:\n",
            "# \\<b\\>\\`x\\`\\|\\[y\\](z)\\\\n\\\\u{1b}, 2 of",
            "the model in the folder `<b>'x'|[y](z)\\n\\u{1b}` without",
            "Which model that is on the Hugging Face Hub is not known here, so `base_model` is left out.",
            "    moeprune prune '<b>`x`|[y](z)\\n\\u{1b}' OUT",
        ],
    );
    check(
        |report| report.corpora[0].name = "a`b\n| c.txt".into(),
        &base(None, "x"),
        &[
            "- `a'b\\n| c.txt`, JSON lines of \\`text\\`: 128 samples × 2048 tokens, seed 7; SHA-256 `b2`\n",
        ],
    );
    check(
        |report| report.recipe.experts.criterion.name = "no".into(),
        &base(None, "x"),
        &["- \"no\"\n---\n"],
    );
}

#[test]
fn commands_follow_what_was_read() {
    let name = base(None, "model");
    let text = |report: &mut Report, change: &dyn Fn(&mut moeprune_core::TextFacts)| {
        change(report.corpora[0].read.as_mut().unwrap());
    };
    check(
        |_| (),
        &name,
        &["\n    moeprune prune model OUT --recipe recipe.toml --calibration c4.json.gz\n\n"],
    );
    // The blocks of an observation, if one was read: the recipe does not say.
    check(
        |report| report.corpora[0].samples = 4,
        &name,
        &["    [calibration]\n    samples = 4\n    sequence_len = 2048\n    seed = 7\n"],
    );
    check(
        |report| text(report, &|read| read.files = 3),
        &name,
        &["--calibration TEXTS\n", "TEXTS is a folder with the files"],
    );
    let rendering = moeprune_core::Rendering {
        template: None,
        system: Some("Be kind.".into()),
        tools: Some("ab".into()),
    };
    check(
        |report| text(report, &|read| read.rendering = Some(rendering.clone())),
        &name,
        &["--system 'Be kind.' --tools tools.json\n", "tools.json has the SHA-256 `ab`."],
    );
    check(
        |report| report.corpora[0].read = None,
        &name,
        &[
            "    moeprune prune model OUT --recipe recipe.toml --observation observation.safetensors\n",
        ],
    );
}

#[test]
fn commands_without_text() {
    let name = base(None, "model");
    let without = |report: &mut Report| report.corpora.clear();
    check(
        without,
        &name,
        &[
            "No text was run through the model",
            "    moeprune plan model --recipe recipe.toml -o plan.json\n    moeprune apply model OUT --plan plan.json\n",
            "was chosen without text",
        ],
    );
    let listed = |report: &mut Report| {
        without(report);
        report.recipe.experts.criterion = "keep-list".into();
    };
    check(
        listed,
        &name,
        &[
            "    moeprune prune model OUT --recipe recipe.toml --keep keep.json\n",
            "keep.json is the list",
        ],
    );
}
