//! Codes have no room for new values: experts are selected where others would be averaged, and averages and
//! reconstructions that were asked for are refused.

use moeprune::{
    CalibrationTexts, Error, Execution, FromRecipe as _, Inputs, Job, Pipeline, Progress, Recipe,
    Registry, Remedy, Resume, Run, Study, apply,
    checkpoint::Checkpoint,
    compare::{Measures, Variant},
    core::Plan,
    plan,
    search::Search,
};

use crate::scratch::{asset, recipe, tokens};

/// The notes of a run.
#[derive(Debug, Default)]
struct Notes(Vec<String>);

impl Progress for Notes {
    fn note(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

impl Notes {
    #[track_caller]
    fn check(&self, words: &str) {
        assert!(self.0.iter().any(|note| note.contains(words)), "{words}: {:?}", self.0);
    }
}

fn model(name: &str) -> Checkpoint {
    Checkpoint::open(&asset("quantised").join(name)).unwrap()
}

/// A recipe that leaves two groups in each layer of a model.
fn leaving_two(source: &Checkpoint, survivor: &str) -> Recipe {
    let layers = source.spec().layers.iter();
    let experts = layers.filter_map(|layer| layer.moe()).map(|moe| moe.experts).max().unwrap();
    let share = 1.0 - 2.0 / experts as f64;
    by(survivor, share)
}

fn by(survivor: &str, share: f64) -> Recipe {
    let mut recipe = recipe(share, share);
    recipe.experts.survivor = survivor.parse().unwrap();
    Registry::built_in().resolve(&mut recipe).unwrap();
    recipe
}

fn made(source: &Checkpoint, recipe: &Recipe, notes: &mut Notes) -> Result<Plan, Error> {
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let execution = Execution::cpu();
    let mut job = Job::new(source, &pipeline, &execution, notes);
    let plan = plan(&mut job, recipe, None)?;
    Ok(job.choose_survivors(&plan)?)
}

#[test]
fn one_expert_of_each_group_is_selected_by_default() {
    for name in ["fp8_block_qwen3_moe", "gptq_mixtral", "mxfp4_gpt_oss", "nvfp4_ct_qwen3_moe"] {
        for survivor in ["nearest", "nearest:average_at_most=auto"] {
            let mut notes = Notes::default();
            let source = model(name);
            let plan = made(&source, &leaving_two(&source, survivor), &mut notes).unwrap();
            assert!(plan.layers.iter().all(|layer| layer.survivors.len() == 2), "{name}");
            let mut survivors = plan.layers.iter().flat_map(|layer| &layer.survivors);
            assert!(survivors.all(|survivor| survivor.average_of.is_empty()), "{name}");
            notes.check("one expert of each group stays");
        }
    }
}

#[test]
fn models_in_numbers_are_averaged_as_before() {
    let source = Checkpoint::open(&asset("parity/mixtral_sharded")).unwrap();
    let mut notes = Notes::default();
    let plan = made(&source, &leaving_two(&source, "nearest"), &mut notes).unwrap();
    assert!(plan.layers.iter().flat_map(|l| &l.survivors).any(|s| !s.average_of.is_empty()));
    assert!(notes.0.is_empty(), "{:?}", notes.0);
}

#[test]
fn averages_that_were_asked_for_are_refused() {
    let source = model("fp8_block_qwen3_moe");
    for survivor in ["average", "nearest:average_at_most=2"] {
        let error =
            made(&source, &leaving_two(&source, survivor), &mut Notes::default()).unwrap_err();
        let Error::Engine(refused) = &error else { panic!("{survivor}: {error}") };
        assert_eq!(refused.remedy(), Some(Remedy::SelectOne), "{survivor}: {error}");
        assert!(error.is_refusal() && error.to_string().contains("is stored as"), "{error}");
    }
}

#[test]
fn a_variant_that_cannot_be_made_is_left_out() {
    let (source, scratch) = (model("fp8_block_qwen3_moe"), tempfile::tempdir().unwrap());
    let text = tokens(scratch.path(), 4, 16, source.spec().vocab as u64);
    let variant = |survivor: &str| Variant { name: survivor.to_owned(), recipe: by(survivor, 0.5) };
    let measures = Measures { text: Some(&text), sequence_len: Some(16), ..Measures::default() };
    let (registry, execution, mut notes) =
        (Registry::built_in(), Execution::cpu(), Notes::default());
    let mut study = Study::new(&source, &registry, &execution, &mut notes);
    let found = study.compare(None, &[variant("average"), variant("nearest")], &measures).unwrap();
    let names: Vec<&str> = found.cuts.iter().map(|cut| cut.criterion.as_str()).collect();
    assert_eq!(names, ["none", "nearest"]);
    let error = study.compare(None, &[variant("average")], &measures).unwrap_err();
    assert!(matches!(error, Error::Variant { .. }), "{error}");
    notes.check("average is left out: layer");
}

#[test]
fn a_candidate_that_cannot_be_made_is_left_out() {
    let (source, scratch) = (model("fp8_block_qwen3_moe"), tempfile::tempdir().unwrap());
    let mut recipe = by("average", 0.5);
    recipe.calibration.samples = 4;
    recipe.calibration.sequence_len = 16;
    let text = tokens(scratch.path(), 16, 16, source.spec().vocab as u64);
    let (registry, execution, mut notes) =
        (Registry::built_in(), Execution::cpu(), Notes::default());
    let texts = CalibrationTexts::from(&text);
    let texts = texts.read_for_search(&source, &recipe, &mut notes).unwrap();
    let mut study = Study::new(&source, &registry, &execution, &mut notes);
    let what = Search { experts: true, allocation: false };
    let (chosen, report) = study.search(&texts, &recipe, what).unwrap();
    assert!(!report.candidates.is_empty());
    assert!(
        report.candidates.iter().all(|c| c.criterion.name != "stun" || c.expert_sparsity == 0.0)
    );
    assert!(report.candidates.iter().any(|c| c.chosen), "{chosen:?}");
    notes.check("is left out: layer");
}

#[test]
fn reconstructions_are_refused_before_any_work() {
    let check = |error: Error| {
        let Error::Engine(refused) = &error else { panic!("{error}") };
        assert_eq!(refused.remedy(), Some(Remedy::MaskOnly), "{error}");
        assert!(error.to_string().contains("proj.weight` is stored as fp8"), "{error}");
    };
    let source = model("fp8_block_qwen3_moe");
    let (mut recipe, mut notes) = (recipe(0.3, 0.0), Notes::default());
    recipe.weights.scorer = "magnitude".into();
    let planned = made(&source, &recipe, &mut notes).unwrap();
    recipe.weights.scorer = "sparsegpt".into();
    check(made(&source, &recipe, &mut notes).unwrap_err());
    // A plan that was made elsewhere.
    let scratch = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    let execution = Execution::cpu();
    let mut job = Job::new(&source, &pipeline, &execution, &mut notes);
    let out = scratch.path().join("out");
    let run = Run::claim(&out, &source, Resume::No).unwrap();
    check(apply(&mut job, run, &planned, Inputs::None).unwrap_err());
    assert!(!out.exists());
}
