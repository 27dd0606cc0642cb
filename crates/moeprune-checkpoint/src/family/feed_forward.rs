//! `[experts]`, `[[shared]]`, `[residual]` and `[dense]`

use moeprune_core::{
    Activation, ClampedSwiglu, LayerTensor, LinearId, MlpProjection, MlpSpec, MoeInput, MoeSpec,
    SharedSpec, TensorId,
};
use serde::Deserialize;

use super::{
    Slots,
    fused::{FusedForm, Slab, SlabLayout},
    key::{Count, Key},
    name::{NameForm, Named},
    opaque_experts::OpaqueExpertsForm,
};
use crate::{Error, config::Config, named_tensors::NamedTensors};

/// The routed experts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpertsForm {
    /// One number for all layers, or a list of them.
    pub(crate) count: Key<usize>,
    pub(crate) inner: Key<usize>,
    #[serde(default)]
    pub(crate) input: MoeInputForm,
    /// A tensor for each matrix of each expert.
    pub(crate) tensors: Option<MlpNames>,
    /// All experts of a layer in one tensor. With `tensors` too, files may have either. Absent beside
    /// `tensors`: as transformers 5 keeps them, at the same place ([`MlpNames::fused`]).
    pub(crate) fused: Option<FusedForm>,
    /// What files may have in place of the matrices.
    pub(crate) opaque: Option<OpaqueExpertsForm>,
    /// Limits of gate and up, where the activation has some.
    clamped: Option<ClampedForm>,
    /// What experts of a width of their own read and write is made by; absent: they are as wide as the residual stream.
    latent: Option<LatentForm>,
}

/// Matrices between the residual stream and the width of the routed experts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct LatentForm {
    /// Absent from the config: there are no such matrices.
    width: Key<usize>,
    /// `[width, hidden]`
    to: String,
    /// `[hidden, width]`
    from: String,
}

/// SiLU with limits, and 1 added to up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClampedForm {
    /// What the gate is multiplied by within the logistic function.
    alpha: Key<f64>,
    limit: Key<f64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MoeInputForm {
    #[default]
    AfterAttention,
    LayerInput,
}

impl From<MoeInputForm> for MoeInput {
    fn from(form: MoeInputForm) -> Self {
        match form {
            MoeInputForm::AfterAttention => Self::AfterAttention,
            MoeInputForm::LayerInput => Self::LayerInput,
        }
    }
}

/// An expert that every token goes through.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SharedForm {
    pub(crate) inner: Key<usize>,
    /// How many of them are stored as one, side by side; absent: one.
    pub(crate) times: Option<Key<Count>>,
    /// What it is multiplied by, `[1, hidden]`.
    pub(crate) gate: Option<Named<NameForm>>,
    pub(crate) tensors: MlpNames,
}

/// The dense MLP beside the experts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResidualForm {
    pub(crate) when: Key<bool>,
    pub(crate) inner: Key<usize>,
    /// What the experts read in a model that has it.
    pub(crate) experts_input: MoeInputForm,
    /// The norm before it.
    pub(crate) norm: String,
    pub(crate) tensors: MlpNames,
}

/// The MLP of layers without experts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenseForm {
    pub(crate) inner: Key<usize>,
    pub(crate) tensors: MlpNames,
}

/// The tensors of an MLP; those that are not named it does not have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MlpNames {
    /// Whether the biases that are named are there; absent: they are. Experts may lack them all the
    /// same: newer code stores none.
    biases: Option<Key<bool>>,
    gate: Option<String>,
    up: String,
    down: String,
    gate_bias: Option<String>,
    up_bias: Option<String>,
    down_bias: Option<String>,
}

impl MlpNames {
    /// The names of its tensors.
    pub(super) fn slots<'a>(
        &'a self,
        slots: &mut Slots<'a>,
        id: impl Fn(MlpProjection) -> LinearId,
    ) {
        use MlpProjection::{Down, Gate, Up};
        for (projection, weight, bias) in [
            (Gate, self.gate.as_ref(), &self.gate_bias),
            (Up, Some(&self.up), &self.up_bias),
            (Down, Some(&self.down), &self.down_bias),
        ] {
            slots.extend(weight.map(|name| (LayerTensor::Linear(id(projection)), &**name)));
            slots.extend(bias.as_ref().map(|name| (LayerTensor::Bias(id(projection)), &**name)));
        }
    }

    /// Checks that biases are given for all matrices or for none.
    pub(super) fn check(&self, table: &str) -> Result<(), Error> {
        let given = [&self.gate_bias, &self.up_bias, &self.down_bias];
        let wanted = [self.gate.is_some(), true, true];
        let is =
            |all: bool| given.iter().zip(wanted).all(|(bias, has)| bias.is_some() == (all && has));
        if is(true) || is(false) {
            return Ok(());
        }
        let reason =
            format!("`[{table}.tensors]` must name a bias for each of its matrices or for none");
        Err(Error::Descriptor { reason })
    }

    /// How transformers 5 keeps experts that are stored apart: what is before the expert's number, then
    /// `gate_up_proj` (`up_proj` of experts without a gate) and `down_proj`, `[experts, out, in]`.
    /// `None` if matrices of an expert begin differently.
    fn fused(&self) -> Option<FusedForm> {
        let (stem, _) = self.up.split_once("{expert}")?;
        let named = |name: &str| format!("{stem}{name}");
        let has_gate = self.gate.is_some();
        let bias = if has_gate { "gate_up_proj_bias" } else { "up_proj_bias" };
        let has_bias = self.up_bias.is_some();
        let begin_so = self.gate.iter().chain([&self.down]).all(|name| name.starts_with(stem));
        begin_so.then(|| FusedForm {
            layout: SlabLayout::OutIn,
            interleaved: false,
            gate_up: has_gate.then(|| named("gate_up_proj")),
            gate: None,
            up: (!has_gate).then(|| named("up_proj")),
            down: named("down_proj"),
            gate_up_bias: has_bias.then(|| named(bias)),
            down_bias: has_bias.then(|| named("down_proj_bias")),
        })
    }

    /// What an MLP of these tensors is.
    pub(crate) fn spec(
        &self,
        config: &Config,
        inner: usize,
        activation: Activation,
    ) -> Result<MlpSpec, Error> {
        let said = self.biases.as_ref().map_or(Ok(true), |key| key.needed(config))?;
        let (gated, biases) = (self.gate.is_some(), self.up_bias.is_some() && said);
        Ok(MlpSpec { inner, gated, biases, activation })
    }
}

impl ExpertsForm {
    /// The same with the fused form that files of separate experts may have in their place.
    pub(super) fn with_fused(self) -> Self {
        let fused = self.fused.or_else(|| self.tensors.as_ref()?.fused());
        Self { fused, ..self }
    }

    /// The names of its tensors, but those that hold all experts of a layer.
    pub(super) fn slots<'a>(&'a self, slots: &mut Slots<'a>) {
        if let Some(tensors) = &self.tensors {
            tensors.slots(slots, |p| LinearId::Expert(0, p));
        }
        if let Some(LatentForm { to, from, .. }) = &self.latent {
            slots.push((LayerTensor::Linear(MoeSpec::TO_LATENT), to));
            slots.push((LayerTensor::Linear(MoeSpec::FROM_LATENT), from));
        }
    }

    /// Width of what the experts read and write, if it is one of their own.
    pub(crate) fn latent(&self, config: &Config) -> Result<Option<usize>, Error> {
        self.latent.as_ref().map_or(Ok(None), |latent| latent.width.optional(config))
    }

    /// Whether each has a gate.
    pub(crate) fn is_gated(&self) -> bool {
        match (&self.tensors, &self.fused) {
            (Some(tensors), _) => tensors.gate.is_some(),
            (None, fused) => fused.as_ref().is_none_or(FusedForm::is_gated),
        }
    }

    /// Checks that one form is given, and that two describe the same MLP.
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |reason: &str| Err(Error::Descriptor { reason: reason.to_owned() });
        if self.fused.as_ref().is_some_and(|fused| fused.gate_up.is_some() == fused.up.is_some()) {
            return bad("`experts.fused` must name either `gate_up` or `up`");
        }
        if self.fused.as_ref().is_some_and(|fused| fused.gate.is_some() && fused.up.is_none()) {
            return bad("`experts.fused` must name `up` beside `gate`");
        }
        let Some(fused) = &self.fused else {
            return match &self.tensors {
                Some(tensors) => tensors.check("experts"),
                None if self.opaque.is_some() => Ok(()),
                None => bad("`experts` needs `tensors`, `fused`, or both"),
            };
        };
        if fused.gate_up_bias.is_some() != fused.down_bias.is_some() {
            return bad("`experts.fused` must name both biases or none");
        }
        let Some(tensors) = &self.tensors else { return Ok(()) };
        tensors.check("experts")?;
        if fused.is_gated() != tensors.gate.is_some() {
            return bad("`experts.tensors` and `experts.fused` must agree about gates");
        }
        if fused.gate_up_bias.is_some() != tensors.up_bias.is_some() {
            return bad("`experts.tensors` and `experts.fused` must agree about biases");
        }
        Ok(())
    }

    /// The tensors that hold all experts of a layer, and their names after the layer's prefix.
    pub(super) fn slabs(&self) -> Result<Vec<(Slab, &str)>, Error> {
        let mut slabs: Vec<_> = self.fused.iter().flat_map(FusedForm::names).collect();
        if let Some(opaque) = &self.opaque {
            let named = opaque.fused()?.into_iter();
            slabs.extend(named.map(|(part, name)| (Slab::Opaque(part), name)));
        }
        Ok(slabs)
    }

    /// What each expert of a layer is, with the tensors that are stored.
    pub(crate) fn of_layer(&self, read: MlpSpec, named: &NamedTensors, layer: usize) -> MlpSpec {
        let up = LinearId::Expert(0, MlpProjection::Up);
        let up = TensorId::Layer(layer, LayerTensor::Bias(up));
        let may_lack = self.tensors.as_ref().is_some_and(|tensors| tensors.biases.is_some());
        let biases = read.biases && (!may_lack || named.shapes.contains_key(&up));
        MlpSpec { biases, ..read }
    }

    /// What each expert is.
    pub(crate) fn spec(&self, config: &Config, activation: Activation) -> Result<MlpSpec, Error> {
        let inner = self.inner.needed(config)?;
        let activation = match (&self.clamped, activation) {
            (Some(form), Activation::Silu) => Activation::ClampedSwiglu(ClampedSwiglu {
                alpha: form.alpha.needed(config)?,
                limit: form.limit.needed(config)?,
            }),
            _ => activation,
        };
        match (&self.tensors, &self.fused) {
            (Some(tensors), _) => tensors.spec(config, inner, activation),
            (None, fused) => {
                let biases = fused.as_ref().is_some_and(|fused| fused.gate_up_bias.is_some());
                Ok(MlpSpec { inner, gated: self.is_gated(), biases, activation })
            }
        }
    }
}

impl SharedForm {
    /// What the config says of it; `None` if there is none.
    pub(crate) fn read(
        &self,
        config: &Config,
        activation: Activation,
    ) -> Result<Option<SharedSpec>, Error> {
        let times = match &self.times {
            Some(key) => key.needed(config)?.0,
            None => 1,
        };
        if times == 0 {
            return Ok(None);
        }
        let inner = self.inner.needed(config)?;
        let wide = inner.checked_mul(times).filter(|wide| *wide <= 1 << 31).ok_or_else(|| {
            config.refuse(format!("{times} shared experts of width {inner} are too wide"))
        })?;
        let mlp = self.tensors.spec(config, wide, activation)?;
        Ok(Some(SharedSpec { mlp, gate: self.gate.is_some() }))
    }

    /// The same in a layer that may lack the gate.
    pub(crate) fn of_layer(
        &self,
        read: SharedSpec,
        at: usize,
        named: &NamedTensors,
        layer: usize,
    ) -> SharedSpec {
        let id = TensorId::Layer(layer, LayerTensor::SharedGate(at));
        let is_there = |gate: &Named<NameForm>| !gate.0.optional || named.shapes.contains_key(&id);
        SharedSpec { gate: self.gate.as_ref().is_some_and(is_there), ..read }
    }
}
