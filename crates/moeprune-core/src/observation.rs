//! What a model did on calibration text, as sums over tokens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Fingerprint, LinearId, SameModel};

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
    /// How often the text counts, 1 unless it was [blended](Observation::repeat) with others.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub repeated: u64,
}

fn once() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_once(repeated: &u64) -> bool {
    *repeated == 1
}

impl CorpusTag {
    /// Tokens in all blocks, each counted once.
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

/// What a layer's router chose and what the experts made of it. Vectors have one entry an expert,
/// unless they say otherwise.
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
    /// Largest magnitude in any of the expert's outputs, before the gate: a maximum, not a sum.
    /// Empty in an observation of an older version.
    pub output_peaks: Vec<f64>,
    /// `n × hidden`, row-major: sum of the expert's outputs, before the gate. Empty if they were
    /// not summed.
    pub output_sums: Vec<f64>,
}

impl RoutingSums {
    /// All sums zero, outputs not summed.
    #[must_use]
    pub fn new(experts: usize, top_k: usize) -> Self {
        Self::with_outputs(experts, top_k, 0)
    }

    /// All sums zero, outputs of `hidden` values summed.
    #[must_use]
    pub fn with_outputs(experts: usize, top_k: usize, hidden: usize) -> Self {
        Self {
            tokens: 0,
            top_k,
            counts: vec![0; experts],
            coactivation: vec![0; experts * experts],
            gate_sums: vec![0.0; experts],
            gated_output_norms: vec![0.0; experts],
            output_norms: vec![0.0; experts],
            output_peaks: vec![0.0; experts],
            output_sums: vec![0.0; experts * hidden],
        }
    }

    /// The mean output of an expert over the tokens routed to it, before the gate; zeros for one
    /// that no token reached, and `None` if outputs were not summed.
    #[must_use]
    pub fn mean_output(&self, expert: usize) -> Option<Vec<f64>> {
        let hidden = self.output_sums.len().checked_div(self.experts()).filter(|&h| h > 0)?;
        let sums = self.output_sums.get(expert * hidden..(expert + 1) * hidden)?;
        let tokens = self.counts[expert].max(1) as f64;
        Some(sums.iter().map(|sum| sum / tokens).collect())
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
        if self.output_sums.len() == other.output_sums.len() {
            add_all(&mut self.output_sums, &other.output_sums);
        } else {
            // A sum over a part of the tokens would be taken for one over all.
            self.output_sums.clear();
        }
        if self.output_peaks.len() == other.output_peaks.len() {
            for (peak, other) in self.output_peaks.iter_mut().zip(&other.output_peaks) {
                *peak = peak.max(*other);
            }
        } else {
            self.output_peaks.clear();
        }
        Ok(())
    }

    fn repeat(&mut self, times: u64) -> Result<(), Error> {
        self.tokens = counted(self.tokens, times)?;
        for count in self.counts.iter_mut().chain(&mut self.coactivation) {
            *count = counted(*count, times)?;
        }
        let sums = self.gate_sums.iter_mut().chain(&mut self.gated_output_norms);
        for sum in sums.chain(&mut self.output_norms).chain(&mut self.output_sums) {
            *sum *= times as f64;
        }
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

    fn repeat(&mut self, times: u64) -> Result<(), Error> {
        self.tokens = counted(self.tokens, times)?;
        self.calls = counted(self.calls, times)?;
        self.sum_squares.iter_mut().for_each(|sum| *sum *= times as f64);
        Ok(())
    }
}

impl Observation {
    /// Counts every token `times` times, as if the texts had been read as often.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if a count overflows; `self` should then be dropped.
    pub fn repeat(&mut self, times: u64) -> Result<(), Error> {
        for corpus in &mut self.corpora {
            corpus.repeated = counted(corpus.repeated, times)?;
        }
        for layer in &mut self.layers {
            if let Some(routing) = &mut layer.routing {
                routing.repeat(times)?;
            }
            layer.inputs.values_mut().try_for_each(|moments| moments.repeat(times))?;
        }
        Ok(())
    }

    /// Observations of one model as if their texts had been read in the given proportions, token
    /// for token: of weights 3 and 1, three quarters of the tokens are of the first text, however
    /// long either is.
    ///
    /// Counts stay whole numbers: each observation is [repeated](Self::repeat) so often that the
    /// proportions come out, within 1 part in 30,000 where no small numbers do it.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if there is nothing to blend, a weight is not finite or
    /// negative, all are zero, or the observations do not [add up](Self::add).
    pub fn blend(parts: &[(&Self, f64)]) -> Result<Self, Error> {
        let bad = |problem: String| Err(Error::ObservationMismatch(problem));
        let mut rates = Vec::with_capacity(parts.len());
        for (part, weight) in parts {
            if !(weight.is_finite() && *weight >= 0.0) {
                return bad(format!("a weight is {weight}; it must be at least 0"));
            }
            let tokens: u64 = part.corpora.iter().map(|c| c.tokens() * c.repeated).sum();
            if tokens == 0 && *weight > 0.0 {
                return bad("one is of no tokens".into());
            }
            rates.push(weight / tokens.max(1) as f64);
        }
        let mut blend: Option<Self> = None;
        for ((part, _), times) in parts.iter().zip(whole_proportions(&rates)) {
            if times == 0 {
                continue;
            }
            let mut repeated = (*part).clone();
            repeated.repeat(times)?;
            match &mut blend {
                None => blend = Some(repeated),
                Some(blend) => blend.add(&repeated)?,
            }
        }
        blend.map_or_else(|| bad("all weights are zero".into()), Ok)
    }

    /// The same without input moments, which decide nothing about experts.
    #[must_use]
    pub fn routing_only(&self) -> Self {
        let routing = |layer: &LayerObservation| LayerObservation {
            routing: layer.routing.clone(),
            inputs: BTreeMap::new(),
        };
        Self {
            model_fingerprint: self.model_fingerprint.clone(),
            corpora: self.corpora.clone(),
            layers: self.layers.iter().map(routing).collect(),
        }
    }

    /// Adds another observation of the same model.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if fingerprints or shapes differ; `self` may then be
    /// partly added to and should be dropped.
    pub fn add(&mut self, other: &Self) -> Result<(), Error> {
        let same = Fingerprint::compare(&self.model_fingerprint, &other.model_fingerprint);
        if same == SameModel::No {
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

/// The smallest whole numbers in these proportions, or nearly so.
fn whole_proportions(rates: &[f64]) -> Vec<u64> {
    let least = rates.iter().copied().filter(|&rate| rate > 0.0).fold(f64::INFINITY, f64::min);
    let exact = |factor: &u32| {
        let off = |rate: &f64| {
            let times = rate / least * f64::from(*factor);
            (times - times.round()).abs() > 1e-9 * times
        };
        !rates.iter().any(off)
    };
    let factor = (1..=1000).find(exact).unwrap_or(1 << 15);
    rates.iter().map(|rate| (rate / least * f64::from(factor)).round() as u64).collect()
}

fn counted(count: u64, times: u64) -> Result<u64, Error> {
    count.checked_mul(times).ok_or_else(|| {
        Error::ObservationMismatch(format!("{count} tokens cannot be counted {times} times"))
    })
}

fn add_all<T: Copy + std::ops::AddAssign>(sums: &mut [T], more: &[T]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += *more;
    }
}
