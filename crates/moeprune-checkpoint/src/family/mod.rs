//! Model families as data.
//!
//! A [`Family`] says what a family's config keys and tensors are called, how its router works and
//! how its blocks are wired. It is parsed from TOML; `families/*.toml` of this crate are the
//! built-in ones and serve as examples.

mod attention;
mod built_in;
mod descriptor;
mod extends;
mod extra;
mod facts;
mod feed_forward;
mod fused;
mod implied;
mod key;
mod layer_templates;
mod mixers;
mod name;
mod names;
mod opaque_experts;
mod reads;
mod rotary;
mod router;
mod template;

use moeprune_core::{LayerTensor, TensorId};

pub use self::facts::{ExpertStorage, FamilyFacts};
pub(crate) use self::{
    attention::{Model, opaque_tensor},
    descriptor::{
        Descriptor, Extent, LayersForm, MultipliersForm, Requirement, SandwichForm, TypesForm,
    },
    fused::{FusedForm, Slab, SlabLayout},
    implied::{Fact, KEYS as FACT_KEYS},
    key::{Count, Key, Layers, PerLayer, Sequence, Strings, missing},
    mixers::Mixer,
    names::Names,
    reads::ReadKeys,
};
use self::{built_in::BUILT_IN, layer_templates::LayerTemplates};
use crate::Error;

/// Tensors of a layer, and what they are called after the layer's prefix.
type Slots<'a> = Vec<(LayerTensor, &'a str)>;

/// What a model family calls things and how its blocks are wired.
///
/// ```
/// use moeprune_checkpoint::Family;
/// use moeprune_core::{LinearId, MlpProjection, TensorId};
///
/// let family = Family::builtin("mixtral").expect("built in");
/// let up = TensorId::linear(3, LinearId::Expert(7, MlpProjection::Up));
/// let name = "model.layers.3.block_sparse_moe.experts.7.w3.weight";
/// assert_eq!(family.name_of(up).as_deref(), Some(name));
/// assert_eq!(family.part_of(name), Some(up));
/// ```
///
/// # Writing one
///
/// Start from the built-in descriptor that is nearest. An unknown TOML key is an error, so a
/// misspelt one is noticed. A config key is `{ keys = [aliases], default = value }`: the first
/// alias that is there counts, a dot descends into an object (`rope_parameters.rope_theta`), and
/// aliases that contradict each other are an error. `[[require]]` names config keys that must be
/// absent, null or one of `allowed`, or a list of which each entry is one of `each`, because nothing here
/// implements what else they could ask for. Keys that the descriptor does not name are refused too where they
/// ask for another activation, score, choice or norm than the family has, or begin with `rope_` or `rotary_`.
/// Attention and router have a `kind`, which decides what else their tables hold; of the kind
/// `opaque` only tensors are named, and such a model can be pruned and not run.
/// Names of a layer's tensors are given without what all of them begin with (`layers.prefix`), and
/// hold `{expert}` where there is one tensor for each expert. `{prefix}` stands for the key
/// `prefix`. Experts in tensors of their own may also lie in one tensor per layer, as transformers 5 keeps
/// them: `mlp.experts.gate_up_proj` where `[experts.tensors]` names `mlp.experts.{expert}.…`;
/// `[experts.fused]` says where that is otherwise. `extends` names a built-in descriptor of which only what is given is different. Tensors of
/// a decoder layer that no template names are refused when a model is opened,
/// since the forward pass would silently be without them; `layers.carried` lists those it does not
/// need.
#[derive(Debug, Clone)]
pub struct Family {
    descriptor: Descriptor,
    reads: ReadKeys,
    /// The names of parts outside of the layers.
    ends: Vec<(TensorId, String)>,
    decoder: LayerTemplates,
    /// Of layers behind the decoder's that have a prefix of their own.
    extra: Option<LayerTemplates>,
}

impl Family {
    /// Parses a descriptor.
    ///
    /// # Errors
    /// [`Error::Descriptor`] if it is not TOML, has a key that is not known, lacks one that is
    /// needed, or has a template without the placeholders its part needs.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let extended = extends::resolve(text)?;
        let descriptor: Result<Descriptor, _> = match &extended {
            Some(tables) => tables.clone().try_into(),
            None => toml::from_str(text),
        };
        let mut descriptor = descriptor.map_err(|e| Error::Descriptor { reason: e.to_string() })?;
        descriptor.experts = descriptor.experts.with_fused();
        descriptor.check()?;
        let reads = match &extended {
            Some(tables) => ReadKeys::of(tables),
            None => ReadKeys::of(&extends::parse(text)?),
        };
        Self::of(descriptor, reads)
    }

    fn of(descriptor: Descriptor, reads: ReadKeys) -> Result<Self, Error> {
        let prefix = descriptor.extra.as_ref().and_then(|extra| extra.prefix.as_deref());
        Ok(Self {
            ends: descriptor.ends()?,
            decoder: LayerTemplates::new(&descriptor, &descriptor.layers.prefix)?,
            extra: prefix.map(|prefix| LayerTemplates::new(&descriptor, prefix)).transpose()?,
            descriptor,
            reads,
        })
    }

    /// The family with `prefix` for its own, and `around` before names that do not begin with that.
    pub(crate) fn under(&self, prefix: &str, around: &str) -> Result<Self, Error> {
        let mut descriptor = self.descriptor.clone();
        prefix.clone_into(&mut descriptor.prefix);
        around.clone_into(&mut descriptor.around);
        Self::of(descriptor, self.reads.clone())
    }

    /// What stands in names of layers behind the decoder's where those of the decoder's have their prefix, of
    /// layers that have another.
    pub(crate) fn lead_of_extra(&self) -> Option<String> {
        let bare = self.under("", "").ok()?;
        let lead = bare.extra?.beginning().strip_suffix(bare.decoder.beginning())?.to_owned();
        Some(lead).filter(|lead| !lead.is_empty())
    }

    /// The built-in family for a `model_type` of `config.json`.
    #[must_use]
    pub fn builtin(model_type: &str) -> Option<Self> {
        Self::builtins().into_iter().find(|f| f.model_types().iter().any(|t| t == model_type))
    }

    /// All built-in families.
    #[must_use]
    pub fn builtins() -> Vec<Self> {
        let parse = |text| Self::from_toml(text).expect("built-in descriptors are tested");
        BUILT_IN.iter().map(|text| parse(text)).collect()
    }

    /// Name of the family.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.descriptor.name
    }

    /// Values of `model_type` in `config.json` that stand for this family.
    #[must_use]
    pub fn model_types(&self) -> &[String] {
        &self.descriptor.model_types
    }

    /// The name on disk of a part; `None` if the family has no such part. Layers are numbered on from
    /// the decoder's last, those behind it that have a prefix of their own too:
    /// [`Checkpoint::name_of`](crate::Checkpoint::name_of) knows where they begin.
    #[must_use]
    pub fn name_of(&self, id: TensorId) -> Option<String> {
        match id {
            TensorId::Layer(layer, tensor) => self.decoder.name_of(layer, tensor),
            end => self.ends.iter().find(|(id, _)| *id == end).map(|(_, name)| name.clone()),
        }
    }

    /// The part that a tensor of this name plays; `None` if no template gives such a name. Layers are
    /// as for [`name_of`](Self::name_of).
    #[must_use]
    pub fn part_of(&self, name: &str) -> Option<TensorId> {
        let end = self.ends.iter().find(|(_, end)| end == name).map(|(id, _)| *id);
        end.or_else(|| {
            let (layer, tensor) = self.decoder.part_of(name)?;
            Some(TensorId::Layer(layer, tensor))
        })
    }

    pub(crate) fn reads(&self) -> &ReadKeys {
        &self.reads
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}
