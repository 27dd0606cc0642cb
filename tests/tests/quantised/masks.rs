//! Weights zeroed in codes.

use std::{fs, path::Path};

use candle_core::DType;
use moeprune::{
    Execution, FromRecipe as _, Job, OutputPlace, Pipeline, Progress, Recipe, Report, Resume,
    Silent,
    checkpoint::{Checkpoint, verify},
    core::{ParameterCounts, Sparsity, TensorId, TensorSource as _},
    prune,
};
use moeprune_model::Compute;

use crate::fixtures::{Fixture, for_each};

/// Half of what the Linears have, by Wanda with one ratio.
fn recipe() -> Recipe {
    let mut recipe = Recipe::arctic();
    (recipe.sparsity, recipe.experts.sparsity) = (Sparsity::new(0.5).unwrap(), Sparsity::ZERO);
    recipe.weights.allocation = "uniform".into();
    (recipe.calibration.samples, recipe.calibration.sequence_len) = (4, 16);
    recipe
}

pub(crate) fn tokens(directory: &Path) -> std::path::PathBuf {
    let block = |first: usize| (0..16).map(|at| (first + 7 * at) % 128).collect::<Vec<_>>();
    let lines = (0..8).map(|at| format!("{{\"tokens\":{:?}}}\n", block(13 * at)));
    let path = directory.join("tokens.jsonl");
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

fn run(fixture: &Fixture, recipe: &Recipe, out: &Path) -> Result<Report, moeprune::Error> {
    run_on(&Execution::cpu(), &mut Silent, &fixture.dir, recipe, out)
}

fn run_on(
    execution: &Execution,
    progress: &mut dyn Progress,
    model: &Path,
    recipe: &Recipe,
    out: &Path,
) -> Result<Report, moeprune::Error> {
    let source = Checkpoint::open(model)?;
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let to = OutputPlace { origin: &source, path: out, resume: Resume::No };
    let text = tokens(out.parent().unwrap());
    prune(&mut Job::new(&source, &pipeline, execution, progress), to, &text, recipe)
}

/// The share of the decoder Linears whose codes are zero.
fn zero_in_codes(source: &Checkpoint) -> f64 {
    let spec = source.spec();
    let linears = |layer| spec.linears(layer).into_iter().map(move |of| (layer, of.id));
    let linears = (0..spec.layers.len()).flat_map(linears);
    let ids = linears.map(|(layer, linear)| TensorId::linear(layer, linear));
    let in_codes = ids.filter(|id| source.is_in_codes(*id));
    let zeros: u64 = in_codes.map(|id| source.weight(id).unwrap().count_zeros()).sum();
    zeros as f64 / ParameterCounts::of(spec).linears as f64
}

#[test]
fn half_of_the_weights_of_each() {
    for_each(|name, fixture| {
        let scratch = tempfile::tempdir().unwrap();
        let out = scratch.path().join("out");
        let report = run(fixture, &recipe(), &out).unwrap_or_else(|e| panic!("{name}: {e}"));
        let achieved = report.sparsity.achieved.linears;
        assert!((0.45..0.6).contains(&achieved), "{name}: {achieved}");
        let source = Checkpoint::open(&fixture.dir).unwrap();
        let before = report.sparsity.zero_before.unwrap_or_else(|| panic!("{name}"));
        assert!((before - zero_in_codes(&source)).abs() < 1e-12, "{name}: {before}");
        let checked = verify(&out, &source, None).unwrap();
        assert!(checked.passed(), "{name}: {:?}", checked.failures().collect::<Vec<_>>());
    });
}

/// A progress that keeps what is noted.
#[derive(Debug, Default)]
pub(crate) struct Notes(pub(crate) Vec<String>);

impl Progress for Notes {
    fn note(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

/// As on a device: the forward pass is another, the zeros go into the codes all the same.
#[test]
fn half_of_the_weights_where_codes_are_decoded_on_the_host() {
    let execution = Execution::on(Compute::cpu_in(DType::BF16), None);
    for_each(|name, fixture| {
        let scratch = tempfile::tempdir().unwrap();
        let (out, mut notes) = (scratch.path().join("out"), Notes::default());
        let report = run_on(&execution, &mut notes, &fixture.dir, &recipe(), &out);
        let achieved = report.unwrap_or_else(|e| panic!("{name}: {e}")).sparsity.achieved.linears;
        assert!((0.45..0.6).contains(&achieved), "{name}: {achieved}");
        let source = Checkpoint::open(&fixture.dir).unwrap();
        let checked = verify(&out, &source, None).unwrap();
        assert!(checked.passed(), "{name}: {:?}", checked.failures().collect::<Vec<_>>());
        let said = notes.0.iter().filter(|note| note.contains("are decoded on the host"));
        assert_eq!(said.count(), 1, "{name}: {:?}", notes.0);
    });
}

/// Version 1 of GPTQ adds 1 to a stored zero point: of 15 it makes 16, which no code is.
#[test]
fn weights_without_a_zero_stay_and_are_counted() {
    for_each(|name, fixture| {
        if name != "gptq_mixtral" {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let model = scratch.path().join("model");
        fs::create_dir(&model).unwrap();
        for file in ["config.json", "quantize_config.json"] {
            if fixture.dir.join(file).exists() {
                fs::copy(fixture.dir.join(file), model.join(file)).unwrap();
            }
        }
        let mut bytes = fs::read(fixture.dir.join("model.safetensors")).unwrap();
        let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
        let zeros = &header["model.layers.0.block_sparse_moe.experts.2.w1.qzeros"];
        let [groups, words] = [0, 1].map(|at| zeros["shape"][at].as_u64().unwrap() as usize);
        let first = 8 + size + zeros["data_offsets"][0].as_u64().unwrap() as usize;
        (0..groups).for_each(|group| bytes[first + group * words * 4] |= 0x0f);
        fs::write(model.join("model.safetensors"), bytes).unwrap();
        let out = scratch.path().join("out");
        let report = run_on(&Execution::cpu(), &mut Silent, &model, &recipe(), &out).unwrap();
        let said = report.without_zero.unwrap_or_default();
        for part in ["64 weights in 1 Linear ", "layer 0 expert.2.gate", "they stay as they are"] {
            assert!(said.contains(part), "`{part}`: {said}");
        }
        let source = Checkpoint::open(&model).unwrap();
        let report = verify(&out, &source, None).unwrap();
        assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    });
}
