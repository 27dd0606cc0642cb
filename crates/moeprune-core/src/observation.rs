//! What a model did on calibration text, as sums over tokens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, LinearId};

/// Sums over calibration tokens of one model.
///
/// Sums only, so observations of different texts add up ([`Observation::add`]) and one serves any
/// number of plans.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct Observation {
    /// Identifies the model the sums belong to; a plan for another model refuses them.
    pub model_fingerprint: String,
    /// The texts they were taken on.
    pub corpora: Vec<CorpusTag>,
    /// One entry a decoder layer.
    pub layers: Vec<LayerObservation>,
}

/// Which text an observation was taken on, and how it was sampled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct CorpusTag {
    /// File name (without its folder) or another name for people.
    pub name: String,
    /// SHA-256 of the calibration file, in hexadecimal.
    pub sha256: String,
    /// Number of blocks.
    pub samples: u64,
    /// Tokens in a block.
    pub sequence_len: u64,
    /// Seed the blocks were drawn with.
    pub seed: u64,
}

impl CorpusTag {
    /// Tokens in all blocks.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.samples * self.sequence_len
    }
}

/// Sums of one decoder layer.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct LayerObservation {
    /// The router's choices; `None` in a layer without experts.
    pub routing: Option<RoutingSums>,
    /// Squared inputs of each Linear, under [`LinearId::input_site`]. Linears that never ran are
    /// present with zero tokens or absent.
    pub inputs: BTreeMap<LinearId, InputMoments>,
}

impl LayerObservation {
    /// Moments of the input of `linear`, wherever they are kept.
    #[must_use]
    pub fn input_of(&self, linear: LinearId) -> Option<&InputMoments> {
        self.inputs.get(&linear.input_site())
    }
}

/// What a layer's router chose. All vectors have one entry an expert.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct RoutingSums {
    /// Tokens the router saw.
    pub tokens: u64,
    /// Experts a token goes through.
    pub top_k: usize,
    /// Tokens routed to each expert; they sum to `tokens · top_k`.
    pub counts: Vec<u64>,
    /// `n × n`, row-major: tokens that chose both experts. Symmetric, zero diagonal.
    pub coactivation: Vec<u64>,
    /// Sum of the gate weights each expert was given.
    pub gate_sums: Vec<f64>,
    /// Sum of gate weight × L2 norm of the expert's output.
    pub gated_output_norms: Vec<f64>,
    /// Sum of the L2 norm of the expert's output, before the gate.
    pub output_norms: Vec<f64>,
}

impl RoutingSums {
    /// All sums zero.
    #[must_use]
    pub fn new(experts: usize, top_k: usize) -> Self {
        Self {
            tokens: 0,
            top_k,
            counts: vec![0; experts],
            coactivation: vec![0; experts * experts],
            gate_sums: vec![0.0; experts],
            gated_output_norms: vec![0.0; experts],
            output_norms: vec![0.0; experts],
        }
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.counts.len()
    }

    /// Whether the counts sum to `tokens · top_k` and the co-activations to
    /// `tokens · top_k · (top_k − 1)`: cheap, and it catches a wrong stride.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let k = self.top_k as u64;
        self.counts.iter().sum::<u64>() == self.tokens * k
            && self.coactivation.iter().sum::<u64>() == self.tokens * k * k.saturating_sub(1)
    }

    fn add(&mut self, other: &Self) -> Result<(), Error> {
        if self.experts() != other.experts() || self.top_k != other.top_k {
            return Err(Error::ObservationMismatch(format!(
                "{} experts top-{} and {} experts top-{}",
                self.experts(),
                self.top_k,
                other.experts(),
                other.top_k
            )));
        }
        self.tokens += other.tokens;
        add_all(&mut self.counts, &other.counts);
        add_all(&mut self.coactivation, &other.coactivation);
        add_all(&mut self.gate_sums, &other.gate_sums);
        add_all(&mut self.gated_output_norms, &other.gated_output_norms);
        add_all(&mut self.output_norms, &other.output_norms);
        Ok(())
    }
}

/// Second moments of the input of a Linear.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct InputMoments {
    /// Tokens (rows) that reached the Linear.
    pub tokens: u64,
    /// Forward calls, one a calibration block, in which at least one token did.
    pub calls: u64,
    /// Per input feature: the sum of squares over those tokens.
    pub sum_squares: Vec<f64>,
}

impl InputMoments {
    /// No tokens yet.
    #[must_use]
    pub fn new(features: usize) -> Self {
        Self { tokens: 0, calls: 0, sum_squares: vec![0.0; features] }
    }

    fn add(&mut self, other: &Self) -> Result<(), Error> {
        if self.sum_squares.len() != other.sum_squares.len() {
            return Err(Error::ObservationMismatch(format!(
                "{} and {} input features",
                self.sum_squares.len(),
                other.sum_squares.len()
            )));
        }
        self.tokens += other.tokens;
        self.calls += other.calls;
        add_all(&mut self.sum_squares, &other.sum_squares);
        Ok(())
    }
}

impl Observation {
    /// Adds another observation of the same model.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if fingerprints or shapes differ; `self` may then be
    /// partly added to and should be dropped.
    pub fn add(&mut self, other: &Self) -> Result<(), Error> {
        if self.model_fingerprint != other.model_fingerprint {
            return Err(Error::ObservationMismatch(format!(
                "they are of different models ({} and {})",
                self.model_fingerprint, other.model_fingerprint
            )));
        }
        if self.layers.len() != other.layers.len() {
            return Err(Error::ObservationMismatch(format!(
                "{} and {} layers",
                self.layers.len(),
                other.layers.len()
            )));
        }
        self.corpora.extend_from_slice(&other.corpora);
        for (mine, theirs) in self.layers.iter_mut().zip(&other.layers) {
            match (&mut mine.routing, &theirs.routing) {
                (Some(a), Some(b)) => a.add(b)?,
                (None, None) => {}
                _ => return Err(Error::ObservationMismatch("a layer has a router in one".into())),
            }
            for (id, moments) in &theirs.inputs {
                match mine.inputs.get_mut(id) {
                    Some(sum) => sum.add(moments)?,
                    None => {
                        mine.inputs.insert(*id, moments.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

fn add_all<T: Copy + std::ops::AddAssign>(sums: &mut [T], more: &[T]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += *more;
    }
}
