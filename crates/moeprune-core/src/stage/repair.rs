//! Changing the experts that stay so that they make up for those that went.

use std::{fmt, ops::Range};

use serde::Serialize;

use crate::{LayerRepair, LayerTensor, StageError};

/// Changes what the surviving experts of a layer write, so that the layer without the dropped experts
/// comes close to the layer with them.
///
/// Called once per layer that lost experts, after the experts are chosen and before weights are
/// zeroed, from one thread; the implementation may use rayon. `layer` says what is missing of the
/// layer's output per token, and which surviving expert receives which tokens with what: since an
/// expert's output is linear in its down projection, that is all there is to know for changing those.
///
/// The caller guarantees that rows of tokens ascend and are within the layer's tokens, that all numbers
/// are finite, and that [`token_weights`](LayerToRepair::token_weights) have the mean 1 over the
/// tokens that are fitted.
///
/// An implementation leaves in [`residual`](LayerToRepair::residual) what is missing after its
/// changes, for fitted and held-out tokens alike: the caller computes the layer's output from it, without
/// running the experts again. It holds the activations of one expert at a time. It may read held-out
/// tokens to decide whether a change is kept, and fits nothing to them.
///
/// ```
/// use moeprune_core::{
///     ExpertRepair, LayerRepair, LayerToRepair, StageError, repair::{ExpertOutcome, RepairedExpert},
/// };
///
/// /// Each expert's output becomes longer or shorter as a whole.
/// #[derive(Debug)]
/// struct Rescale;
///
/// impl ExpertRepair for Rescale {
///     fn repair(&self, layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError> {
///         let mut errors = vec![layer.error(0..layer.fitted)];
///         let mut repaired = Vec::new();
///         for (index, expert) in layer.experts.iter().enumerate() {
///             let inputs = layer.store.activations(index, 0..expert.tokens.len())?;
///             let old = layer.store.weights(index)?;
///             let output = |row: &[f32], out: usize| -> f64 {
///                 let weights = old[out * expert.features..].iter();
///                 row.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
///             };
///             // By how much the output, times 1 + scale, is nearest to what is missing.
///             let (mut along, mut squared) = (0.0, 0.0);
///             for (row, &token) in inputs.chunks_exact(expert.features).zip(&expert.tokens) {
///                 if (token as usize) < layer.fitted {
///                     for out in 0..layer.width {
///                         let made = output(row, out);
///                         along += made * f64::from(layer.residual[token as usize * layer.width + out]);
///                         squared += made * made;
///                     }
///                 }
///             }
///             if squared == 0.0 {
///                 repaired.push(RepairedExpert::unchanged(index, ExpertOutcome::NoTokens));
///                 continue;
///             }
///             let factor = (1.0 + along / squared) as f32;
///             let new = layer.store.replace(index, old.iter().map(|w| w * factor).collect())?;
///             for (row, &token) in inputs.chunks_exact(expert.features).zip(&expert.tokens) {
///                 for out in 0..layer.width {
///                     let place = out * expert.features..(out + 1) * expert.features;
///                     let change = new[place.clone()].iter().zip(&old[place]).zip(row);
///                     let change: f32 = change.map(|((new, old), x)| (new - old) * x).sum();
///                     layer.residual[token as usize * layer.width + out] -= change;
///                 }
///             }
///             repaired.push(RepairedExpert::refitted(index, 0.0, 1.0));
///             errors.push(layer.error(0..layer.fitted));
///         }
///         Ok(LayerRepair::new(layer.layer, errors, repaired))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a repair of experts",
    note = "implement `ExpertRepair::repair`: change what surviving experts write so that they make \
            up for those that were dropped"
)]
pub trait ExpertRepair: fmt::Debug + Send + Sync {
    /// Replaces weights of surviving experts through the layer's [store](LayerToRepair::store) and says
    /// what became of the error.
    ///
    /// # Errors
    /// If the layer cannot be repaired; the run ends. A layer that would get worse is no error: it is left
    /// as it was.
    fn repair(&self, layer: &mut LayerToRepair<'_>) -> Result<LayerRepair, StageError>;

    /// Whether weights that are zero stay so, biases aside. What comes after weights were zeroed has to
    /// say `true`; the caller holds it to that.
    fn keeps_zeros(&self) -> bool {
        false
    }

    /// How often the repair goes through a layer's activations and what it solves, at most.
    ///
    /// Called before a run, for the time, memory and disk that are announced, and per layer, to decide
    /// whether activations and what is [kept](RepairStore::keep) are in files or computed again, and to say
    /// how far the layer is. A wrong answer makes these wrong, and no result.
    fn passes(&self) -> RepairPasses {
        RepairPasses::default()
    }
}

/// What an [`ExpertRepair`] does with a layer, at most; in numbers that do not depend on the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct RepairPasses {
    /// How often all [activations](RepairStore::activations) are read.
    pub reads: usize,
    /// How often each expert's new weights are computed: the products of activations with what is missing,
    /// a solution, and what the new weights change.
    pub sweeps: usize,
    /// How often a matrix of an expert's features by its features is factored, if what is
    /// [kept](RepairStore::keep) is there when it is read again, once per sweep. 0 if none is.
    pub factorisations: usize,
    /// How often such a matrix is factored per row of an expert's weights; these factors are not kept. 0 if
    /// rows have none of their own.
    pub row_factorisations: usize,
    /// Bytes of one expert's activations that are held at most.
    pub held_bytes: u64,
}

/// A repair that holds an expert's activations, computes its weights once, and factors nothing.
impl Default for RepairPasses {
    fn default() -> Self {
        Self { reads: 1, sweeps: 1, factorisations: 0, row_factorisations: 0, held_bytes: u64::MAX }
    }
}

/// A layer that lost experts, on calibration tokens that went through the repaired layers before it.
#[expect(missing_debug_implementations, reason = "millions of numbers")]
#[expect(clippy::exhaustive_structs, reason = "a view that the pipeline fills")]
pub struct LayerToRepair<'a> {
    /// Decoder layer.
    pub layer: usize,
    /// Numbers per token of what experts write: the hidden width, or the latent one of a layer that has
    /// such.
    pub width: usize,
    /// Per token what the layer's experts wrote before some were dropped, less what those that stay write
    /// now: `[tokens, width]`, row-major.
    pub residual: &'a mut [f32],
    /// How much an error at a token counts, `[tokens]`. Those of held-out tokens are such that a text
    /// counts among them as it does among the fitted ones; 0 of a text that is only measured.
    pub token_weights: &'a [f32],
    /// Tokens before this one are fitted; those from it on are held out.
    pub fitted: usize,
    /// The experts that stay, by ascending index.
    pub experts: &'a [SurvivingExpert],
    /// Their activations and weights.
    pub store: &'a dyn RepairStore,
}

/// An expert that stays, and the tokens that it receives from the router without the dropped experts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "a view that the pipeline fills")]
pub struct SurvivingExpert {
    /// Its tokens, ascending; the held-out ones come last.
    pub tokens: Vec<u32>,
    /// Columns of its [weights](RepairStore::weights): the inner width, and one more where the down
    /// projection has a bias.
    pub features: usize,
    /// The parts that the weights are of, and which columns are theirs.
    pub parts: Vec<(LayerTensor, Range<usize>)>,
}

impl SurvivingExpert {
    /// How many of its tokens are fitted, `fitted` being the first token that is held out.
    #[must_use]
    pub fn fitted_tokens(&self, fitted: usize) -> usize {
        self.tokens.partition_point(|&token| (token as usize) < fitted)
    }
}

/// Where the activations and weights of surviving experts are held: in files, in memory, or
/// computed again whenever they are read.
///
/// Experts are named by their place in [`LayerToRepair::experts`].
pub trait RepairStore: Sync {
    /// The gated hidden activations of some of an expert's tokens, counted within these: what its down
    /// projection reads times its gate weight, `[rows, features]`, row-major. The column of a bias is the
    /// gate weight itself.
    ///
    /// # Errors
    /// If they cannot be read or computed.
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<f32>, StageError>;

    /// The expert's weights as they are now, `[width, features]`, row-major.
    ///
    /// # Errors
    /// If they cannot be read.
    fn weights(&self, expert: usize) -> Result<Vec<f32>, StageError>;

    /// The expert's weights as they were before any was replaced.
    ///
    /// # Errors
    /// If they cannot be read.
    fn original_weights(&self, expert: usize) -> Result<Vec<f32>, StageError>;

    /// Replaces an expert's weights, and returns what they have become in the type that they are stored
    /// in.
    ///
    /// # Errors
    /// If they do not fit that type or cannot be written.
    fn replace(&self, expert: usize, weights: Vec<f32>) -> Result<Vec<f32>, StageError>;

    /// Bits per weight of an expert whose new weights are stored as codes with scales, the least of its
    /// parts; `None` if each is a number by itself.
    fn code_bits(&self, expert: usize) -> Option<u32> {
        let _ = expert;
        None
    }

    /// As [`replace`](Self::replace), where codes are so coarse that later columns are to make up for the
    /// rounding of those before them (GPTQ). `carry` is on and above the diagonal, row after row, of the `U`
    /// with `(H + λ)⁻¹ = Uᵀ U`, `H` being the Gram matrix of the expert's activations. A store that has no use for it
    /// rounds each weight by itself.
    ///
    /// # Errors
    /// As [`replace`](Self::replace).
    fn replace_carrying(
        &self,
        expert: usize,
        weights: Vec<f32>,
        carry: &[f32],
    ) -> Result<Vec<f32>, StageError> {
        let _ = carry;
        self.replace(expert, weights)
    }

    /// Keeps numbers of an expert that take long to compute, until the next that are kept of it. A store
    /// without room for them forgets them.
    ///
    /// # Errors
    /// If they cannot be written.
    fn keep(&self, expert: usize, numbers: &[f64]) -> Result<(), StageError> {
        let _ = (expert, numbers);
        Ok(())
    }

    /// What was last kept of an expert; `None` if it was forgotten, so that it has to be computed again.
    ///
    /// # Errors
    /// If it cannot be read.
    fn kept(&self, expert: usize) -> Result<Option<Vec<f64>>, StageError> {
        let _ = expert;
        Ok(None)
    }
}

impl LayerToRepair<'_> {
    /// Tokens, held-out ones among them.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.token_weights.len()
    }

    /// The weighted square of what is missing at some tokens, summed in their order in `f64`.
    #[must_use]
    pub fn error(&self, tokens: Range<usize>) -> f64 {
        let weights = &self.token_weights[tokens.clone()];
        let rows = &self.residual[tokens.start * self.width..tokens.end * self.width];
        let squares = |row: &[f32]| row.iter().map(|&r| f64::from(r) * f64::from(r)).sum::<f64>();
        let rows = rows.chunks_exact(self.width.max(1)).zip(weights);
        rows.map(|(row, &weight)| f64::from(weight) * squares(row)).sum()
    }
}
