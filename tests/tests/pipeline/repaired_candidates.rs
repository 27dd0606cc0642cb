//! Candidates that are repaired, in a comparison or a search, are the models that runs by their recipes write.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use moeprune::{
    CalibrationTexts, Execution, PlanInputs, Recipe, Registry, Silent, Study,
    capture::TokenBlocks,
    checkpoint::Checkpoint,
    compare::{Measures, Variant},
    search::{Search, SearchTexts},
};

use crate::scratch::{asset, observe, recipe, run, tokens};

const SAMPLES: usize = 48;
const LENGTH: usize = 32;

/// Half of the experts by REAP, the others repaired, and weights zeroed up to the total.
fn repaired(total: f64) -> Recipe {
    let mut recipe = recipe(total, 0.5);
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (SAMPLES, LENGTH);
    recipe.experts.criterion = "reap".into();
    recipe.repair = "refit".into();
    recipe
}

/// Enough blocks for a calibration, those that a repair holds out, and those that a search scores on.
fn text(scratch: &Path, source: &Checkpoint) -> PathBuf {
    tokens(scratch, 2 * SAMPLES, LENGTH, source.spec().vocab as u64)
}

/// The perplexity of a whole checkpoint.
fn perplexity(checkpoint: &Path, text: &Path) -> f64 {
    let source = Checkpoint::open(checkpoint).unwrap();
    let (registry, execution) = (Registry::built_in(), Execution::cpu());
    let measures = Measures { text: Some(text), sequence_len: Some(LENGTH), ..Measures::default() };
    let mut silent = Silent;
    let mut study = Study::new(&source, &registry, &execution, &mut silent);
    let found = study.compare(None, &[], &measures).unwrap();
    found.cuts[0].perplexity.unwrap()
}

#[track_caller]
fn check_compared(model: &str, change: impl Fn(&mut Recipe)) {
    let scratch = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&asset(model)).unwrap();
    let text = text(scratch.path(), &source);
    let mut recipe = repaired(0.7);
    change(&mut recipe);
    let calibration = CalibrationTexts::from(&text).read(&source, &recipe, &mut Silent).unwrap();
    let observation = observe(&source, &calibration).unwrap();
    let inputs = PlanInputs { observation: Some(&observation), calibration: Some(&calibration) };
    let variants = [Variant { name: "repaired".into(), recipe: recipe.clone() }];
    let measures = Measures {
        text: Some(&text),
        sequence_len: Some(LENGTH),
        skip_unpruned: true,
        ..Measures::default()
    };
    let (registry, execution) = (Registry::built_in(), Execution::cpu());
    let mut silent = Silent;
    let mut study = Study::new(&source, &registry, &execution, &mut silent);
    let found = study.compare(inputs, &variants, &measures).unwrap();

    let out = scratch.path().join("out");
    run(&asset(model), &out, &text, &recipe).unwrap();
    let (compared, written) = (found.cuts[0].perplexity.unwrap(), perplexity(&out, &text));
    assert_eq!(compared.to_bits(), written.to_bits(), "{model}: {compared} and {written}");
}

#[test]
fn a_repaired_cut_in_memory_is_the_one_on_disk() {
    check_compared("parity/arctic", |_| ());
    check_compared("parity/mixtral", |recipe| recipe.weights.allocation = "uniform".into());
    // A shared expert, a sigmoid router and experts in groups.
    check_compared("parity/deepseek_v3", |recipe| recipe.experts.criterion = "stun".into());
    // What leads away from a latent width reads what all experts write.
    check_compared("parity/nemotron_h", |_| ());
    check_compared("parity/mixtral", |recipe| recipe.experts.sparsity = recipe.sparsity);
}

#[test]
fn what_a_search_chooses_is_what_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let model = asset("parity/arctic");
    let source = Checkpoint::open(&model).unwrap();
    let text = text(scratch.path(), &source);
    let recipe = repaired(0.6);
    let texts = CalibrationTexts::from(&text);
    let texts = texts.read_for_search(&source, &recipe, &mut Silent).unwrap();
    let (registry, execution) = (Registry::built_in(), Execution::cpu());
    let mut silent = Silent;
    let mut study = Study::new(&source, &registry, &execution, &mut silent);
    let what = Search { experts: true, allocation: false };
    let (chosen, report) = study.search(&texts, &recipe, what).unwrap();
    assert_eq!((report.observed_blocks, report.held_out_blocks), (SAMPLES, SAMPLES / 4));
    let candidate = report.candidates.iter().find(|candidate| candidate.chosen).unwrap();

    let out = scratch.path().join("out");
    run(&model, &out, &text, &chosen).unwrap();
    let scored = scratch.path().join("scored.jsonl");
    let line = |block: &Vec<u32>| format!("{{\"tokens\":{block:?}}}\n");
    fs::write(&scored, texts.scored.blocks().iter().map(line).collect::<String>()).unwrap();
    let written = perplexity(&out, &scored);
    assert_eq!(candidate.nll.exp().to_bits(), written.to_bits(), "{candidate:?} and {written}");
}

/// Blocks of documents of these lengths in which no token is twice, for a search.
fn searched(lengths: &[u32], samples: usize, repair: &str) -> Result<SearchTexts, moeprune::Error> {
    let scratch = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&asset("parity/arctic")).unwrap();
    let mut next = 0..;
    let mut line = |&length: &u32| {
        let ids: Vec<u32> = next.by_ref().take(length as usize).collect();
        format!("{{\"tokens\":{ids:?}}}\n")
    };
    let text = scratch.path().join("text.jsonl");
    fs::write(&text, lengths.iter().map(&mut line).collect::<String>()).unwrap();
    let mut recipe = repaired(0.6);
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (samples, 4);
    recipe.repair = repair.into();
    CalibrationTexts::from(&text).read_for_search(&source, &recipe, &mut Silent)
}

#[test]
fn no_candidate_is_scored_on_what_it_is_made_of() {
    let check = |lengths: &[u32], samples, repair, expected: (usize, usize)| {
        let SearchTexts { calibration, scored } = searched(lengths, samples, repair).unwrap();
        let made_of = &calibration.blocks;
        assert_eq!((made_of.blocks().len(), scored.blocks().len()), expected);
        assert_eq!(calibration.tag.samples as usize, expected.0);
        let repair = calibration.repair.iter().flat_map(|repair| &repair.texts);
        let of_repair: Vec<&TokenBlocks> =
            repair.flat_map(|text| [&text.fitted, &text.held_out]).flatten().collect();
        let ids = |blocks: &TokenBlocks| blocks.blocks().concat();
        let mut taken: BTreeSet<u32> = ids(made_of).into_iter().collect();
        taken.extend(of_repair.iter().flat_map(|blocks| ids(blocks)));
        assert!(ids(&scored).iter().all(|id| !taken.contains(id)), "{lengths:?}, {samples}");
        let fitted = calibration.repair.as_ref().and_then(|repair| repair.texts[0].fitted.as_ref());
        assert!(fitted.is_none_or(|fitted| ids(fitted) == ids(made_of)));
    };
    // From random places: a block that a calibration overlaps is none to score on.
    for repair in ["none", "refit"] {
        check(&[250], 12, repair, (12, 3));
        check(&[50; 5], 8, repair, (8, 2));
        check(&[3; 80], 8, repair, (8, 2));
        // Ready-made blocks, the next ones if there are enough.
        check(&[4; 12], 8, repair, (8, 2));
        check(&[4; 8], 8, repair, (6, 2));
    }
    check(&[4; 9], 8, "none", (6, 2));
    check(&[4; 10], 8, "none", (8, 2));
    check(&[4; 10], 8, "refit", (6, 2));
    let refused = |lengths: &[u32], samples, expected: &str| {
        let error = searched(lengths, samples, "refit").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&[20], 40, "is too short for any beside its 40 calibration blocks");
    refused(&[4; 3], 3, "there are only 3");
}
