//! Input statistics of the layer being pruned, wherever they come from.

use candle_core::{DType, Device, Tensor};
use moeprune_capture::{ObserverOptions, advance_layer, embed_blocks, observe_layer};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{CorpusTag, InputMoments, LayerObservation, LinearId, Observation, Plan};
use moeprune_model::{Embedding, Layer};

use super::{Inputs, KeptExperts, MaskedLayer, layer_masks::MaskedSource};
use crate::{
    Calibration, Error, Pipeline, Recipe, planning::check_observation, recipe::Statistics as Source,
};

/// Routing is of no use any more once the experts are chosen.
const INPUTS: ObserverOptions = ObserverOptions { routing: false, inputs: true };

/// Where a run's statistics come from; several passes can be started from it.
pub(crate) enum Statistics<'a> {
    None,
    Calibration(&'a Calibration),
    Stored(&'a Observation),
}

impl<'a> Statistics<'a> {
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        plan: &Plan,
        recipe: &Recipe,
        inputs: Inputs<'a>,
        pipeline: &Pipeline,
    ) -> Result<Self, Error> {
        let wanted = plan.unstructured.is_some() && pipeline.scorer.needs_inputs();
        match inputs {
            _ if !wanted => Ok(Self::None),
            Inputs::None => Err(Error::Request(
                "the plan zeroes weights by their inputs: pass --calibration FILE, or \
                 --observation FILE for statistics of the unpruned model"
                    .into(),
            )),
            Inputs::Calibration(_) if recipe.weights.statistics == Source::Stored => {
                Err(Error::Request(
                    "the plan's recipe takes its statistics from a stored observation: pass \
                     --observation FILE"
                        .into(),
                ))
            }
            Inputs::Calibration(calibration) => Ok(Self::Calibration(calibration)),
            Inputs::Observation(observation) => {
                check_observation(observation, checkpoint.spec(), &checkpoint.fingerprint()?)?;
                Ok(Self::Stored(observation))
            }
        }
    }

    /// What a recipe calls this, if statistics are used at all.
    pub(crate) fn source(&self) -> Option<Source> {
        match self {
            Self::None => None,
            Self::Calibration(_) => Some(Source::Sequential),
            Self::Stored(_) => Some(Source::Stored),
        }
    }

    /// Tokens that a pass runs through every layer.
    pub(crate) fn tokens(&self) -> u64 {
        match self {
            Self::Calibration(calibration) => calibration.tag.tokens(),
            Self::None | Self::Stored(_) => 0,
        }
    }

    /// The texts the statistics are of.
    pub(crate) fn corpora(&self) -> Vec<CorpusTag> {
        match self {
            Self::None => Vec::new(),
            Self::Calibration(calibration) => vec![calibration.tag.clone()],
            Self::Stored(observation) => observation.corpora.clone(),
        }
    }

    /// Starts at the embeddings.
    pub(crate) fn start(&self, kept: &KeptExperts<'_>) -> Result<Pass<'a>, Error> {
        Ok(match self {
            Self::None => Pass::None,
            Self::Stored(observation) => Pass::Stored(observation),
            Self::Calibration(calibration) => {
                let embedding = Embedding::load(kept, kept.spec(), &Device::Cpu, DType::F32)?;
                Pass::Forward(embed_blocks(&embedding, &calibration.blocks)?)
            }
        })
    }
}

/// One pass over the layers, first to last.
pub(crate) enum Pass<'a> {
    None,
    Stored(&'a Observation),
    /// The inputs of the next layer, one tensor `[1, tokens, hidden]` a calibration block.
    Forward(Vec<Tensor>),
}

impl Pass<'_> {
    /// Statistics of `layer` with its experts dropped and its weights as they were.
    pub(crate) fn observe(
        &self,
        kept: &KeptExperts<'_>,
        layer: usize,
    ) -> Result<LayerStatistics, Error> {
        Ok(match self {
            Self::None => LayerStatistics { experts: 0, observation: None },
            Self::Stored(observation) => LayerStatistics::new(
                kept,
                layer,
                renumbered(&observation.layers[layer], kept, layer),
            ),
            Self::Forward(activations) => {
                let dense = load(kept, &MaskedLayer::unmasked(), layer)?;
                let seen = observe_layer(&dense, kept.spec(), layer, activations, None, INPUTS)?;
                LayerStatistics::new(kept, layer, seen)
            }
        })
    }

    /// As [`observe`](Self::observe), and goes on to the next layer with the weights as they were:
    /// one forward pass does both.
    pub(crate) fn observe_and_advance(
        &mut self,
        kept: &KeptExperts<'_>,
        layer: usize,
    ) -> Result<LayerStatistics, Error> {
        let Self::Forward(activations) = self else { return self.observe(kept, layer) };
        let dense = load(kept, &MaskedLayer::unmasked(), layer)?;
        let mut outputs = Vec::with_capacity(activations.len());
        let seen =
            observe_layer(&dense, kept.spec(), layer, activations, Some(&mut outputs), INPUTS)?;
        *activations = outputs;
        Ok(LayerStatistics::new(kept, layer, seen))
    }

    /// Replaces the inputs of `layer` by its outputs, weights zeroed as `masked` says.
    pub(crate) fn advance(
        &mut self,
        kept: &KeptExperts<'_>,
        masked: &MaskedLayer,
        layer: usize,
    ) -> Result<(), Error> {
        if let Self::Forward(activations) = self {
            advance_layer(&load(kept, masked, layer)?, activations)?;
        }
        Ok(())
    }
}

fn load(kept: &KeptExperts<'_>, masked: &MaskedLayer, layer: usize) -> Result<Layer, Error> {
    let source = MaskedSource { kept, masked };
    Ok(Layer::load(&source, kept.spec(), layer, &Device::Cpu, DType::F32)?)
}

/// The sums of a source layer under the expert indices of the pruned model; an average has the
/// inputs of all its members.
fn renumbered(seen: &LayerObservation, kept: &KeptExperts<'_>, layer: usize) -> LayerObservation {
    let mut renumbered = LayerObservation::default();
    for shape in kept.spec().linears(layer) {
        let site = shape.id.input_site();
        let sources: Vec<LinearId> = match site.expert() {
            None => vec![site],
            Some(index) => {
                kept.sources(layer, index).into_iter().map(|e| site.with_expert(e)).collect()
            }
        };
        let mut sum: Option<InputMoments> = None;
        for moments in sources.iter().filter_map(|source| seen.inputs.get(source)) {
            match &mut sum {
                None => sum = Some(moments.clone()),
                Some(sum) => {
                    sum.tokens += moments.tokens;
                    sum.calls += moments.calls;
                    for (s, m) in sum.sum_squares.iter_mut().zip(&moments.sum_squares) {
                        *s += m;
                    }
                }
            }
        }
        if let Some(sum) = sum {
            renumbered.inputs.insert(site, sum);
        }
    }
    renumbered
}

/// Statistics of one layer, expert indices those of the pruned model.
pub(crate) struct LayerStatistics {
    experts: usize,
    observation: Option<LayerObservation>,
}

impl LayerStatistics {
    fn new(kept: &KeptExperts<'_>, layer: usize, observation: LayerObservation) -> Self {
        let experts = kept.spec().layers[layer].moe().map_or(0, |moe| moe.experts);
        Self { experts, observation: Some(observation) }
    }

    /// Moments of a Linear's input, if any token reached it.
    pub(crate) fn of(&self, linear: LinearId) -> Option<&InputMoments> {
        self.observation.as_ref()?.input_of(linear).filter(|moments| moments.tokens > 0)
    }

    /// Experts that no token reached; none when nothing was observed at all.
    pub(crate) fn idle_experts(&self) -> Vec<usize> {
        if self.observation.is_none() {
            return Vec::new();
        }
        let gate = |e| LinearId::Expert(e, moeprune_core::MlpProjection::Gate);
        (0..self.experts).filter(|&e| self.of(gate(e)).is_none()).collect()
    }
}
