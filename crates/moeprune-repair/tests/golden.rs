//! Against values that were computed in f64 by other code (`assets/repair`).

use std::{collections::BTreeMap, fs, path::Path};

use moeprune_core::{Dtype, ExpertRepair, LayerRepair, LayerToRepair, SurvivingExpert};
use moeprune_linalg::Real;
use moeprune_repair::{InMemoryStore, Layer, MemoryExpert, Refit, Ridge};
use safetensors::{Dtype as Stored, SafeTensors};

const CASES: [&str; 2] = ["refit_top2", "refit_top4"];

struct Case {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    residual: Vec<f64>,
    experts: Vec<SurvivingExpert>,
    /// Activations times gates.
    activations: Vec<Vec<f64>>,
    width: usize,
}

impl Case {
    fn read(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/repair");
        let bytes = fs::read(root.join(format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors: BTreeMap<_, _> = file
            .iter()
            .map(|(name, view)| {
                let size = view.dtype().bitsize() / 8;
                let numbers =
                    view.data().chunks_exact(size).map(|b| number(view.dtype(), b)).collect();
                (name.to_owned(), (view.shape().to_vec(), numbers))
            })
            .collect();
        let mut case = Self {
            residual: Vec::new(),
            experts: Vec::new(),
            activations: Vec::new(),
            width: tensors["target"].0[1],
            tensors,
        };
        case.residual =
            case.of("target").iter().zip(case.of("out_before")).map(|(a, b)| a - b).collect();
        let features = case.tensors["w1"].0[1];
        for expert in 0..case.count() {
            let tokens: Vec<u32> =
                case.of(&format!("rows.{expert}")).iter().map(|&t| t as u32).collect();
            case.activations.push(case.activations_of(expert, &tokens));
            case.experts.push(SurvivingExpert { tokens, features, parts: Vec::new() });
        }
        case
    }

    fn of(&self, name: &str) -> &[f64] {
        &self.tensors[name].1
    }

    /// Experts that stay.
    fn count(&self) -> usize {
        self.tensors.keys().filter(|name| name.starts_with("rows.")).count()
    }

    /// An expert's part of a tensor of all.
    fn part(&self, name: &str, expert: usize) -> &[f64] {
        let (shape, values) = &self.tensors[name];
        let size = shape[1] * shape[2];
        &values[expert * size..][..size]
    }

    fn activations_of(&self, expert: usize, tokens: &[u32]) -> Vec<f64> {
        let gates = self.of(&format!("gate.{expert}"));
        let inputs = self.of("z").chunks_exact(self.width);
        let inputs: Vec<&[f64]> = inputs.collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut activations = Vec::new();
        for (&token, gate) in tokens.iter().zip(gates) {
            let z = inputs[token as usize];
            let gate_rows = self.part("w1", expert).chunks_exact(self.width);
            for (w1, w3) in gate_rows.zip(self.part("w3", expert).chunks_exact(self.width)) {
                let x = dot(w1, z);
                activations.push(gate * (x / (1.0 + (-x).exp())) * dot(w3, z));
            }
        }
        activations
    }

    fn store<T: Real>(&self, weights: impl Fn(usize) -> Vec<f64>) -> InMemoryStore<T> {
        let experts = (0..self.count()).map(|expert| MemoryExpert {
            activations: to(&self.activations[expert]),
            weights: to(&weights(expert)),
            features: self.experts[expert].features,
        });
        InMemoryStore::new(experts.collect())
    }

    fn weights(&self, expert: usize) -> Vec<f64> {
        self.part("w2", expert).to_vec()
    }

    fn masked(&self, expert: usize) -> Vec<f64> {
        let support = self.of(&format!("support.{expert}"));
        self.part("w2", expert).iter().zip(support).map(|(w, s)| w * s).collect()
    }

    /// What is missing once the weights are masked.
    fn masked_residual(&self) -> Vec<f64> {
        let mut residual = self.residual.clone();
        for (expert, survivor) in self.experts.iter().enumerate() {
            let (whole, masked) = (self.weights(expert), self.masked(expert));
            let gone: Vec<f64> = whole.iter().zip(masked).map(|(a, b)| a - b).collect();
            let rows = self.activations[expert].chunks_exact(survivor.features);
            for (row, &token) in rows.zip(&survivor.tokens) {
                for (out, weights) in gone.chunks_exact(survivor.features).enumerate() {
                    let lost = row.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>();
                    residual[token as usize * self.width + out] += lost;
                }
            }
        }
        residual
    }

    fn refit<T: Real>(
        &self,
        refit: Refit,
        store: &InMemoryStore<T>,
        residual: &[f64],
    ) -> LayerRepair {
        let weights: Vec<T> = to(self.of("token_weight"));
        let mut residual = to(residual);
        let mut layer = Layer {
            layer: 7,
            width: self.width,
            residual: &mut residual,
            token_weights: &weights,
            fitted: weights.len(),
            experts: &self.experts,
            store,
        };
        refit.refit(&mut layer).unwrap()
    }

    #[track_caller]
    fn same<T: Real>(&self, name: &str, store: InMemoryStore<T>, tolerance: f64) {
        let largest = self.of("w2").iter().fold(0.0, |most: f64, w| most.max(w.abs()));
        for (expert, weights) in store.into_weights().iter().enumerate() {
            let expected = self.of(&format!("new.{name}.{expert}"));
            let off = weights.iter().zip(expected).map(|(a, b)| (a.to_f64() - b).abs());
            let off = off.fold(0.0, f64::max) / largest;
            assert!(
                off <= tolerance,
                "{name}, expert {expert}: off by {off} of the largest weight"
            );
        }
    }

    #[track_caller]
    fn same_errors(&self, name: &str, repair: &LayerRepair, tolerance: f64) {
        let expected = self.of(&format!("err.{name}"));
        assert_eq!(repair.errors.len(), expected.len(), "{name}");
        for (error, expected) in repair.errors.iter().zip(expected) {
            assert!((error / expected - 1.0).abs() <= tolerance, "{name}: {error}, not {expected}");
        }
    }
}

fn number(dtype: Stored, bytes: &[u8]) -> f64 {
    match dtype {
        Stored::F64 => f64::from_le_bytes(bytes.try_into().unwrap()),
        Stored::F32 => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
        Stored::BF16 => f32::from_le_bytes([0, 0, bytes[0], bytes[1]]).into(),
        Stored::I32 => i32::from_le_bytes(bytes.try_into().unwrap()).into(),
        Stored::U8 => bytes[0].into(),
        other => panic!("{other:?}"),
    }
}

fn to<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&x| T::from_f64(x)).collect()
}

fn fixed(sweeps: usize) -> Refit {
    Refit { sweeps, least_gain: 0.0, ridge: Ridge::Floor, ..Refit::default() }
}

const AUTOMATIC: Refit =
    Refit { sweeps: 4, least_gain: 0.0, ridge: Ridge::Automatic, keep_zeros: false };

fn sweeps<T: Real>(tolerance: f64) {
    for case in CASES.map(Case::read) {
        for sweeps in [1, 2, 5] {
            let name = format!("s{sweeps}");
            let store = case.store::<T>(|expert| case.weights(expert));
            let repair = case.refit(fixed(sweeps), &store, &case.residual);
            case.same_errors(&name, &repair, tolerance);
            case.same(&name, store, tolerance);
            for (expert, floor) in repair.experts.iter().zip(case.of("ridge_floor")) {
                let floor = if expert.ridge == 0.0 { 0.0 } else { *floor };
                assert!((expert.ridge - floor).abs() <= tolerance * floor, "{expert:?}: {floor}");
            }
        }
    }
}

fn automatic<T: Real>(tolerance: f64) {
    for case in CASES.map(Case::read) {
        let store = case.store::<T>(|expert| case.weights(expert));
        let repair = case.refit(AUTOMATIC, &store, &case.residual);
        case.same_errors("auto", &repair, tolerance);
        case.same("auto", store, tolerance);
        for (expert, ridge) in repair.experts.iter().zip(case.of("ridge_evidence")) {
            let off = (expert.ridge / ridge - 1.0).abs();
            assert!(expert.ridge == 0.0 || off <= tolerance, "{expert:?}: {ridge}");
        }
    }
}

fn support<T: Real>(tolerance: f64) {
    for case in CASES.map(Case::read) {
        let store = case.store::<T>(|expert| case.masked(expert));
        let repair =
            case.refit(Refit { keep_zeros: true, ..fixed(2) }, &store, &case.masked_residual());
        case.same_errors("support.s2", &repair, tolerance);
        case.same("support.s2", store, tolerance);
    }
}

#[test]
fn in_f64() {
    sweeps::<f64>(1e-6);
    automatic::<f64>(1e-6);
    support::<f64>(1e-6);
}

#[test]
fn in_f32() {
    sweeps::<f32>(1e-4);
    automatic::<f32>(1e-4);
    support::<f32>(1e-4);
}

/// A new weight may differ in its last bit, and what follows from that.
#[test]
fn rounded_to_bf16() {
    for case in CASES.map(Case::read) {
        let store = case.store::<f64>(|expert| case.weights(expert)).stored_as(Dtype::BF16);
        let repair = case.refit(fixed(2), &store, &case.residual);
        case.same_errors("bf16.s2", &repair, 1e-6);
        case.same("bf16.s2", store, 1.0 / 256.0);
    }
}

#[test]
fn through_the_trait() {
    for case in CASES.map(Case::read) {
        let store = case.store::<f32>(|expert| case.weights(expert));
        let token_weights: Vec<f32> = to(case.of("token_weight"));
        let mut residual: Vec<f32> = to(&case.residual);
        let mut layer = LayerToRepair {
            layer: 7,
            width: case.width,
            residual: &mut residual,
            token_weights: &token_weights,
            fitted: token_weights.len(),
            experts: &case.experts,
            store: &store,
        };
        let repair = AUTOMATIC.repair(&mut layer).unwrap();
        case.same_errors("auto", &repair, 1e-4);
        case.same("auto", store, 1e-4);
        let left: f64 = residual.iter().map(|r| f64::from(r.abs())).sum();
        assert!(left > 0.0);
    }
}
