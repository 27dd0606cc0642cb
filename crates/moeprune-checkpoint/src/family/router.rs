//! `[router]`

use std::collections::BTreeMap;

use moeprune_core::{
    CorrectionBias, ExpertGroups, GateSide, GroupScore, LayerTensor, LinearId, OpaqueRouter,
    OpaqueTensor, RouterInput, RouterSpec, Score, ScoredRouter, SparseMixer, TensorId,
};
use serde::Deserialize;

use super::{
    Slots,
    attention::part_name,
    key::{Key, PerLayer},
    name::{NameForm, Named, SharedNameForm},
};
use crate::{Error, config::Config, named_tensors::NamedTensors};

/// The kind decides which keys there are.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum RouterForm {
    Softmax(ScoredForm),
    Sigmoid(ScoredForm),
    SqrtSoftplus(ScoredForm),
    SparseMixer(SparseMixerForm),
    Opaque(OpaqueForm),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScoredForm {
    #[serde(default = "top_k")]
    top_k: Key<PerLayer>,
    renormalize: Renormalize,
    /// What is added to the sum that they are divided by.
    #[serde(default)]
    epsilon: f64,
    /// What that sum is taken to be at least; absent: 0.
    least_sum: Option<Key<f64>>,
    /// What the weights are multiplied by; absent: 1.
    scale: Option<Key<f64>>,
    /// Groups of experts; absent: none.
    groups: Option<GroupsForm>,
    /// What it reads.
    #[serde(default)]
    input: RouterInputForm,
    /// Whether experts are selected by their logits, and scored after that.
    #[serde(default)]
    selects_logits: bool,
    /// What the weights multiply.
    #[serde(default)]
    gates: GateSideForm,
    tensors: ScoredNames,
}

/// Groups of experts, of which a token's experts may come from some.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupsForm {
    /// Absent from the config, or 1: there are none.
    count: Key<usize>,
    /// Absent from the config: all.
    selected: Key<usize>,
    score: GroupScoreForm,
    /// Whether they count; absent: they do.
    when: Option<Condition>,
}

/// What a router reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RouterInputForm {
    #[default]
    Experts,
    ScaledStream,
}

impl From<RouterInputForm> for RouterInput {
    fn from(form: RouterInputForm) -> Self {
        match form {
            RouterInputForm::Experts => Self::Experts,
            RouterInputForm::ScaledStream => Self::ScaledStream,
        }
    }
}

/// What of an expert its weight multiplies.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GateSideForm {
    #[default]
    Output,
    Input,
}

impl From<GateSideForm> for GateSide {
    fn from(form: GateSideForm) -> Self {
        match form {
            GateSideForm::Output => Self::Output,
            GateSideForm::Input => Self::Input,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GroupScoreForm {
    TopTwo,
    Max,
}

/// A config key that must have a certain value.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    keys: Vec<String>,
    is: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoredNames {
    weight: String,
    /// Added to the logits.
    bias: Option<Named<NameForm>>,
    /// Added to the scores before experts are selected.
    correction_bias: Option<Named<SharedNameForm>>,
    /// What the weight of each expert is multiplied by.
    expert_scale: Option<Named<NameForm>>,
    /// What the input is multiplied by, `[hidden]`, if it is `scaled_stream`.
    input_scale: Option<String>,
}

/// One expert after the other.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SparseMixerForm {
    #[serde(default = "top_k")]
    top_k: Key<PerLayer>,
    jitter: Key<f64>,
    tensors: SparseMixerNames,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SparseMixerNames {
    weight: String,
}

/// A router that is cut, not run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpaqueForm {
    #[serde(default = "top_k")]
    top_k: Key<PerLayer>,
    groups: Option<GroupsForm>,
    tensors: OpaqueNames,
}

#[derive(Debug, Clone, Deserialize)]
struct OpaqueNames {
    weight: String,
    #[serde(flatten)]
    other: BTreeMap<String, Named<SharedNameForm>>,
}

/// Whether the chosen probabilities are divided by their sum.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Renormalize {
    Always,
    Never,
    /// Only if more than one expert is chosen.
    WhenSeveral,
    /// As a config key says.
    Config(Key<bool>),
}

fn top_k() -> Key<PerLayer> {
    Key::any_of(&["num_experts_per_tok"])
}

impl RouterForm {
    /// The kind as descriptors name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Softmax(_) => "softmax",
            Self::Sigmoid(_) => "sigmoid",
            Self::SqrtSoftplus(_) => "sqrt_softplus",
            Self::SparseMixer(_) => "sparse_mixer",
            Self::Opaque(_) => "opaque",
        }
    }

    /// The words by which configs name how it scores; `None` if it is not known.
    pub(super) fn score_words(&self) -> Option<Vec<&'static str>> {
        match self {
            Self::Softmax(_) => Some(vec!["softmax"]),
            Self::Sigmoid(_) => Some(vec!["sigmoid"]),
            Self::SqrtSoftplus(_) => Some(vec!["sqrtsoftplus"]),
            Self::SparseMixer(_) => Some(vec!["sparsemixer"]),
            Self::Opaque(_) => None,
        }
    }

    /// The words by which configs name how it chooses by the scores; `None` if that is not known.
    pub(super) fn choice_words(&self) -> Option<Vec<&'static str>> {
        match self {
            Self::Softmax(form) | Self::Sigmoid(form) | Self::SqrtSoftplus(form) => {
                match (&form.tensors.correction_bias, &form.groups) {
                    (Some(_), _) => Some(vec!["noauxtc"]),
                    (None, None) => Some(vec!["greedy", "topk"]),
                    (None, Some(_)) => None,
                }
            }
            Self::SparseMixer(_) => Some(vec!["sparsemixer"]),
            Self::Opaque(_) => None,
        }
    }

    /// Whether the weights of chosen experts are divided by their sum; `None` if the config says so, or
    /// it is not known.
    pub(super) fn renormalizes(&self) -> Option<bool> {
        match self {
            Self::Softmax(form) | Self::Sigmoid(form) | Self::SqrtSoftplus(form) => {
                match form.renormalize {
                    Renormalize::Always | Renormalize::WhenSeveral => Some(true),
                    Renormalize::Never => Some(false),
                    Renormalize::Config(_) => None,
                }
            }
            Self::SparseMixer(_) => Some(false),
            Self::Opaque(_) => None,
        }
    }

    /// Whether experts may be selected by groups.
    pub(super) fn has_groups(&self) -> bool {
        match self {
            Self::Softmax(form) | Self::Sigmoid(form) | Self::SqrtSoftplus(form) => {
                form.groups.is_some()
            }
            Self::Opaque(form) => form.groups.is_some(),
            Self::SparseMixer(_) => false,
        }
    }

    pub(crate) fn top_k(&self) -> &Key<PerLayer> {
        match self {
            Self::Softmax(form) | Self::Sigmoid(form) | Self::SqrtSoftplus(form) => &form.top_k,
            Self::SparseMixer(form) => &form.top_k,
            Self::Opaque(form) => &form.top_k,
        }
    }

    /// The names of its tensors.
    pub(super) fn slots<'a>(&'a self, slots: &mut Slots<'a>) -> Result<(), Error> {
        let weight = LayerTensor::Linear(LinearId::Router);
        match self {
            Self::Softmax(form) | Self::Sigmoid(form) | Self::SqrtSoftplus(form) => {
                slots.push((weight, &form.tensors.weight));
                slots.extend(form.vectors().map(|(id, name, _)| (id, name)));
                let scale = form.tensors.input_scale.as_ref();
                slots.extend(scale.map(|name| (RouterInput::SCALE, name.as_str())));
            }
            Self::SparseMixer(form) => slots.push((weight, &form.tensors.weight)),
            Self::Opaque(form) => {
                slots.push((weight, &form.tensors.weight));
                for (key, Named(name)) in &form.tensors.other {
                    slots.push((LayerTensor::Named(part_name("router", key)?), &name.name));
                }
            }
        }
        Ok(())
    }

    /// Checks what types cannot.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Softmax(form) | Self::Sigmoid(form) | Self::SqrtSoftplus(form) => form.check(),
            Self::SparseMixer(_) | Self::Opaque(_) => Ok(()),
        }
    }

    /// What the config says about the routers of all layers; `several`: whether a token has more than one
    /// expert.
    pub(crate) fn read(&self, config: &Config, several: bool) -> Result<RouterSpec, Error> {
        match self {
            Self::Softmax(form) => form.read(config, several, Score::Softmax),
            Self::Sigmoid(form) => form.read(config, several, Score::Sigmoid),
            Self::SqrtSoftplus(form) => form.read(config, several, Score::SqrtSoftplus),
            Self::SparseMixer(form) => {
                Ok(RouterSpec::SparseMixer(SparseMixer { jitter: form.jitter.needed(config)? }))
            }
            Self::Opaque(form) => {
                let groups = form.groups.as_ref().map_or(Ok(None), |groups| groups.read(config))?;
                Ok(RouterSpec::Opaque(OpaqueRouter { groups, ..OpaqueRouter::default() }))
            }
        }
    }

    /// The router of one layer, with the tensors that are stored.
    pub(crate) fn of_layer(
        &self,
        read: &RouterSpec,
        named: &NamedTensors,
        layer: usize,
    ) -> Result<RouterSpec, Error> {
        let is_stored = |id| named.shapes.contains_key(&TensorId::Layer(layer, id));
        match (self, read) {
            (Self::Opaque(form), _) => {
                let (groups, tensors) = (read.groups(), form.of_layer(named, layer)?);
                Ok(RouterSpec::Opaque(OpaqueRouter { groups, tensors }))
            }
            (
                Self::Softmax(form) | Self::Sigmoid(form) | Self::SqrtSoftplus(form),
                RouterSpec::Scored(router),
            ) => {
                let has = |wanted| {
                    form.vectors()
                        .any(|(id, _, optional)| id == wanted && (!optional || is_stored(id)))
                };
                let correction = |Named(name): &Named<SharedNameForm>| match name.expert_axis {
                    Some(1) => CorrectionBias::Row,
                    _ => CorrectionBias::Vector,
                };
                let correction = form.tensors.correction_bias.as_ref().map(correction);
                Ok(RouterSpec::Scored(ScoredRouter {
                    bias: has(LayerTensor::Bias(LinearId::Router)),
                    correction_bias: correction
                        .filter(|_| has(LayerTensor::CorrectionBias))
                        .unwrap_or_default(),
                    expert_scale: has(LayerTensor::ExpertScale),
                    ..*router
                }))
            }
            (Self::SparseMixer(_), _) | (_, RouterSpec::Opaque(_) | RouterSpec::SparseMixer(_)) => {
                Ok(read.clone())
            }
        }
    }
}

impl ScoredForm {
    /// The vectors that are named, and whether a layer may lack them.
    fn vectors(&self) -> impl Iterator<Item = (LayerTensor, &str, bool)> {
        fn plain(name: &Option<Named<NameForm>>) -> Option<(&str, bool)> {
            name.as_ref().map(|Named(name)| (name.name.as_str(), name.optional))
        }
        let ScoredNames { bias, correction_bias, expert_scale, .. } = &self.tensors;
        let correction =
            correction_bias.as_ref().map(|Named(name)| (name.name.as_str(), name.optional));
        [
            (LayerTensor::Bias(LinearId::Router), plain(bias)),
            (LayerTensor::CorrectionBias, correction),
            (LayerTensor::ExpertScale, plain(expert_scale)),
        ]
        .into_iter()
        .filter_map(|(id, name)| name.map(|(name, optional)| (id, name, optional)))
    }

    /// Checks that the experts lie along an axis that is known.
    fn check(&self) -> Result<(), Error> {
        let wanted = self.input == RouterInputForm::ScaledStream;
        if self.tensors.input_scale.is_some() != wanted {
            let reason = "`router.input = \"scaled_stream\"` goes with `input_scale` in \
                          `[router.tensors]`"
                .to_owned();
            return Err(Error::Descriptor { reason });
        }
        match &self.tensors.correction_bias {
            Some(Named(SharedNameForm { expert_axis: Some(axis @ 2..), .. })) => {
                let reason = format!(
                    "`router.tensors.correction_bias` has its experts along axis {axis}; it may be \
                     `[experts]`, axis 0, or `[1, experts]`, axis 1"
                );
                Err(Error::Descriptor { reason })
            }
            _ => Ok(()),
        }
    }

    fn read(&self, config: &Config, several: bool, score: Score) -> Result<RouterSpec, Error> {
        let renormalize = match &self.renormalize {
            Renormalize::Always => true,
            Renormalize::Never => false,
            Renormalize::WhenSeveral => several,
            Renormalize::Config(key) => key.needed(config)?,
        };
        let groups = match &self.groups {
            Some(groups) => groups.read(config)?,
            None => None,
        };
        let number = |key: &Option<Key<f64>>, absent: f64| match key {
            Some(key) => Ok::<_, Error>(key.optional(config)?.unwrap_or(absent)),
            None => Ok(absent),
        };
        let (scale, least_sum) = (number(&self.scale, 1.0)?, number(&self.least_sum, 0.0)?);
        Ok(RouterSpec::Scored(ScoredRouter {
            score,
            groups,
            scale,
            epsilon: self.epsilon,
            least_sum,
            input: self.input.into(),
            selects_logits: self.selects_logits,
            gates: self.gates.into(),
            ..ScoredRouter::softmax(renormalize)
        }))
    }
}

impl GroupsForm {
    fn read(&self, config: &Config) -> Result<Option<ExpertGroups>, Error> {
        if let Some(when) = &self.when {
            let key = Key::<String> { keys: when.keys.clone(), default: None };
            if key.optional(config)?.as_ref() != Some(&when.is) {
                return Ok(None);
            }
        }
        let count = self.count.optional(config)?.unwrap_or(1);
        let selected = self.selected.optional(config)?.unwrap_or(count);
        if selected > count {
            return Err(config.refuse(format!(
                "`{}` is {selected}, but there are {count} groups of experts",
                self.selected.shown()
            )));
        }
        let score = match self.score {
            GroupScoreForm::TopTwo => GroupScore::TopTwo,
            GroupScoreForm::Max => GroupScore::Max,
        };
        Ok((count > 1).then_some(ExpertGroups { count, selected, score }))
    }
}

impl OpaqueForm {
    /// Its tensors beside the weight that are stored.
    fn of_layer(&self, named: &NamedTensors, layer: usize) -> Result<Vec<OpaqueTensor>, Error> {
        let mut tensors = Vec::new();
        for (key, Named(name)) in &self.tensors.other {
            let id = LayerTensor::Named(part_name("router", key)?);
            let mut shape = match named.shapes.get(&TensorId::Layer(layer, id)) {
                Some(shape) => shape.clone(),
                None if name.optional => continue,
                None => Vec::new(),
            };
            if let Some(axis) = name.expert_axis
                && !shape.is_empty()
            {
                let Some(dim) = shape.get_mut(axis) else {
                    let reason = format!(
                        "`router.tensors.{key}` has the experts along axis {axis}, but is \
                         {shape:?} in layer {layer}"
                    );
                    return Err(Error::Descriptor { reason });
                };
                *dim = 0;
            }
            tensors.push(OpaqueTensor { id, shape, expert_axis: name.expert_axis, form: None });
        }
        Ok(tensors)
    }
}
