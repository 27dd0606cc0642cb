//! What is observed, against what the public pruners made of the same models and tokens.

use std::ops::ControlFlow;

use moeprune_capture::{ObserverOptions, StoredLayer, TokenBlocks, embed_blocks};
use moeprune_core::{CorpusTag, LayerObservation, LinearShape, Observation, TensorId};
use moeprune_model::{Compute, Embedding, Layer, NoSink};
use safetensors::SafeTensors;

use crate::parity::{Family, Weights, asset, name, observe_whole, spec};

struct Reference(Vec<u8>);

impl Reference {
    fn load(pruning: &str) -> Self {
        Self(std::fs::read(asset(&format!("e2e/{pruning}.safetensors"))).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn calibration(&self) -> Vec<Vec<u32>> {
        let tensors = self.tensors();
        let calib = tensors.tensor("calib").unwrap();
        let ids: Vec<u32> = calib
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|&b| u32::try_from(i64::from_le_bytes(b)).unwrap())
            .collect();
        ids.chunks(calib.shape()[1]).map(<[u32]>::to_vec).collect()
    }

    fn mask(&self, id: TensorId) -> Vec<bool> {
        let tensors = self.tensors();
        let mask = tensors.tensor(&format!("mask.{}", name(id))).unwrap();
        mask.data().iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1 == 1)).collect()
    }

    fn outliers(&self) -> Vec<f64> {
        let tensors = self.tensors();
        let percent = tensors.tensor("owl.outlier_pct").unwrap();
        percent.data().as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect()
    }
}

fn run(family: Family, weights: &Weights, blocks: &[Vec<u32>]) -> Observation {
    let spec = spec(family);
    let blocks = TokenBlocks::new(blocks.to_vec(), spec.vocab).unwrap();
    let tag = CorpusTag {
        name: "calib".into(),
        sha256: "0".repeat(64),
        samples: blocks.blocks().len() as u64,
        sequence_len: blocks.sequence_len() as u64,
        seed: 0,
        repeated: 1,
        read: None,
    };
    let compute = &Compute::cpu();
    let embedding = Embedding::load(weights, &spec, compute).unwrap();
    let mut hidden = embed_blocks(&embedding, &blocks, 1).unwrap();
    let layer = |layer| {
        let stored = StoredLayer { source: weights, spec: &spec, layer, compute };
        let options = ObserverOptions::default();
        let (seen, outputs) = stored
            .observe_and_advance(std::mem::take(&mut hidden), options, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
        hidden = outputs;
        seen.rounded()
    };
    let layers = (0..spec.layers.len()).map(layer).collect();
    Observation { model_fingerprint: "small".to_owned(), corpora: vec![tag], layers }
}

/// Wanda's metric of one row: |weight| times the norm of the input feature, averaged over calls.
fn metric<'a>(
    seen: &'a LayerObservation,
    linear: LinearShape,
    row: &'a [f32],
) -> impl Iterator<Item = f64> + 'a {
    let moments = seen.input_of(&linear).unwrap();
    let calls = moments.calls as f64;
    row.iter().zip(&moments.sum_squares).map(move |(w, s)| f64::from(w.abs()) * (s / calls).sqrt())
}

fn wanda(
    seen: &LayerObservation,
    linear: LinearShape,
    weights: &[f32],
    pruned: usize,
) -> Vec<bool> {
    let row = |row: &[f32]| {
        let metric: Vec<f64> = metric(seen, linear, row).collect();
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| metric[a].total_cmp(&metric[b]));
        let mut mask = vec![false; row.len()];
        order[..pruned].iter().for_each(|&column| mask[column] = true);
        mask
    };
    weights.chunks(linear.cols).flat_map(row).collect()
}

/// Every mask of a sequential run at 50 % comes out bit for bit, when each layer is watched on
/// what the pruned layers before it give.
fn check_masks(family: Family, pruning: &str) {
    let (reference, spec) = (Reference::load(pruning), spec(family));
    let mut weights = Weights::load(family);
    let blocks = TokenBlocks::new(reference.calibration(), spec.vocab).unwrap();
    let cpu = &Compute::cpu();
    let embedding = Embedding::load(&weights, &spec, cpu).unwrap();
    let mut hidden = embed_blocks(&embedding, &blocks, 1).unwrap();
    let options = ObserverOptions { routing: false, ..ObserverOptions::default() };
    for index in 0..spec.layers.len() {
        let dense = Layer::load(&weights, &spec, index, cpu).unwrap();
        let (seen, outputs) = observe_whole(&dense, &spec, index, &hidden, options);
        assert_eq!((outputs.len(), seen.routing.is_none()), (8, true));
        for linear in spec.linears(index) {
            let id = TensorId::linear(index, linear.id);
            let values = weights.values(id);
            let mask = wanda(&seen, linear, values, linear.cols / 2);
            assert_eq!(mask, reference.mask(id), "{id}");
            values.iter_mut().zip(mask).filter(|(_, pruned)| *pruned).for_each(|(w, _)| *w = 0.0);
        }
        let pruned = Layer::load(&weights, &spec, index, cpu).unwrap();
        for state in &mut hidden {
            *state = pruned.forward(state, 0, None, &mut NoSink).unwrap();
        }
    }
}

#[test]
fn masks_of_mixtral_are_the_reference_s() {
    check_masks(Family::Mixtral, "mixtral_wanda50_stun");
}

#[test]
fn masks_of_arctic_are_the_reference_s() {
    check_masks(Family::Arctic, "arctic_wanda50_upstream");
}

/// OWL's outliers pool all metrics of a layer, so they pin the scale of every sum and its calls.
fn check_outliers(family: Family, pruning: &str) {
    let (reference, spec) = (Reference::load(pruning), spec(family));
    let mut weights = Weights::load(family);
    let seen = run(family, &weights, &reference.calibration());
    for (index, expected) in reference.outliers().into_iter().enumerate() {
        let mut pooled = Vec::new();
        for linear in spec.linears(index) {
            for row in weights.values(TensorId::linear(index, linear.id)).chunks(linear.cols) {
                pooled.extend(metric(&seen.layers[index], linear, row));
            }
        }
        let mean = pooled.iter().sum::<f64>() / pooled.len() as f64;
        let above = pooled.iter().filter(|&&m| m > 5.0 * mean).count();
        let got = 100.0 * above as f64 / pooled.len() as f64;
        assert!((got - expected).abs() < 1e-9, "layer {index}: {got} for {expected}");
    }
}

#[test]
fn outliers_of_mixtral_are_the_reference_s() {
    check_outliers(Family::Mixtral, "mixtral_owl65_upstream");
}

#[test]
fn outliers_of_arctic_are_the_reference_s() {
    check_outliers(Family::Arctic, "arctic_owl65_stun");
}

/// The router's choices that `ref.safetensors` has for two sequences of 24 tokens.
fn check_routing(family: Family, folder: &str) {
    let bytes = std::fs::read(asset(&format!("parity/{folder}/ref.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let longs = |name: &str| -> Vec<usize> {
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), safetensors::Dtype::I64);
        let longs = tensor.data().as_chunks().0;
        longs.iter().map(|&b| i64::from_le_bytes(b).try_into().unwrap()).collect()
    };
    let ids: Vec<u32> = longs("input_ids").into_iter().map(|id| id as u32).collect();
    let blocks: Vec<Vec<u32>> = ids.chunks(24).map(<[u32]>::to_vec).collect();
    let seen = run(family, &Weights::load(family), &blocks);
    for (index, layer) in seen.layers.iter().enumerate() {
        let routing = layer.routing.as_ref().unwrap();
        let chosen = longs(&format!("router.{index}.idx"));
        let weights = tensors.tensor(&format!("router.{index}.weight")).unwrap();
        let weights = weights.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
        let (mut counts, mut pairs, mut gates) = ([0; 8], [0; 64], [0.0; 8]);
        for (&expert, weight) in chosen.iter().zip(weights) {
            counts[expert] += 1;
            gates[expert] += f64::from(weight);
        }
        for pair in chosen.chunks(2) {
            pairs[pair[0] * 8 + pair[1]] += 1;
            pairs[pair[1] * 8 + pair[0]] += 1;
        }
        assert_eq!((routing.tokens, routing.top_k), (48, 2));
        assert_eq!(routing.counts, counts);
        assert_eq!(routing.coactivation, pairs);
        for (expert, (&got, expected)) in routing.gate_sums.iter().zip(gates).enumerate() {
            assert!((got - expected).abs() < 1e-5, "{got} for {expected}");
            let (gated, norm) = (routing.gated_output_norms[expert], routing.output_norms[expert]);
            assert!(gated <= norm && (norm > 0.0) == (counts[expert] > 0));
        }
    }
}

#[test]
fn routing_of_mixtral_is_the_reference_s() {
    check_routing(Family::Mixtral, "mixtral");
}

#[test]
fn routing_of_arctic_is_the_reference_s() {
    check_routing(Family::Arctic, "arctic");
}

#[test]
fn any_number_of_threads_sees_the_same() {
    let reference = Reference::load("arctic_wanda50_upstream");
    let (weights, blocks) = (Weights::load(Family::Arctic), reference.calibration());
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(Family::Arctic, &weights, &blocks))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(8));
}

#[test]
fn halves_add_up_to_the_whole() {
    let reference = Reference::load("mixtral_wanda50_stun");
    let (weights, blocks) = (Weights::load(Family::Mixtral), reference.calibration());
    let part = |blocks| run(Family::Mixtral, &weights, blocks);
    let (whole, mut halves) = (part(&blocks), part(&blocks[..4]));
    halves.add(&part(&blocks[4..])).unwrap();
    let close = |a: &[f64], b: &[f64]| {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-9 * b.abs()) && a.len() == b.len()
    };
    for (sum, whole) in halves.layers.iter().zip(&whole.layers) {
        let (a, b) = (sum.routing.as_ref().unwrap(), whole.routing.as_ref().unwrap());
        assert_eq!((a.tokens, &a.counts, &a.coactivation), (b.tokens, &b.counts, &b.coactivation));
        assert!(close(&a.gate_sums, &b.gate_sums));
        assert!(close(&a.output_norms, &b.output_norms));
        assert!(close(&a.gated_output_norms, &b.gated_output_norms));
        assert!(sum.inputs.keys().eq(whole.inputs.keys()));
        for (a, b) in sum.inputs.values().zip(whole.inputs.values()) {
            assert_eq!((a.tokens, a.calls), (b.tokens, b.calls));
            assert!(close(&a.sum_squares, &b.sum_squares));
        }
    }
}
