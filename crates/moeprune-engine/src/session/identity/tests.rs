//! What a run may be resumed with.

use std::fmt;

use moeprune_core::{
    BoundScorer, LayerProfile, LinearView, Sparsity, SparsityAllocator, StageError, TextFacts,
    WeightScorer,
};
use moeprune_score::{Magnitude, PerRow, Rounding};
use serde_json::json;

use crate::{ExpertStage, Scored, Stage, WeightStage};

use super::*;

fn begun() -> RunIdentity {
    let recipe = json!({ "experts": { "sparsity": 0.2 }, "weights": {} });
    RunIdentity { command: "prune".into(), recipe, ..RunIdentity::default() }
}

fn check(change: impl FnOnce(&mut RunIdentity), expected: &[&str]) {
    let mut other = begun();
    change(&mut other);
    assert_eq!(begun().changes(&other), expected);
}

/// Prints nothing of its parameter.
#[derive(Debug)]
struct Hides;

impl WeightScorer for Hides {
    fn bind<'a>(
        &'a self,
        linear: &LinearView<'a>,
    ) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
        Magnitude.bind(linear)
    }
}

/// Prints its address.
struct Moves(Box<u8>);

impl fmt::Debug for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Moves at {:p}", self.0)
    }
}

impl SparsityAllocator for Moves {
    fn allocate(
        &self,
        layers: &[LayerProfile],
        ratio: Sparsity,
    ) -> Result<Vec<Sparsity>, StageError> {
        Ok(vec![ratio; layers.len()])
    }
}

fn with(scorer: Stage<dyn WeightScorer>) -> RunIdentity {
    let pipeline = Pipeline {
        experts: ExpertStage::Searched { most_subsets: 1 },
        repair: None,
        weights: WeightStage::Scored(Scored {
            scorer,
            pattern: Stage::identified(Box::new(PerRow), "row".into()),
            rounding: Rounding::Exact,
        }),
        refit: None,
        allocator: Stage::identified(Box::new(Moves(Box::new(0))), "moves".into()),
    };
    RunIdentity::default().with_recipe(&Value::Null, &pipeline)
}

#[test]
fn stages_are_told_apart_by_their_identity_and_not_by_how_they_print() {
    let hides = |power: f64| -> RunIdentity {
        let identity = json!({ "name": "hides", "power": power });
        with(Stage::identified(Box::new(Hides), identity))
    };
    let nothing: [&str; 0] = [];
    assert_eq!(hides(1.0).changes(&hides(1.0)), nothing);
    assert_eq!(
        hides(1.0).changes(&hides(2.0)),
        ["the scorer was {\"name\":\"hides\",\"power\":1.0}, and is \
          {\"name\":\"hides\",\"power\":2.0} now"]
    );
    let unknown = || with(Stage::new(Box::new(Hides)));
    assert_eq!(unknown().changes(&unknown()).len(), 1);
}

#[test]
fn conversations_that_are_put_otherwise_are_a_change() {
    let tag = |rendering: Option<Rendering>| CorpusTag {
        name: "chats".into(),
        sha256: "b2".into(),
        samples: 8,
        sequence_len: 64,
        seed: 0,
        repeated: 1,
        read: Some(TextFacts { rendering, ..TextFacts::default() }),
    };
    let run =
        |rendering: Option<Rendering>| RunIdentity { calibration: Some(tag(rendering)), ..begun() };
    let plain = Rendering::default;
    let check = |is: Rendering, expected: &str| {
        let what = "how conversations are made text was plainly, and is";
        let changes = run(Some(plain())).changes(&run(Some(is)));
        assert_eq!(changes, [format!("{what} {expected} now")]);
    };
    let some = |text: &str| Some(text.to_owned());
    check(
        Rendering { template: some("c3"), ..plain() },
        "by a chat template (SHA-256 of its files c3)",
    );
    check(
        Rendering { system: some("be brief"), ..plain() },
        "plainly with the system message \"be brief\"",
    );
    check(Rendering { tools: some("d4"), ..plain() }, "plainly with the tools \"d4\"");
    assert_eq!(run(None).changes(&run(None)), Vec::<String>::new());
    assert_eq!(run(Some(plain())).changes(&run(Some(plain()))), Vec::<String>::new());
}

#[test]
fn says_what_changed() {
    check(|_| {}, &[]);
    check(|run| run.command = "apply".into(), &["the command was prune, and is apply now"]);
    check(
        |run| run.recipe["experts"]["sparsity"] = 0.25.into(),
        &["the recipe's experts.sparsity was 0.2, and is 0.25 now"],
    );
    check(
        |run| run.recipe["weights"]["ratio"] = 0.5.into(),
        &["the recipe's weights.ratio was absent, and is 0.5 now"],
    );
    check(
        |run| run.spec = Some("c3".into()),
        &["what config.json and the family descriptor say (SHA-256) was none, and is c3 now"],
    );
    check(|run| run.plan = Some("a1".into()), &["the plan was none, and is a1 now"]);
    let tag = CorpusTag {
        name: "c4".into(),
        sha256: "b2".into(),
        samples: 8,
        sequence_len: 64,
        seed: 0,
        repeated: 1,
        read: None,
    };
    check(
        |run| run.calibration = Some(tag),
        &[
            "the calibration file's SHA-256 was none, and is b2 now",
            "the number of calibration blocks was none, and is 8 now",
            "the length of a calibration block was none, and is 64 now",
            "the calibration seed was none, and is 0 now",
        ],
    );
    let scorer = |run: &mut RunIdentity, identity: Option<Value>| {
        run.stages.insert("scorer".into(), identity);
    };
    check(|run| scorer(run, Some("mine".into())), &["the scorer was absent, and is \"mine\" now"]);
    check(
        |run| scorer(run, None),
        &["the scorer has no identity, so nothing says that it is still the same: register it, \
           or make it with `Stage::identified`"],
    );
}

/// A file whose time and hashes are these, against one of time 1 with hashes `a` and `A`.
#[track_caller]
fn check_file(time: i64, hashes: Option<(&str, Option<&str>)>, expected: &[&str]) {
    let of = |time, hashes: Option<(&str, Option<&str>)>| {
        let contents = hashes.into_iter().map(|(sampled, whole)| ContentHash {
            name: "w".into(),
            sampled: sampled.into(),
            whole: whole.map(str::to_owned),
        });
        let file = FileIdentity { name: "w".into(), bytes: 9, modified: time };
        let (files, contents) = (vec![file], contents.collect());
        RunIdentity { files, contents, ..RunIdentity::default() }
    };
    let whole = of(1, Some(("a", Some("A"))));
    assert_eq!(whole.changes(&of(time, hashes)), expected);
    // A journal that was begun is read again as it was.
    let text = serde_json::to_string(&whole).unwrap();
    assert_eq!(serde_json::from_str::<RunIdentity>(&text).unwrap(), whole);
}

#[test]
fn files_are_known_by_hashes_and_without_them_by_time() {
    let other = ["the model's w has other bytes now"];
    check_file(1, Some(("a", Some("A"))), &[]);
    check_file(2, Some(("a", Some("A"))), &[]);
    check_file(2, Some(("a", None)), &[]);
    for time in [1, 2] {
        check_file(time, Some(("b", Some("A"))), &other);
        check_file(time, Some(("b", None)), &other);
        check_file(time, Some(("a", Some("B"))), &other);
    }
    check_file(1, None, &[]);
    check_file(2, None, &["the model's w was written to since"]);
}

#[test]
fn all_bytes_are_compared_only_if_they_were_hashed_at_first() {
    let of = |whole: Option<&str>| RunIdentity {
        files: vec![FileIdentity { name: "w".into(), bytes: 9, modified: 1 }],
        contents: vec![ContentHash {
            name: "w".into(),
            sampled: "a".into(),
            whole: whole.map(str::to_owned),
        }],
        ..RunIdentity::default()
    };
    let changes = of(None).changes(&of(Some("A")));
    assert!(changes.len() == 1 && changes[0].contains("begun without --rehash"), "{changes:?}");
}

/// Begun before hashes were recorded.
#[test]
fn older_journals_go_by_times() {
    let text = r#"{"command":"prune","tool":"t","model":"m","recipe":null,"calibration":null,"plan":null,
        "observation":null,"files":[{"name":"w","bytes":9,"modified":1}]}"#;
    let older: RunIdentity = serde_json::from_str(text).unwrap();
    let mut now = older.clone();
    now.contents =
        vec![ContentHash { name: "w".into(), sampled: "a".into(), whole: Some("A".into()) }];
    assert!(older.changes(&now).is_empty());
    now.files[0].modified = 2;
    assert_eq!(older.changes(&now), ["the model's w was written to since"]);
}

#[test]
fn another_tokenizer_is_another_run() {
    let run = |tokens: Option<&str>| RunIdentity { tokens: tokens.map(str::to_owned), ..begun() };
    assert_eq!(run(Some("a")).changes(&run(Some("a"))), Vec::<String>::new());
    assert_eq!(run(None).changes(&run(Some("a"))), Vec::<String>::new());
    let changes = run(Some("a")).changes(&run(Some("b")));
    let expected = "what the tokenizer makes of the calibration text (SHA-256) was a, and is b now";
    assert_eq!(changes, [expected]);
}
