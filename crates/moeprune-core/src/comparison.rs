//! Prunings measured side by side: plain data, which is also the JSON that is saved.

use serde::{Deserialize, Serialize};

/// The [`Comparison::format`] of this version.
pub const FORMAT: u32 = 1;

/// The [`Cut::criterion`] of the unpruned model.
pub const UNPRUNED: &str = "none";

/// Prunings of one model, measured in the same way.
///
/// Every text in it may come from anywhere: the page shows it as text and nothing else.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Comparison {
    /// The version of this layout, [`FORMAT`].
    pub format: u32,
    /// What made the comparison, with its version.
    pub tool: String,
    /// The model's name, for people.
    pub model: String,
    /// The family of models it belongs to.
    pub family: String,
    /// The corpora the model was observed on, as text.
    pub observed: Vec<String>,
    /// The task whose accuracy was measured, if one was.
    pub task: Option<String>,
    /// What the task's documents, or the text of the perplexity, are.
    pub data: Option<String>,
    /// How many documents were evaluated.
    pub documents: Option<u64>,
    /// Which of the task's metrics the accuracy is.
    pub metric: Option<String>,
    /// What it was computed on.
    pub device: String,
    /// The prunings, and the unpruned model if it was measured, in any order.
    pub cuts: Vec<Cut>,
    /// What was seen in each MoE layer, by ascending decoder layer; none to leave that out.
    pub layers: Vec<LayerPicture>,
}

/// One pruning of the model and what it cost.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cut {
    /// How the experts to remove were chosen; [`UNPRUNED`] for the model as it came.
    pub criterion: String,
    /// The share of experts asked to be removed, 0 to 1.
    pub expert_share: f64,
    /// The total sparsity asked for, 0 to 1; 0 where only experts were removed.
    pub total_share: f64,
    /// Experts left in the whole model.
    pub experts_kept: u64,
    /// Experts of the unpruned model.
    pub experts: u64,
    /// Parameters left, zeroed ones counted as gone.
    pub parameters: u64,
    /// Bytes of weights as a checkpoint would have them.
    pub bytes: u64,
    /// Accuracy on the task, if it was measured.
    pub accuracy: Option<Estimate>,
    /// Perplexity, above 0, if it was measured.
    pub perplexity: Option<f64>,
    /// How far its predictions are from the unpruned model's on the text of the perplexity, if both were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// What the answers are as texts, if questions were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<AnswerTexts>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The share of each decoder layer's weights that is removed or zero, 0 to 1; empty if that is
    /// not known.
    pub layer_sparsity: Vec<f64>,
    /// For each MoE layer, which experts stay; empty if that is not known.
    pub kept: Vec<Vec<usize>>,
}

/// An accuracy and how far to trust it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean, 0 to 1.
    pub mean: f64,
    /// The standard error of the mean, 0 to 1; None of a single document.
    pub stderr: Option<f64>,
}

/// How far predictions are from the unpruned model's.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Divergence {
    /// The mean over tokens of `KL(unpruned || pruned)`, in nats.
    pub kl: f64,
    /// Its standard error; None of a single block.
    pub kl_stderr: Option<f64>,
    /// The share of tokens before which both find the same token the likeliest, 0 to 1.
    pub agreement: f64,
}

/// What answers are as texts, right or wrong.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct AnswerTexts {
    /// The share that the model ended by itself, 0 to 1; None if that is not known of all.
    pub ended: Option<f64>,
    /// The share that ends in a loop, 0 to 1.
    pub looping: f64,
    /// The mean share of different groups of four words, 0 to 1; None if no answer has four words.
    pub distinct_4: Option<f64>,
}

/// What was seen in one MoE layer before anything was removed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LayerPicture {
    /// The decoder layer, counted from 0.
    pub layer: usize,
    /// How many experts it has.
    pub experts: usize,
    /// How far apart its experts are, `experts × experts` numbers, row after row, in the unit of
    /// the measure that was taken; the diagonal is ignored. Empty if that was not measured.
    pub distances: Vec<f64>,
    /// The experts that were found alike, each expert in one cluster. Empty if they were not
    /// clustered.
    pub clusters: Vec<Vec<usize>>,
    /// The share of routed tokens that each expert got; together 1, or all 0 where no token came
    /// by. Empty if that was not measured.
    pub load: Vec<f64>,
}

impl Cut {
    /// Whether this is the model as it came.
    #[must_use]
    pub fn is_unpruned(&self) -> bool {
        self.criterion == UNPRUNED
    }
}
