//! Criteria, recipes, blends and comparisons as a user meets them.

use std::fs;

use crate::command::{CALIBRATION, Scratch};

fn observed() -> Scratch {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("observe model {CALIBRATION} --domain left -o a.obs"));
    let other = fs::read_to_string(scratch.path("tokens.jsonl")).unwrap().replace("1,", "3,");
    fs::write(scratch.path("other.jsonl"), other).unwrap();
    let calibration = CALIBRATION.replace("tokens", "other");
    scratch.ok(&format!("observe model {calibration} --domain right -o b.obs"));
    scratch
}

#[track_caller]
fn refused(scratch: &Scratch, arguments: &str, expected: &[&str]) {
    let ran = scratch.run(arguments);
    assert_ne!(ran.code, 0, "moeprune {arguments}: {}", ran.stdout);
    for expected in expected {
        assert!(ran.stderr.contains(expected), "no `{expected}` in: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

#[test]
fn names_and_parameters_that_are_unknown_are_answered_with_what_was_meant() {
    let scratch = observed();
    let plan = "plan model --observation a.obs -o plan.json";
    refused(&scratch, &format!("{plan} --criterion raep"), &["did you mean `reap`?"]);
    refused(&scratch, &format!("{plan} --similarity outputs:x=1"), &["`x`", "takes none"]);
    let owl = format!("{plan} --allocation owl:lamda=0.1");
    refused(&scratch, &owl, &["did you mean `lambda`?"]);
    refused(&scratch, &format!("{plan} --allocation owl:lambda=2"), &["below 1"]);
    refused(&scratch, &format!("{plan} --pattern 4:2"), &["2 of 4"]);
    refused(&scratch, &format!("{plan} --recipe nowhere.toml"), &["arctic, reap, hc-smoe"]);
    fs::write(scratch.path("bad.toml"), "[experts]\nsparsty = 0.1\n").unwrap();
    refused(&scratch, &format!("{plan} --recipe bad.toml"), &["bad.toml", "`sparsity`?"]);
    assert!(!scratch.path("plan.json").exists());
}

#[test]
fn options_override_a_recipe_and_the_plan_says_everything() {
    let scratch = observed();
    let recipe = "sparsity = 0.5\n[experts]\nsparsity = 0.25\ncriterion = \"reap\"\n\
                  [weights]\nallocation = { name = \"owl\", lambda = 0.1 }\n";
    fs::write(scratch.path("mine.toml"), recipe).unwrap();
    scratch.ok(
        "plan model --observation a.obs --recipe mine.toml --criterion ean:over=mean -o p.json",
    );
    let plan: serde_json::Value =
        serde_json::from_slice(&fs::read(scratch.path("p.json")).unwrap()).unwrap();
    let (experts, weights) = (&plan["recipe"]["experts"], &plan["recipe"]["weights"]);
    assert_eq!(experts["criterion"], serde_json::json!({"name": "ean", "over": "mean"}));
    assert_eq!(weights["allocation"]["lambda"], 0.1);
    assert_eq!(weights["allocation"]["multiplier"], 5.0);
    assert_eq!(plan["layers"][0]["dropped"].as_array().unwrap().len(), 2);
    let ran = scratch.ok("recipe check mine.toml");
    assert!(ran.stdout.contains("lambda = 0.1") && ran.stdout.contains("multiplier = 5.0"));
}

#[test]
fn what_cannot_be_done_is_refused_before_any_work() {
    let scratch = observed();
    let prune = format!("prune model out {CALIBRATION}");
    let exhaustive = "--criterion exhaustive:most_subsets=10 --expert-sparsity 0.25";
    refused(&scratch, &format!("{prune} {exhaustive}"), &["more than the 10 that are allowed"]);
    refused(&scratch, "plan model --expert-sparsity auto -o p.json", &["auto is for `prune`"]);
    refused(&scratch, &format!("{prune} --pattern 2:4 --sparsity 0.5"), &["leave one of them out"]);
    let stored = "--scorer sparsegpt --statistics stored";
    refused(&scratch, &format!("{prune} {stored}"), &["which inputs come together"]);
    let names = scratch.names();
    assert_eq!(names, ["a.obs", "b.obs", "model", "other.jsonl", "tokens.jsonl"]);
}

#[test]
fn nothing_removed_is_said() {
    let scratch = observed();
    let prune = format!("prune model {CALIBRATION} --repair none");
    let weights = scratch.ok(&format!("{prune} a --sparsity 0.3 --expert-sparsity 0.05"));
    assert!(weights.stderr.contains("no expert is removed: 5.00 % of 8"), "{}", weights.stderr);
    assert!(weights.stdout.contains("No expert was removed:"), "{}", weights.stdout);
    let copy = scratch.ok(&format!("{prune} b --sparsity 0 --expert-sparsity 0"));
    let said = "Nothing was removed and no weight was zeroed: the checkpoint takes as much";
    assert!(copy.stdout.contains(said), "{}", copy.stdout);
    assert!(!copy.stdout.contains("smaller"), "{}", copy.stdout);
    let less = scratch.ok(&format!("{prune} d --sparsity 0.00001 --expert-sparsity 0"));
    assert!(less.stdout.contains(said), "{}", less.stdout);
    assert!(less.stdout.contains("less than one weight of any row"), "{}", less.stdout);
    let experts = scratch.ok(&format!("{prune} c --sparsity 0.125 --expert-sparsity 0.125"));
    assert!(experts.stdout.contains("only whole experts were removed"), "{}", experts.stdout);
}

#[test]
fn blends_and_coverage() {
    let scratch = observed();
    let ran = scratch.ok("blend a.obs=3 b.obs=1 -o mix.obs");
    insta::assert_snapshot!("blend", ran.stdout);
    let cut = "--recipe reap --sparsity 0.5 --expert-sparsity 0.5 --quiet";
    let two = "--observation a.obs=3 --observation b.obs=1";
    let ran = scratch.ok(&format!("plan model {cut} {two} -o two.json"));
    insta::assert_snapshot!("coverage", ran.stdout);
    scratch.ok(&format!("plan model {cut} --observation mix.obs -o one.json"));
    let read = |name: &str| fs::read_to_string(scratch.path(name)).unwrap();
    assert_eq!(read("one.json"), read("two.json"), "blended before or while planning");
    scratch.ok(&format!("plan model {cut} {two} --domains max-min -o lifted.json"));
    refused(
        &scratch,
        &format!("plan model {cut} --observation a.obs --domains max-min -o x.json"),
        &["give two observations"],
    );
    refused(&scratch, "blend a.obs=x -o y.obs", &["FILE=WEIGHT"]);
    refused(&scratch, "blend a.obs=0 b.obs=0 -o y.obs", &["all weights are zero"]);
}

#[test]
fn an_observation_of_another_model_is_refused() {
    let scratch = observed();
    let other = Scratch::new("mixtral");
    other.ok(&format!("observe model {CALIBRATION} -o other.obs"));
    fs::copy(other.path("other.obs"), scratch.path("other.obs")).unwrap();
    let plan = "plan model --recipe reap --observation other.obs -o p.json";
    refused(&scratch, plan, &["another model", "observe this model"]);
    refused(&scratch, "blend a.obs other.obs -o mix.obs", &["different models"]);
}

#[test]
fn recipes_that_are_built_in_are_shown_as_they_are_written() {
    let scratch = Scratch::new("arctic");
    for name in ["arctic", "reap", "hc-smoe", "reference"] {
        let ran = scratch.ok(&format!("recipe show {name}"));
        assert!(ran.stdout.starts_with("# "), "{name}");
        fs::write(scratch.path("shown.toml"), &ran.stdout).unwrap();
        scratch.ok("recipe check shown.toml");
    }
    insta::assert_snapshot!("stages", scratch.ok("recipe stages").stdout);
    let schema = scratch.ok("recipe schema").stdout;
    serde_json::from_str::<serde_json::Value>(&schema).unwrap();
}

#[test]
fn compare_prints_and_saves_a_table() {
    let scratch = observed();
    let ran = scratch
        .ok("compare model --observation a.obs --cuts 0.25,0.5 --criteria stun,reap,hc-smoe \
         --text tokens.jsonl --json table.json --html page.html --quiet");
    assert_eq!(ran.stdout.matches("hc-smoe").count(), 2, "{}", ran.stdout);
    assert!(ran.stdout.contains("unpruned"), "{}", ran.stdout);
    let page = fs::read_to_string(scratch.path("page.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("<script"));
    let table: serde_json::Value =
        serde_json::from_slice(&fs::read(scratch.path("table.json")).unwrap()).unwrap();
    assert_eq!(table["cuts"].as_array().unwrap().len(), 7);
    refused(
        &scratch,
        "compare model --cuts 0.5 --text tokens.jsonl --criteria reap",
        &["needs an observation"],
    );
    refused(&scratch, "compare model --observation a.obs --cuts 0.5", &["nothing to measure"]);
}

#[test]
fn a_search_is_in_the_report() {
    let scratch = Scratch::new("arctic");
    let auto = "--sparsity 0.6 --expert-sparsity auto --allocation auto";
    let ran = scratch.ok(&format!("prune model out {CALIBRATION} {auto} --quiet"));
    assert!(ran.stdout.contains("chosen"), "{}", ran.stdout);
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(scratch.path("out/moeprune-report.json")).unwrap())
            .unwrap();
    let candidates = report["search"]["candidates"].as_array().unwrap();
    let chosen = candidates.iter().find(|c| c["chosen"] == true).unwrap();
    assert_eq!(chosen["expert_sparsity"], report["recipe"]["experts"]["sparsity"]);
    refused(
        &scratch,
        "prune model more --calibration tokens.jsonl --samples 3 --seq-len 32 --expert-sparsity auto",
        &["a quarter of the calibration blocks"],
    );
}

#[test]
fn experts_chosen_in_turn_take_text() {
    let scratch = observed();
    let plan = "plan model -o p.json --criterion reap --sparsity 0.5 --expert-sparsity 0.5";
    let sequential = format!("{plan} --expert-statistics sequential");
    refused(&scratch, &sequential, &["once the layers before it", "pass --calibration FILE"]);
    let observation = format!("{sequential} --observation a.obs");
    refused(&scratch, &observation, &["no observation", "--expert-statistics independent"]);
    let both = format!("{observation} {CALIBRATION}");
    refused(&scratch, &both, &["no observation", "--expert-statistics independent"]);
    let text = format!("{sequential} {CALIBRATION}");
    refused(&scratch, &format!("{text} --budget global"), &["use --budget uniform"]);
    let protects = format!("{text} --protect-super-experts");
    refused(&scratch, &protects, &["use --expert-statistics independent"]);
    let exhaustive = text.replace("reap", "exhaustive");
    refused(&scratch, &exhaustive, &["`exhaustive` chooses otherwise"]);
    assert!(!scratch.path("p.json").exists());
    scratch.ok(&text);
    scratch.ok("apply model out --plan p.json");
    scratch.ok("verify out --source model");
    let independent = format!("{plan} {CALIBRATION} --expert-statistics independent");
    refused(&scratch, &independent.replace("p.json", "q.json"), &["--calibration is for"]);
}
