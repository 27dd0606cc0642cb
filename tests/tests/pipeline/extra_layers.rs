//! Layers behind the decoder's: pruned, kept and dropped.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use moeprune::{
    Execution, FromRecipe as _, Inputs, Job, Pipeline, Recipe, Report, Resume, Run, Silent, apply,
    checkpoint::{Checkpoint, VerifyReport, verify},
    core::{ExtraPolicy, Plan},
    plan,
    recipe::Mtp,
};

use crate::scratch::{copy, recipe};

/// The layer behind the decoder's of each model used here.
const MTP: usize = 3;

/// A copy of a model, with the config that its publisher wrote.
fn open(name: &str, directory: &Path) -> Checkpoint {
    let model = copy(&format!("parity/{name}"), directory);
    fs::rename(model.join("config.hub.json"), model.join("config.json")).unwrap();
    fs::remove_file(model.join("ref.safetensors")).unwrap();
    Checkpoint::open(&model).unwrap()
}

fn asking(share: f64, mtp: Option<Mtp>) -> Recipe {
    let mut recipe = recipe(share, share);
    recipe.experts.mtp = mtp;
    recipe
}

fn planned(source: &Checkpoint, recipe: &Recipe) -> Result<Plan, moeprune::Error> {
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    plan(&mut Job::new(source, &pipeline, &Execution::cpu(), &mut Silent), recipe, None)
}

fn applied(source: &Checkpoint, plan: &Plan, out: &Path) -> Result<Report, moeprune::Error> {
    let pipeline = Pipeline::arctic();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(source, &pipeline, &cpu, &mut silent);
    apply(&mut job, Run::claim(out, source, Resume::No)?, plan, Inputs::None)
}

fn failures(report: &VerifyReport) -> Vec<&str> {
    report.failures().map(|check| &*check.name).collect()
}

/// The files in which tensors of the extra layer are.
fn files(model: &Checkpoint) -> BTreeSet<&str> {
    let extra = model.tensors().filter(|tensor| model.is_extra(tensor));
    extra.map(|tensor| &*tensor.file).collect()
}

/// Prunes a third of the experts; `expected` are those that the extra layer has then, if it is there.
fn check(name: &str, mtp: Option<Mtp>, expected: Option<usize>) {
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) = (open(name, scratch.path()), scratch.path().join("out"));
    let made = planned(&source, &asking(0.3, mtp)).unwrap();
    let written: Plan = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
    assert_eq!(written, made);
    let report = applied(&source, &made, &out).unwrap();
    let pruned = Checkpoint::open(&out).unwrap();
    assert_eq!(pruned.spec().moe_of(MTP).map(|moe| moe.experts), expected, "{name}");
    for plan in [Some(&made), None] {
        let checked = verify(&out, &source, plan).unwrap();
        assert!(checked.passed(), "{name}: {:?}", checked.failures().collect::<Vec<_>>());
    }
    let count = format!("\"num_nextn_predict_layers\": {}", usize::from(expected.is_some()));
    assert!(pruned.config_text().contains(&count), "{}", pruned.config_text());

    let extra = report.extra.unwrap();
    let policy = if expected.is_some() { ExtraPolicy::Prune } else { ExtraPolicy::Drop };
    assert_eq!((made.extra, extra.policy), (Some(policy), policy));
    let kept: Vec<usize> = extra.layers.iter().map(|layer| layer.kept.len()).collect();
    assert_eq!(kept, Vec::from_iter(expected));
    assert!(report.serving.iter().any(|sentence| sentence.contains("multi-token prediction")));
    if name == "glm4_moe" && expected.is_some() {
        assert_eq!(
            (files(&source), files(&pruned)),
            (["mtp.safetensors"].into(), ["mtp.safetensors"].into())
        );
    }
}

#[test]
fn pruned_unless_something_else_is_asked_for() {
    check("deepseek_v3", None, Some(8));
    check("deepseek_v3", Some(Mtp::Prune), Some(8));
    check("glm4_moe", None, Some(7));
    check("glm4_moe_lite", None, Some(7));
}

#[test]
fn dropped() {
    check("deepseek_v3", Some(Mtp::Drop), None);
    check("glm4_moe", Some(Mtp::Drop), None);
    check("glm4_moe_lite", Some(Mtp::Drop), None);
}

/// Survivors are the same number of each of the router's groups.
#[test]
fn groups_lose_the_same_number() {
    let scratch = tempfile::tempdir().unwrap();
    let made = planned(&open("deepseek_v3", scratch.path()), &asking(0.34, None)).unwrap();
    let of_mtp = made.layers.iter().find(|layer| layer.layer == MTP).unwrap();
    let groups: Vec<usize> = of_mtp.survivors.iter().map(|survivor| survivor.source / 3).collect();
    assert_eq!(groups, [0, 0, 1, 1, 2, 2, 3, 3]);
    assert!(!of_mtp.is_open());
}

#[test]
fn kept_only_where_no_expert_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let source = open("deepseek_v3", scratch.path());
    let error = planned(&source, &asking(0.34, Some(Mtp::Keep))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 3, behind the decoder's, would have 12 experts and the others 8, but engines build \
         all of them with the one number in config.json; have the layers behind the decoder's pruned \
         or dropped"
    );
    let made = planned(&source, &asking(0.0, Some(Mtp::Keep))).unwrap();
    assert_eq!((made.extra, made.layers.len()), (Some(ExtraPolicy::Keep), 0));
    let out = scratch.path().join("out");
    applied(&source, &made, &out).unwrap();
    let pruned = Checkpoint::open(&out).unwrap();
    for tensor in source.tensors() {
        let read = |of: &Checkpoint| of.tensor_by_name(&tensor.name).unwrap().into_bytes();
        assert!(read(&source) == read(&pruned), "{}", tensor.name);
    }
    assert_eq!(source.config_text(), pruned.config_text());
}

/// What a plan from before has: nothing about layers behind the decoder's.
fn without_extra(plan: &Plan) -> Plan {
    let layers = plan.layers.iter().filter(|layer| layer.layer < MTP).cloned().collect();
    Plan { extra: None, layers, ..plan.clone() }
}

#[derive(Debug, Default)]
struct Notes(Vec<String>);

impl moeprune::Progress for Notes {
    fn note(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

#[test]
fn an_old_plan_keeps_them_and_a_new_one_makes_up_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) = (open("glm4_moe", scratch.path()), scratch.path().join("out"));
    let old = without_extra(&planned(&source, &asking(0.3, None)).unwrap());
    let (pipeline, cpu, mut notes) = (Pipeline::arctic(), Execution::cpu(), Notes::default());
    let mut job = Job::new(&source, &pipeline, &cpu, &mut notes);
    apply(&mut job, Run::claim(&out, &source, Resume::No).unwrap(), &old, Inputs::None).unwrap();
    assert!(notes.0.iter().any(|note| note.contains("is copied with all its 10 experts")));
    assert!(verify(&out, &source, Some(&old)).unwrap().passed());

    // The result opens though its layers disagree, and is put right.
    let left = Checkpoint::open(&out).unwrap();
    assert_eq!([2, MTP].map(|layer| left.spec().moe_of(layer).unwrap().experts), [7, 10]);
    let made = planned(&left, &asking(0.0, None)).unwrap();
    let again = scratch.path().join("again");
    applied(&left, &made, &again).unwrap();
    assert!(verify(&again, &left, Some(&made)).unwrap().passed());
    assert_eq!(Checkpoint::open(&again).unwrap().spec().moe_of(MTP).unwrap().experts, 7);
}

#[test]
fn plans_that_contradict_themselves_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) = (open("deepseek_v3", scratch.path()), scratch.path().join("out"));
    let made = planned(&source, &asking(0.34, None)).unwrap();
    let refused = |change: &dyn Fn(&mut Plan), expected: &str| {
        let mut plan = made.clone();
        change(&mut plan);
        let error = applied(&source, &plan, &out).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&|plan| plan.extra = Some(ExtraPolicy::Drop), "such layers are to be dropped");
    refused(&|plan| plan.extra = Some(ExtraPolicy::Keep), "such layers are to be kept");
    refused(&|plan| drop(plan.layers.pop()), "would have 12 experts and the others 8");
    refused(&|plan| plan.layers[2].layer = 4, "layer 4 does not exist");
}

/// Changes a byte of a tensor of a written model.
fn damage(model: &Path, name: &str) {
    let path: PathBuf = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let offset = json[name]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + offset] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn verification_looks_into_them() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) = (open("deepseek_v3", scratch.path()), scratch.path().join("out"));
    let made = planned(&source, &asking(0.34, None)).unwrap();
    applied(&source, &made, &out).unwrap();
    let check = |name: &str, expected: &str| {
        let name = format!("model.layers.3.{name}.weight");
        damage(&out, &name);
        assert_eq!(failures(&verify(&out, &source, Some(&made)).unwrap()), [expected], "{name}");
        damage(&out, &name);
    };
    check("mlp.gate", "routers");
    check("mlp.experts.7.up_proj", "experts");
    check("self_attn.o_proj", "attention and dense MLPs");
    check("eh_proj", "embeddings, norms, head");

    let other = Plan { extra: Some(ExtraPolicy::Drop), ..without_extra(&made) };
    assert_eq!(failures(&verify(&out, &source, Some(&other)).unwrap()), ["architecture"]);
    let other = Plan { extra: Some(ExtraPolicy::Keep), ..without_extra(&made) };
    assert_eq!(failures(&verify(&out, &source, Some(&other)).unwrap()), ["architecture"]);
}

/// A count that the tensors contradict is an error that names both.
#[test]
fn counts_that_disagree() {
    let check = |from: &str, to: &str, expected: Option<&str>| {
        let scratch = tempfile::tempdir().unwrap();
        drop(open("deepseek_v3", scratch.path()));
        let config = scratch.path().join("model/config.json");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace(from, to)).unwrap();
        match (Checkpoint::open(&scratch.path().join("model")), expected) {
            (Ok(model), None) => assert_eq!(model.spec().extra_layers(), MTP..MTP + 1),
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{error}")
            }
            (got, expected) => panic!("{:?}, expected {expected:?}", got.map(|_| "it opens")),
        }
    };
    let one = "\"num_nextn_predict_layers\": 1";
    let two = "\"num_nextn_predict_layers\": 2";
    check(one, two, Some("`num_nextn_predict_layers` in config.json says 2 layers"));
    // They are there all the same.
    check(one, "\"num_nextn_predict_layers\": 0", None);
}

/// Layers that are stored are known although no key of the config counts them, and none is added.
#[test]
fn layers_that_the_config_does_not_count() {
    for (name, mtp) in [
        ("glm4_moe_lite", None),
        ("glm_moe_dsa", Some(Mtp::Prune)),
        ("glm4_moe_lite", Some(Mtp::Drop)),
        ("glm_moe_dsa", Some(Mtp::Drop)),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let model = copy(&format!("parity/{name}"), scratch.path());
        fs::remove_file(model.join("ref.safetensors")).unwrap();
        let (source, out) = (Checkpoint::open(&model).unwrap(), scratch.path().join("out"));
        let made = planned(&source, &asking(0.3, mtp)).unwrap();
        let report = applied(&source, &made, &out).unwrap();
        let pruned = Checkpoint::open(&out).unwrap();
        let is_left = mtp != Some(Mtp::Drop);
        let kept = pruned.spec().moe_of(2).map(|moe| moe.experts).filter(|_| is_left);
        assert_eq!(pruned.spec().moe_of(MTP).map(|moe| moe.experts), kept, "{name} {mtp:?}");
        assert_eq!(pruned.spec().extra.is_some(), is_left, "{name} {mtp:?}");
        assert!(!pruned.config_text().contains("nextn"), "{name} {mtp:?}");
        assert_eq!(report.extra.unwrap().layers.len(), usize::from(is_left));
        assert!(verify(&out, &source, Some(&made)).unwrap().passed(), "{name} {mtp:?}");
        let keep = planned(&source, &asking(0.3, Some(Mtp::Keep))).unwrap_err().to_string();
        assert!(keep.contains("layer 3, behind the decoder's, would have"), "{keep}");
    }
}

/// Layers that the config counts and that are not stored: `drop` has it count none.
#[test]
fn layers_that_are_not_stored() {
    for (mtp, count) in
        [(None, 1), (Some(Mtp::Prune), 1), (Some(Mtp::Keep), 1), (Some(Mtp::Drop), 0)]
    {
        let scratch = tempfile::tempdir().unwrap();
        let model = copy("parity/moonlight", scratch.path());
        let config = model.join("config.json");
        let key = |count: usize| format!("\"num_nextn_predict_layers\": {count}");
        let text = fs::read_to_string(&config).unwrap().replace(&key(0), &key(1));
        fs::write(&config, &text).unwrap();
        fs::remove_file(model.join("ref.safetensors")).unwrap();
        let (source, out) = (Checkpoint::open(&model).unwrap(), scratch.path().join("out"));
        let made = planned(&source, &asking(0.3, mtp)).unwrap();
        let report = applied(&source, &made, &out).unwrap();
        let pruned = Checkpoint::open(&out).unwrap();
        assert!(pruned.config_text().contains(&key(count)), "{mtp:?}");
        assert!(verify(&out, &source, Some(&made)).unwrap().passed(), "{mtp:?}");
        let says = if count == 0 { "it no longer counts them" } else { "it still counts them" };
        assert!(report.serving.iter().any(|sentence| sentence.contains(says)), "{mtp:?}");
    }
}
