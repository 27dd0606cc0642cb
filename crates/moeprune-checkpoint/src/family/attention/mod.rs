//! `[attention]`

mod grouped;
mod latent;
mod opaque;
mod window;

use moeprune_core::{AttentionSpec, LayerTensor, TensorId};
use serde::Deserialize;

pub(crate) use self::opaque::opaque_tensor;
pub(super) use self::opaque::part_name;
use self::{grouped::GroupedForm, latent::LatentForm, opaque::OpaqueForm};
use super::{
    Slots,
    key::Key,
    name::{NameForm, Named},
};
use crate::{Error, config::Config, named_tensors::NamedTensors};

/// The kind decides which keys there are.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum AttentionForm {
    Grouped(Box<GroupedForm>),
    Latent(Box<LatentForm>),
    Opaque(OpaqueForm),
}

/// What a model's attention is read from.
#[derive(Clone, Copy)]
pub(crate) struct Model<'a> {
    pub(crate) config: &'a Config,
    pub(crate) named: &'a NamedTensors,
    /// Decoder layers.
    pub(crate) layers: usize,
    /// Width of the residual stream.
    pub(crate) hidden: usize,
    /// Longest sequence.
    pub(crate) max_positions: usize,
}

impl AttentionForm {
    /// The names of its tensors.
    pub(super) fn slots<'a>(&'a self, slots: &mut Slots<'a>) -> Result<(), Error> {
        match self {
            Self::Grouped(form) => slots.extend(form.slots()),
            Self::Latent(form) => slots.extend(form.slots()),
            Self::Opaque(form) => {
                for (id, name) in form.tensors()? {
                    slots.push((id, &name.name));
                }
            }
        }
        Ok(())
    }

    /// Checks what types cannot: tensors that go together are named together.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Grouped(form) => form.check(),
            Self::Latent(form) => form.check(),
            Self::Opaque(_) => Ok(()),
        }
    }

    /// The attention of each decoder layer.
    pub(crate) fn read(&self, model: Model<'_>) -> Result<Vec<AttentionSpec>, Error> {
        match self {
            Self::Grouped(form) => {
                Ok(form.read(model)?.into_iter().map(AttentionSpec::Grouped).collect())
            }
            Self::Latent(form) => Ok(vec![AttentionSpec::Latent(form.read(model)?); model.layers]),
            Self::Opaque(form) => {
                let layers = 0..model.layers;
                layers.map(|layer| form.read(model, layer).map(AttentionSpec::Opaque)).collect()
            }
        }
    }

    /// The attention of one layer by its stored tensors alone, of a kind that cannot be run.
    pub(crate) fn read_opaque(
        &self,
        model: Model<'_>,
        layer: usize,
    ) -> Result<AttentionSpec, Error> {
        match self {
            Self::Opaque(form) => form.read(model, layer).map(AttentionSpec::Opaque),
            Self::Grouped(_) | Self::Latent(_) => Ok(AttentionSpec::Opaque(Vec::new())),
        }
    }
}

/// Tensors that are there or not as a config key says.
#[derive(Clone, Copy)]
struct Conditional<'a> {
    /// Absent: they are always there.
    when: Option<&'a Key<bool>>,
    tensors: &'a [(LayerTensor, &'a Option<String>)],
}

impl<'a> Conditional<'a> {
    /// Whether all of them are there in all layers. Fails if the config says one thing and the tensors
    /// another.
    fn are_there(self, model: Model<'_>) -> Result<bool, Error> {
        let named = || {
            let name = |&(id, name): &(LayerTensor, &'a Option<String>)| Some((id, name.as_ref()?));
            self.tensors.iter().filter_map(name)
        };
        let Some((first, _)) = named().next() else { return Ok(false) };
        let Some(key) = self.when else { return Ok(true) };
        let is_stored = |layer, id| model.named.shapes.contains_key(&TensorId::Layer(layer, id));
        let said = key.optional(model.config)?.unwrap_or_else(|| is_stored(0, first));
        for layer in 0..model.layers {
            let Some((id, name)) = named().find(|(id, _)| is_stored(layer, *id) != said) else {
                continue;
            };
            let says = match key.found(model.config)? {
                Some(key) => format!("`{key}` is {said}"),
                None => format!("`{}` is not there, which means {said}", key.shown()),
            };
            let stored = if is_stored(layer, id) { "there is a" } else { "there is no" };
            let reason = format!("{says}, but {stored} `{name}` in layer {layer} ({id})");
            return Err(model.config.refuse(reason));
        }
        Ok(said)
    }
}
