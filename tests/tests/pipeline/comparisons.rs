//! Cuts that are measured without being written, against those that are.

use moeprune::{
    Calibration, CalibrationTexts, Evaluation, Execution, FromRecipe, Inputs, Job, Pipeline,
    Recipe, Registry, Resume, Run, Silent, Study, apply,
    checkpoint::Checkpoint,
    compare::{Measures, Variant},
    core::Sparsity,
    eval::DivergenceReport,
    evaluate,
    evaluation::{
        PERPLEXITY,
        against::{Against, evaluate_against},
    },
    plan,
    search::{Search, most_evaluations},
};

use crate::scratch::{asset, observe, recipe, tokens, widened};

struct Seen {
    source: Checkpoint,
    observation: moeprune::core::Observation,
    text: std::path::PathBuf,
    scratch: tempfile::TempDir,
}

fn seen(model: &str) -> Seen {
    let scratch = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&asset(model)).unwrap();
    let text = tokens(scratch.path(), 8, 64, source.spec().vocab as u64);
    let calibration = Calibration::read(&text, &source, &recipe(0.5, 0.25)).unwrap();
    let observation = observe(&source, &calibration).unwrap();
    Seen { source, observation, text, scratch }
}

/// What is found of a cut that was written, with statistics of the same observation.
struct Written {
    perplexity: f64,
    divergence: DivergenceReport,
    bytes: u64,
    removed: f64,
}

fn written(seen: &Seen, recipe: &Recipe) -> Written {
    let out = seen.scratch.path().join("out");
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let observed = Some(&seen.observation);
    let execution = Execution::cpu();
    let mut silent = Silent;
    let mut job = Job::new(&seen.source, &pipeline, &execution, &mut silent);
    let plan = plan(&mut job, recipe, observed).unwrap();
    let run = Run::claim(&out, &seen.source, Resume::No).unwrap();
    let inputs = Inputs::Observation(&seen.observation);
    let report = apply(&mut job, run, &plan, inputs).unwrap();
    let what = Evaluation {
        task: PERPLEXITY,
        data: &seen.text,
        limit: None,
        fewshot: None,
        fewshot_data: None,
        batch: 1,
        sequence_len: Some(64),
    };
    let pruned = Checkpoint::open(&out).unwrap();
    let score = evaluate(&pruned, &what, &execution, &mut Silent).unwrap();
    let (reference, data, limit) = (&seen.source, seen.text.as_path(), None);
    let against = Against { reference, data, limit, sequence_len: Some(64) };
    let divergence = evaluate_against(&pruned, against, &execution, &mut Silent).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    let perplexity = score.metric(PERPLEXITY).unwrap();
    Written {
        perplexity,
        divergence,
        bytes: report.bytes.after,
        removed: report.sparsity.achieved.all,
    }
}

#[test]
fn a_cut_in_memory_is_the_cut_on_disk() {
    for model in ["parity/arctic", "parity/mixtral_sharded"] {
        let seen = seen(model);
        let registry = Registry::built_in();
        for (criterion, total, survivor) in [
            ("stun", 0.5, "nearest"),
            ("reap", 0.25, "nearest"),
            ("stun", 0.25, "weighted-average"),
            ("frequency", 0.6, "nearest"),
        ] {
            let mut recipe = recipe(total, 0.25);
            recipe.experts.criterion = criterion.into();
            recipe.experts.survivor = survivor.into();
            recipe.weights.statistics = moeprune::recipe::Statistics::Stored;
            let Written { perplexity, divergence, bytes, removed } = written(&seen, &recipe);
            let variants = [Variant { name: criterion.into(), recipe }];
            let measures =
                Measures { text: Some(&seen.text), sequence_len: Some(64), ..Measures::default() };
            let (observed, execution) = (Some(&seen.observation), Execution::cpu());
            let mut silent = Silent;
            let mut study = Study::new(&seen.source, &registry, &execution, &mut silent);
            let found = study.compare(observed, &variants, &measures).unwrap();
            let cut = &found.cuts[1];
            let off = (cut.perplexity.unwrap() / perplexity - 1.0).abs();
            assert!(off < 1e-9, "{model} {criterion}: {:?} and {perplexity}", cut.perplexity);
            assert_eq!(found.cuts[0].divergence, None);
            let seen = cut.divergence.unwrap();
            assert!((seen.kl - divergence.kl).abs() < 1e-9 && seen.kl > 0.0, "{seen:?}");
            assert_eq!((seen.agreement, seen.kl_stderr.is_some()), (divergence.agreement, true));
            assert!((divergence.perplexity / perplexity - 1.0).abs() < 1e-6, "{divergence:?}");
            // Files have headers, which are not counted.
            assert!(cut.bytes.abs_diff(bytes) < 60_000, "{} and {bytes}", cut.bytes);
            let parameters = found.cuts[0].parameters as f64;
            let left = 1.0 - cut.parameters as f64 / parameters;
            assert!((left - removed).abs() < 2e-3, "{left} and {removed}");
            assert!(moeprune_page::render(&found).unwrap().contains("<svg"));
        }
    }
}

/// Experts of a model in f32 take twice the bytes.
#[test]
fn sizes_are_of_the_type_that_weights_are_stored_in() {
    let scratch = tempfile::tempdir().unwrap();
    let narrow = Checkpoint::open(&asset("parity/arctic")).unwrap();
    let wide = Checkpoint::open(&widened("parity/arctic", scratch.path())).unwrap();
    let variants = [Variant { name: "stun".into(), recipe: recipe(0.5, 0.5) }];
    let sizes = |source: &Checkpoint| -> Vec<u64> {
        let (registry, measures, execution) =
            (Registry::built_in(), Measures::default(), Execution::cpu());
        let found = Study::new(source, &registry, &execution, &mut Silent)
            .compare(None, &variants, &measures);
        found.unwrap().cuts.iter().map(|cut| cut.bytes).collect()
    };
    let (narrow, wide) = (sizes(&narrow), sizes(&wide));
    assert_eq!(wide, [2 * narrow[0], 2 * narrow[1]]);
    assert!(narrow[1] < narrow[0]);
}

#[test]
fn a_search_is_bounded_repeatable_and_no_worse_than_what_it_tried() {
    let seen = seen("parity/arctic");
    let mut recipe = recipe(0.6, 0.2);
    recipe.sparsity = Sparsity::new(0.6).unwrap();
    let what = Search { experts: true, allocation: true };
    let registry = Registry::built_in();
    let run = || {
        let execution = Execution::cpu();
        let mut silent = Silent;
        let texts = CalibrationTexts::from(&seen.text);
        let texts = texts.read_for_search(&seen.source, &recipe, &mut Silent).unwrap();
        let mut study = Study::new(&seen.source, &registry, &execution, &mut silent);
        study.search(&texts, &recipe, what).unwrap()
    };
    let (found, report) = run();
    assert_eq!(run(), (found.clone(), report.clone()));
    assert_eq!((report.observed_blocks, report.held_out_blocks), (6, 2));
    assert!(report.candidates.len() <= most_evaluations(what), "{}", report.candidates.len());
    // Any choice reaches the total.
    let mut asked = found.clone();
    asked.weights.statistics = moeprune::recipe::Statistics::Stored;
    for candidate in &report.candidates {
        asked.experts.sparsity = Sparsity::new(candidate.expert_sparsity).unwrap();
        asked.experts.criterion = candidate.criterion.clone();
        assert!(asked.prunes_weights(), "{candidate:?}");
    }
    let all = written(&seen, &found).removed;
    assert!((0.5..0.6).contains(&all), "0.6 of the Linears is {all} of all parameters");
    let chosen: Vec<_> = report.candidates.iter().filter(|c| c.chosen).collect();
    assert_eq!(chosen.len(), 1);
    assert!(report.candidates.iter().all(|c| c.nll >= chosen[0].nll));
    assert_eq!(found.experts.sparsity.value(), chosen[0].expert_sparsity);
    assert_eq!(found.sparsity, recipe.sparsity);
    assert_eq!(found.weights.statistics, recipe.weights.statistics);
}

#[test]
fn reconstructions_need_more_than_an_observation() {
    let seen = seen("parity/arctic");
    let mut recipe = recipe(0.5, 0.0);
    recipe.weights.scorer = "sparsegpt".into();
    let variants = [Variant { name: "sparsegpt".into(), recipe }];
    let measures = Measures { text: Some(&seen.text), ..Measures::default() };
    let (observed, execution) = (Some(&seen.observation), Execution::cpu());
    let registry = Registry::built_in();
    let error = Study::new(&seen.source, &registry, &execution, &mut Silent)
        .compare(observed, &variants, &measures)
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not held of a model that is written nowhere"), "{error}");
}
