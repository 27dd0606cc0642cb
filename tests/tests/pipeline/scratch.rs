//! Checkpoints and calibration files to try things on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use moeprune::{
    Calibration, Execution, FromRecipe, Job, OutputPlace, Pipeline, Recipe, Report, Resume, Silent,
    checkpoint::Checkpoint,
    core::{Observation, Sparsity},
    prune,
};
use safetensors::{SafeTensors, tensor::TensorView};

/// A checkpoint of the repository's assets.
pub(crate) fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets").join(name)
}

/// A copy of a checkpoint that may be damaged.
pub(crate) fn copy(name: &str, directory: &Path) -> PathBuf {
    let target = directory.join("model");
    fs::create_dir(&target).unwrap();
    for entry in fs::read_dir(asset(name)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
        }
    }
    target
}

/// A copy of a checkpoint of one bf16 file with all weights in f32, the same numbers.
pub(crate) fn widened(name: &str, directory: &Path) -> PathBuf {
    let target = copy(name, directory);
    let path = target.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let wide: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            // A bf16 number is the upper half of the f32 one.
            let widen = |b: &[u8]| [0, 0, b[0], b[1]];
            let values = tensor.data().chunks_exact(2).flat_map(widen).collect();
            (name.to_owned(), tensor.shape().to_vec(), values)
        })
        .collect();
    let views = wide.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let config = target.join("config.json");
    let text = fs::read_to_string(&config).unwrap().replace("\"bfloat16\"", "\"float32\"");
    fs::write(config, text).unwrap();
    target
}

/// Makes an element of a bf16 matrix not a number, and tells its place as errors do.
pub(crate) fn damage(model: &Path, name: &str, element: usize) -> String {
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let offset = json[name]["data_offsets"][0].as_u64().unwrap() as usize;
    let columns = json[name]["shape"][1].as_u64().unwrap() as usize;
    let start = 8 + header + offset + 2 * element;
    bytes[start..start + 2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    format!("row {}, column {}", element / columns, element % columns)
}

/// A token file with blocks of pseudo-random ids.
pub(crate) fn tokens(directory: &Path, blocks: usize, length: usize, vocab: u64) -> PathBuf {
    let mut state = 1u64;
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % vocab
    };
    let lines: String = (0..blocks)
        .map(|_| {
            let ids: Vec<u64> = (0..length).map(|_| draw()).collect();
            format!("{{\"tokens\":{ids:?}}}\n")
        })
        .collect();
    let path = directory.join("tokens.jsonl");
    fs::write(&path, lines).unwrap();
    path
}

/// The default recipe at these shares, on 8 blocks of 64 tokens.
pub(crate) fn recipe(total: f64, experts: f64) -> Recipe {
    let mut recipe = Recipe::arctic();
    recipe.sparsity = Sparsity::new(total).unwrap();
    recipe.experts.sparsity = Sparsity::new(experts).unwrap();
    recipe.calibration.samples = 8;
    recipe.calibration.sequence_len = 64;
    recipe
}

/// Runs the built-in pipeline of a recipe.
pub(crate) fn run(
    model: &Path,
    out: &Path,
    calibration: &Path,
    recipe: &Recipe,
) -> Result<Report, moeprune::Error> {
    run_on(&Execution::cpu(), model, out, calibration, recipe)
}

/// The same on a device of choice.
pub(crate) fn run_on(
    execution: &Execution,
    model: &Path,
    out: &Path,
    calibration: &Path,
    recipe: &Recipe,
) -> Result<Report, moeprune::Error> {
    let source = Checkpoint::open(model)?;
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let to = OutputPlace { origin: &source, path: out, resume: Resume::No };
    prune(&mut Job::new(&source, &pipeline, execution, &mut Silent), to, calibration, recipe)
}

/// What a model does on calibration text, on the CPU.
pub(crate) fn observe(
    model: &Checkpoint,
    calibration: &Calibration,
) -> Result<Observation, moeprune::Error> {
    let (pipeline, cpu) = (Pipeline::from_recipe(&Recipe::arctic()).unwrap(), Execution::cpu());
    Ok(Job::new(model, &pipeline, &cpu, &mut Silent).observe(calibration)?)
}
