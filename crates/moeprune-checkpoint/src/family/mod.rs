//! Model families as data.
//!
//! A [`Family`] says what a family's config keys and tensors are called, how its router works and
//! how its blocks are wired. It is parsed from TOML; `families/*.toml` of this crate are the
//! built-in ones and serve as examples.

mod attention;
mod built_in;
mod descriptor;
mod facts;
mod feed_forward;
mod fused;
mod key;
mod name;
mod rotary;
mod router;
mod template;

use moeprune_core::{LayerTensor, TensorId};

pub use self::facts::{ExpertStorage, FamilyFacts};
pub(crate) use self::{
    attention::{Model, opaque_tensor},
    descriptor::{Descriptor, LayersForm, MultipliersForm, Requirement, SandwichForm, TypesForm},
    fused::{FusedForm, Slab, SlabLayout},
    key::{Count, Key, Layers, PerLayer, Strings, missing},
};
use self::{
    built_in::BUILT_IN,
    template::{Indices, Template},
};
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
/// absent, null or one of `allowed`, because nothing here implements what else they could ask for.
/// Attention and router have a `kind`, which decides what else their tables hold; of the kind
/// `opaque` only tensors are named, and such a model can be pruned and not run.
/// Names of a layer's tensors are given without what all of them begin with (`layers.prefix`), and
/// hold `{expert}` where there is one tensor for each expert. `{prefix}` stands for the key
/// `prefix`. Tensors of a decoder layer that no template names are refused when a model is opened,
/// since the forward pass would silently be without them; `layers.carried` lists those it does not
/// need.
#[derive(Debug, Clone)]
pub struct Family {
    descriptor: Descriptor,
    /// Every template of the descriptor; of one slot, other names after the descriptor's.
    templates: Vec<(Slot, Template)>,
    /// Of tensors that hold all experts of a layer.
    fused: Vec<(Slab, Template)>,
    carried: Vec<Template>,
    /// What the name of each tensor of a decoder layer begins with, up to the layer's number.
    layer_prefix: String,
}

/// A part whose layer and expert are still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Embedding,
    FinalNorm,
    FinalNormBias,
    Head,
    HeadBias,
    Layer(LayerTensor),
}

impl Family {
    /// Parses a descriptor.
    ///
    /// # Errors
    /// [`Error::Descriptor`] if it is not TOML, has a key that is not known, lacks one that is
    /// needed, or has a template without the placeholders its part needs.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let descriptor: Descriptor =
            toml::from_str(text).map_err(|e| Error::Descriptor { reason: e.to_string() })?;
        descriptor.check()?;
        let full = |name: &str| name.replace("{prefix}", &descriptor.prefix);
        let layer_prefix = full(&descriptor.layers.prefix);
        let of_layer = |name: &str| format!("{layer_prefix}{}", full(name));
        let ends = &descriptor.model.tensors;
        let mut slots = vec![
            (Slot::Embedding, full(&ends.embedding)),
            (Slot::FinalNorm, full(&ends.final_norm)),
            (Slot::Head, full(&ends.head)),
        ];
        slots.extend(ends.head_bias.iter().map(|name| (Slot::HeadBias, full(name))));
        slots.extend(ends.final_norm_bias.iter().map(|name| (Slot::FinalNormBias, full(name))));
        for (tensor, name) in descriptor.layer_slots()? {
            slots.push((Slot::Layer(tensor), of_layer(name)));
            let same = descriptor.layers.aliases.iter().filter(|(_, of)| *of == name);
            slots.extend(same.map(|(alias, _)| (Slot::Layer(tensor), of_layer(alias))));
        }
        let templates = parse_slots(slots)?;
        let mut fused = Vec::new();
        for (slab, name) in descriptor.experts.fused.iter().flat_map(FusedForm::names) {
            let template = Template::parse(&of_layer(name))?;
            template.check(true, false)?;
            fused.push((slab, template));
        }
        let mut carried = Vec::new();
        for name in &descriptor.layers.carried {
            let template = Template::parse(&of_layer(name))?;
            template.check(true, false)?;
            carried.push(template);
        }
        let layer_prefix = layer_prefix.split("{layer}").next().unwrap_or_default().to_owned();
        Ok(Self { descriptor, templates, fused, carried, layer_prefix })
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
        BUILT_IN.into_iter().map(parse).collect()
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

    /// The name on disk of a part; `None` if the family has no such part.
    #[must_use]
    pub fn name_of(&self, id: TensorId) -> Option<String> {
        let (slot, indices) = match id {
            TensorId::Embedding => (Slot::Embedding, Indices::default()),
            TensorId::FinalNorm => (Slot::FinalNorm, Indices::default()),
            TensorId::FinalNormBias => (Slot::FinalNormBias, Indices::default()),
            TensorId::LmHead => (Slot::Head, Indices::default()),
            TensorId::LmHeadBias => (Slot::HeadBias, Indices::default()),
            TensorId::Layer(layer, tensor) => {
                let indices = Indices { layer: Some(layer), expert: tensor.expert() };
                (Slot::Layer(tensor.with_expert(0)), indices)
            }
            _ => return None,
        };
        let (_, template) = self.templates.iter().find(|(s, _)| *s == slot)?;
        Some(template.name(indices))
    }

    /// The part that a tensor of this name plays; `None` if no template gives such a name.
    #[must_use]
    pub fn part_of(&self, name: &str) -> Option<TensorId> {
        self.templates.iter().find_map(|(slot, template)| {
            let indices = template.indices(name)?;
            Some(match *slot {
                Slot::Embedding => TensorId::Embedding,
                Slot::FinalNorm => TensorId::FinalNorm,
                Slot::FinalNormBias => TensorId::FinalNormBias,
                Slot::Head => TensorId::LmHead,
                Slot::HeadBias => TensorId::LmHeadBias,
                Slot::Layer(tensor) => {
                    let expert = indices.expert.unwrap_or_default();
                    TensorId::Layer(indices.layer?, tensor.with_expert(expert))
                }
            })
        })
    }

    /// The layer whose experts a tensor of this name holds, and what it holds of each; `None` if no
    /// template of such tensors gives the name.
    pub(crate) fn fused_of(&self, name: &str) -> Option<(usize, Slab)> {
        self.fused.iter().find_map(|(slab, template)| Some((template.indices(name)?.layer?, *slab)))
    }

    /// The name of the tensor that holds a part of every expert of a layer, if the family fuses it.
    pub(crate) fn fused_name_of(&self, id: TensorId) -> Option<String> {
        let TensorId::Layer(layer, tensor) = id else { return None };
        let (_, template) = self.fused.iter().find(|(slab, _)| {
            tensor.expert().is_some_and(|expert| slab.tensors(expert, true).contains(&tensor))
        })?;
        Some(template.name(Indices { layer: Some(layer), expert: None }))
    }

    /// The name of the same tensor of another expert; of a tensor that is no expert's, its own.
    pub(crate) fn name_with_expert(&self, name: &str, expert: usize) -> String {
        let renamed = self.templates.iter().find_map(|(_, template)| {
            let indices = template.indices(name)?;
            indices.expert?;
            Some(template.name(Indices { expert: Some(expert), ..indices }))
        });
        renamed.unwrap_or_else(|| name.to_owned())
    }

    /// Whether a name that plays no part belongs to a decoder layer and may be carried over.
    pub(crate) fn is_carried(&self, name: &str) -> bool {
        self.carried.iter().any(|template| template.indices(name).is_some())
    }

    /// The decoder layer whose name prefix a tensor has, with any rest.
    pub(crate) fn layer_of(&self, name: &str) -> Option<usize> {
        let rest = name.strip_prefix(&self.layer_prefix)?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest[..digits].parse().ok()
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

/// The names of single parts, each with the placeholders that its part needs.
fn parse_slots(slots: Vec<(Slot, String)>) -> Result<Vec<(Slot, Template)>, Error> {
    let mut templates: Vec<(Slot, Template)> = Vec::new();
    for (slot, text) in slots {
        let template = Template::parse(&text)?;
        let (layer, expert) = match slot {
            Slot::Layer(tensor) => (true, tensor.expert().is_some()),
            _ => (false, false),
        };
        template.check(layer, expert)?;
        if templates.iter().any(|(_, other)| *other == template) {
            let reason = format!("template `{text}` is given twice");
            return Err(Error::Descriptor { reason });
        }
        templates.push((slot, template));
    }
    Ok(templates)
}
