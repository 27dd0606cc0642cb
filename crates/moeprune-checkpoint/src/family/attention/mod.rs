//! `[attention]`

mod by_layer;
mod gated_delta;
mod grouped;
mod indexer;
mod kimi_delta;
mod latent;
mod mamba2;
mod opaque;
mod own_widths;
mod short_convolution;
mod window;

use moeprune_core::{AttentionSpec, LayerSpec, LayerTensor, TensorId};
use serde::Deserialize;

pub(crate) use self::opaque::opaque_tensor;
pub(super) use self::opaque::part_name;
use self::{
    by_layer::ByLayerForm, gated_delta::GatedDeltaForm, grouped::GroupedForm,
    kimi_delta::KimiDeltaForm, latent::LatentForm, mamba2::Mamba2Form, opaque::OpaqueForm,
    short_convolution::ShortConvolutionForm,
};
use super::{
    Slots,
    key::Key,
    mixers::Mixer,
    name::{NameForm, Named},
};
use crate::{Error, config::Config, named_tensors::NamedTensors};

/// The kind decides which keys there are.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum AttentionForm {
    Grouped(Box<GroupedForm>),
    Latent(Box<LatentForm>),
    GatedDelta(Box<GatedDeltaForm>),
    KimiDelta(Box<KimiDeltaForm>),
    ShortConvolution(Box<ShortConvolutionForm>),
    Mamba2(Box<Mamba2Form>),
    Opaque(OpaqueForm),
    ByLayer(Box<ByLayerForm>),
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
    /// Which layers have the kind that is read; `None`: all.
    pub(crate) chosen: Option<&'a [bool]>,
    /// The only mixer of each layer, of a family whose layers have one.
    pub(crate) mixers: Option<&'a [Mixer]>,
}

impl Model<'_> {
    /// The layers that have the kind that is read.
    fn chosen_layers(self) -> impl Iterator<Item = usize> {
        let is_chosen =
            move |layer: &usize| self.chosen.is_none_or(|chosen| chosen.get(*layer) == Some(&true));
        (0..self.layers).filter(is_chosen)
    }
}

impl AttentionForm {
    /// The kinds as descriptors name them, each once.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        match self {
            Self::Grouped(_) => vec!["grouped"],
            Self::Latent(_) => vec!["latent"],
            Self::GatedDelta(_) => vec!["gated_delta"],
            Self::KimiDelta(_) => vec!["kimi_delta"],
            Self::ShortConvolution(_) => vec!["short_convolution"],
            Self::Mamba2(_) => vec!["mamba2"],
            Self::Opaque(_) => vec!["opaque"],
            Self::ByLayer(form) => form.attention_kinds(),
        }
    }

    /// The names of its tensors.
    pub(super) fn slots<'a>(&'a self, slots: &mut Slots<'a>) -> Result<(), Error> {
        match self {
            Self::Grouped(form) => slots.extend(form.slots()),
            Self::Latent(form) => slots.extend(form.slots()),
            Self::GatedDelta(form) => slots.extend(form.slots()),
            Self::KimiDelta(form) => slots.extend(form.slots()),
            Self::ShortConvolution(form) => slots.extend(form.slots()),
            Self::Mamba2(form) => slots.extend(form.slots()),
            Self::ByLayer(form) => form.slots(slots)?,
            Self::Opaque(form) => {
                for (id, name) in form.tensors()? {
                    slots.push((id, &name.name));
                }
            }
        }
        Ok(())
    }

    /// Whether layers differ in attention and these are all kinds of it.
    pub(super) fn has_exactly_the_kinds<'a>(
        &self,
        kinds: impl Iterator<Item = &'a String>,
    ) -> bool {
        matches!(self, Self::ByLayer(form) if form.kinds().eq(kinds))
    }

    /// Checks what types cannot: tensors that go together are named together.
    /// `by_mixers`: whether the layers' only mixers say which has what.
    pub(super) fn check(&self, by_mixers: bool) -> Result<(), Error> {
        match self {
            Self::Grouped(form) => form.check(),
            Self::Latent(form) => form.check(),
            Self::GatedDelta(form) => form.check(),
            Self::ShortConvolution(form) => form.check(),
            Self::Mamba2(form) => form.check(),
            Self::KimiDelta(_) | Self::Opaque(_) => Ok(()),
            Self::ByLayer(form) => form.check(by_mixers),
        }
    }

    /// The attention of each decoder layer, as if all were of this kind.
    pub(crate) fn read(&self, model: Model<'_>) -> Result<Vec<AttentionSpec>, Error> {
        let everywhere = |spec| vec![spec; model.layers];
        match self {
            Self::Grouped(form) => {
                Ok(form.read(model)?.into_iter().map(AttentionSpec::Grouped).collect())
            }
            Self::Latent(form) => {
                Ok(form.read(model)?.into_iter().map(AttentionSpec::Latent).collect())
            }
            Self::GatedDelta(form) => Ok(everywhere(AttentionSpec::GatedDelta(form.read(model)?))),
            Self::KimiDelta(form) => Ok(everywhere(AttentionSpec::KimiDelta(form.read(model)?))),
            Self::ShortConvolution(form) => {
                Ok(everywhere(AttentionSpec::ShortConvolution(form.read(model)?)))
            }
            Self::Mamba2(form) => Ok(everywhere(AttentionSpec::Mamba2(form.read(model)?))),
            Self::ByLayer(form) => form.read(model),
            Self::Opaque(form) => {
                let layers = 0..model.layers;
                layers.map(|layer| form.read(model, layer).map(AttentionSpec::Opaque)).collect()
            }
        }
    }

    /// Whether layers may differ and `word` stands for one of the kinds.
    pub(super) fn has_kind(&self, word: &str) -> bool {
        matches!(self, Self::ByLayer(form) if form.kind(word).is_some())
    }

    /// Where layers differ, the key of the kind of which a layer stores tensors.
    pub(crate) fn stored_kind(
        &self,
        named: &NamedTensors,
        layer: usize,
    ) -> Result<Option<&str>, Error> {
        match self {
            Self::ByLayer(form) => form.stored_kind(named, layer),
            _ => Ok(None),
        }
    }

    /// The attention of a layer behind the decoder's: of the kind that `word` stands for, or else as of
    /// the decoder's last layer.
    pub(crate) fn read_extra(
        &self,
        word: Option<&str>,
        model: Model<'_>,
        decoder: &[LayerSpec],
        layer: usize,
    ) -> Result<AttentionSpec, Error> {
        match (self, word) {
            (Self::Opaque(form), _) => form.read(model, layer).map(AttentionSpec::Opaque),
            (Self::ByLayer(form), Some(word)) => form.read_extra(word, model, layer),
            _ => Ok(match decoder.last().map(|last| &last.attention) {
                None | Some(AttentionSpec::Opaque(_)) => AttentionSpec::Opaque(Vec::new()),
                Some(AttentionSpec::Latent(latent)) => {
                    AttentionSpec::Latent(indexer::of_extra(latent, model.named, layer))
                }
                Some(known) => known.clone(),
            }),
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
    /// Whether all of them are there in all layers of the kind. Fails if the config says one thing and the tensors
    /// another.
    fn are_there(self, model: Model<'_>) -> Result<bool, Error> {
        let named = || {
            let name = |&(id, name): &(LayerTensor, &'a Option<String>)| Some((id, name.as_ref()?));
            self.tensors.iter().filter_map(name)
        };
        let Some((first, _)) = named().next() else { return Ok(false) };
        let Some(key) = self.when else { return Ok(true) };
        let is_stored = |layer, id| model.named.shapes.contains_key(&TensorId::Layer(layer, id));
        let first_layer = model.chosen_layers().next().unwrap_or(0);
        let said = key.optional(model.config)?.unwrap_or_else(|| is_stored(first_layer, first));
        for layer in model.chosen_layers() {
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
