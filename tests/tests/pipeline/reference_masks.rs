//! Masks of the published Wanda and OWL code, bit for bit, through the whole pipeline.

use std::{fmt::Write as _, fs, path::Path};

use candle_core::DType;
use moeprune::{
    Execution, Recipe,
    checkpoint::Checkpoint,
    core::Sparsity,
    model::{Compute, LanguageModel},
};
use safetensors::SafeTensors;

use crate::scratch::{asset, run_on};

pub(crate) struct Reference {
    bytes: Vec<u8>,
}

impl Reference {
    pub(crate) fn read(name: &str) -> Self {
        Self { bytes: fs::read(asset("e2e").join(format!("{name}.safetensors"))).unwrap() }
    }

    pub(crate) fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        let ids = tensor.data().chunks_exact(8);
        let ids: Vec<u32> = ids.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
        ids.chunks(tensor.shape()[1]).map(<[u32]>::to_vec).collect()
    }

    /// Which weights of a tensor of this many columns are pruned.
    pub(crate) fn mask(&self, tensor: &str, cols: usize) -> Vec<bool> {
        let tensors = self.tensors();
        let packed = tensors.tensor(&format!("mask.{tensor}")).unwrap();
        let (rows, packed_cols) = (packed.shape()[0], packed.shape()[1]);
        let bit = |i: usize| {
            let byte = packed.data()[i / cols * packed_cols + i % cols / 8];
            byte >> (7 - i % cols % 8) & 1 == 1
        };
        (0..rows * cols).map(bit).collect()
    }

    /// A tensor of f32.
    pub(crate) fn f32s(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let bytes = tensors.tensor(name).unwrap();
        let values = bytes.data().chunks_exact(4);
        values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Writes the calibration ids as a token file.
    pub(crate) fn calibration(&self, directory: &Path) -> std::path::PathBuf {
        let mut lines = String::new();
        for block in self.ids("calib") {
            writeln!(lines, "{{\"tokens\":{block:?}}}").unwrap();
        }
        let path = directory.join("calib.jsonl");
        fs::write(&path, lines).unwrap();
        path
    }
}

/// On the CPU as it is, and through the code that devices take: weights stay where they are and
/// are zeroed there, several blocks go through a layer together. In f64, as no GPU is needed then.
fn check(model: &str, reference: &str, ratio: f64, allocation: &str) {
    check_on(&Execution::cpu(), model, reference, ratio, allocation);
    let device = Execution::on(Compute::cpu_in(DType::F64), Some(3));
    check_on(&device, model, reference, ratio, allocation);
}

fn check_on(execution: &Execution, model: &str, reference: &str, ratio: f64, allocation: &str) {
    let reference = Reference::read(reference);
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let mut recipe = Recipe::reference();
    recipe.weights.ratio = Some(Sparsity::new(ratio).unwrap());
    recipe.weights.allocation = allocation.parse().unwrap();
    recipe.calibration.samples = 8;
    recipe.calibration.sequence_len = 64;
    let model = asset("parity").join(model);
    run_on(execution, &model, &out, &reference.calibration(scratch.path()), &recipe).unwrap();

    let (source, pruned) = (Checkpoint::open(&model).unwrap(), Checkpoint::open(&out).unwrap());
    let tensors = reference.tensors();
    let mut compared = 0;
    for name in tensors.names().into_iter().filter_map(|name| name.strip_prefix("mask.")) {
        let before = source.tensor_by_name(name).unwrap();
        let cols = before.shape()[1];
        let mask = reference.mask(name, cols);
        let masked = |i: usize| mask[i];
        let before = before.to_f32().unwrap();
        let expected: Vec<f32> =
            before.iter().enumerate().map(|(i, w)| if masked(i) { 0.0 } else { *w }).collect();
        let got = pruned.tensor_by_name(name).unwrap().to_f32().unwrap();
        let wrong = expected.iter().zip(&got).filter(|(a, b)| a != b).count();
        assert_eq!(wrong, 0, "{name}: {wrong} of {} weights differ", got.len());
        compared += 1;
    }
    assert!(compared > 80, "only {compared} masks in the reference");

    let language_model = LanguageModel::load(&pruned, pruned.spec(), &Compute::cpu()).unwrap();
    let logits = language_model.logits(&reference.ids("input_ids")).unwrap();
    let got = logits.iter().flat_map(|l| l.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    for (got, expected) in got.zip(reference.f32s("logits")) {
        assert!((got - expected).abs() < 1e-4, "logit {got}, reference {expected}");
    }
}

#[test]
fn mixtral_wanda_50() {
    check("mixtral", "mixtral_wanda50_stun", 0.5, "uniform");
}

#[test]
fn mixtral_owl_65() {
    check("mixtral", "mixtral_owl65_upstream", 0.65, "owl:mean=reference");
}

#[test]
fn arctic_wanda_50() {
    check("arctic", "arctic_wanda50_upstream", 0.5, "uniform");
}

#[test]
fn arctic_owl_65() {
    check("arctic", "arctic_owl65_stun", 0.65, "owl:mean=reference");
}
