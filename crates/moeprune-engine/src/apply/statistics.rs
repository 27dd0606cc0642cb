//! Input statistics of the layer that is pruned: from a run, or from an observation.

use moeprune_capture::{LayerObserver, LayerRun, TokenBlocks, passes};
use moeprune_core::{
    CorpusTag, InputMoments, LayerObservation, LinearId, LinearShape, Observation, Plan,
    StatisticsSource,
};
use serde_json::Value;

use super::Inputs;
use crate::{
    Calibration, Error, KeptExperts, Model, Pipeline, Remedy, WeightStage, plan::check_observation,
};

/// Where a run's statistics come from; several walks can be started from it.
pub(super) enum Statistics<'a> {
    None,
    Calibration(&'a Calibration),
    Stored(&'a Observation),
}

impl<'a> Statistics<'a> {
    pub(super) fn new(
        model: &dyn Model,
        plan: &Plan,
        inputs: Inputs<'a>,
        pipeline: &Pipeline,
    ) -> Result<Self, Error> {
        let wanted = plan.unstructured.is_some() && pipeline.weights.needs().inputs;
        let stored =
            plan.promises().is_some_and(|said| said.statistics == StatisticsSource::Stored);
        match inputs {
            _ if !wanted => Ok(Self::None),
            Inputs::None => Err(Error::refused(
                "the plan zeroes weights by their inputs, and nothing is known of those",
                Remedy::Statistics,
            )),
            Inputs::Calibration(_) if stored => Err(Error::refused(
                "the plan's recipe takes its statistics from a stored observation",
                Remedy::Observation,
            )),
            Inputs::Calibration(calibration) => Ok(Self::Calibration(calibration)),
            Inputs::Observation(_) if pipeline.weights.needs().hessians => {
                let problem = format!(
                    "{} needs to know which inputs come together, which no observation holds",
                    method_name(pipeline)
                );
                Err(Error::refused(problem, Remedy::Calibration))
            }
            Inputs::Observation(observation) => {
                check_observation(observation, model)?;
                check_inputs(observation, model)?;
                Ok(Self::Stored(observation))
            }
        }
    }

    /// What a recipe calls this, if statistics are used at all.
    pub(super) fn source(&self) -> Option<StatisticsSource> {
        match self {
            Self::None => None,
            Self::Calibration(_) => Some(StatisticsSource::Sequential),
            Self::Stored(_) => Some(StatisticsSource::Stored),
        }
    }

    /// Tokens that a walk takes through every layer.
    pub(super) fn tokens(&self) -> u64 {
        match self {
            Self::Calibration(calibration) => calibration.tag.tokens(),
            Self::None | Self::Stored(_) => 0,
        }
    }

    /// Passes of these through a layer's trunk and its experts.
    pub(super) fn passes(&self, kept: &KeptExperts<'_>, layer: usize) -> u64 {
        passes(kept.spec(), layer, self.tokens())
    }

    /// The texts the statistics are of.
    pub(super) fn corpora(&self) -> Vec<CorpusTag> {
        match self {
            Self::None => Vec::new(),
            Self::Calibration(calibration) => vec![calibration.tag.clone()],
            Self::Stored(observation) => observation.corpora.clone(),
        }
    }

    /// The blocks that are run, if any are.
    pub(super) fn blocks(&self) -> Option<&'a TokenBlocks> {
        match self {
            Self::Calibration(calibration) => Some(&calibration.blocks),
            Self::None | Self::Stored(_) => None,
        }
    }

    /// Stored sums of a layer under the expert indices of the pruned model.
    pub(super) fn stored(&self, kept: &KeptExperts<'_>, layer: usize) -> Option<LayerObservation> {
        match self {
            Self::Stored(observation) => Some(renumbered(&observation.layers[layer], kept, layer)),
            Self::None | Self::Calibration(_) => None,
        }
    }
}

/// Refuses an observation that lacks inputs of a Linear whose weights may be zeroed: of an expert that no
/// token reached it has zeros, not nothing.
fn check_inputs(observation: &Observation, model: &dyn Model) -> Result<(), Error> {
    for (layer, seen) in observation.layers.iter().enumerate() {
        let linears = model.spec().linears(layer);
        let is_missing = |linear: &&LinearShape| linear.prunable && seen.input_of(linear).is_none();
        if let Some(linear) = linears.iter().find(is_missing) {
            let problem = format!(
                "weights are zeroed by their inputs, and the observation has none of {} in layer {layer} \
                 (an imatrix lacks those of some kinds of attention); an observation made by running the \
                 model has them",
                linear.id
            );
            return Err(Error::refused(problem, Remedy::Calibration));
        }
    }
    Ok(())
}

/// The name of the method that changes weights.
fn method_name(pipeline: &Pipeline) -> String {
    let WeightStage::Reconstructed { method, .. } = &pipeline.weights else {
        return "the scorer".to_owned();
    };
    let name = |identity: &Value| {
        let named = identity.get("name").unwrap_or(identity);
        named.as_str().map(str::to_owned)
    };
    method.identity().and_then(name).unwrap_or_else(|| format!("{method:?}"))
}

/// What is known of a layer's inputs, expert indices those of the pruned model.
pub(super) enum InputStatistics<'a> {
    /// Nothing was observed at all.
    None,
    Stored(&'a LayerObservation),
    /// What the run has shown so far.
    Live(&'a LayerObserver),
}

impl<'a> InputStatistics<'a> {
    pub(super) fn of_layer(
        run: &Option<LayerRun>,
        observer: &'a LayerObserver,
        stored: Option<&'a LayerObservation>,
    ) -> Self {
        match (run, stored) {
            (Some(_), _) => Self::Live(observer),
            (None, Some(stored)) => Self::Stored(stored),
            (None, None) => Self::None,
        }
    }

    /// InputStatistics of a Linear's input, if any token reached it.
    pub(super) fn of(&self, linear: &LinearShape) -> Result<Option<&'a InputMoments>, Error> {
        let moments = match self {
            Self::None => None,
            Self::Stored(stored) => stored.input_of(linear),
            Self::Live(observer) => observer.input_of(linear.id)?,
        };
        Ok(moments.filter(|moments| moments.tokens > 0))
    }

    /// Whether any token reached an expert whose input is that of `input`; `true` when nothing was
    /// observed at all.
    pub(super) fn reached(&self, input: Option<LinearShape>) -> Result<bool, Error> {
        let Some(input) = input else { return Ok(false) };
        Ok(matches!(self, Self::None) || self.of(&input)?.is_some())
    }
}

/// The sums of a source layer under the expert indices of the pruned model; an average has the
/// inputs of all its members.
fn renumbered(seen: &LayerObservation, kept: &KeptExperts<'_>, layer: usize) -> LayerObservation {
    let mut renumbered = LayerObservation::default();
    for shape in kept.spec().linears(layer) {
        let site = shape.reads;
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
