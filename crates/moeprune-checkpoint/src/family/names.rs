//! The names of one model's tensors.

use moeprune_core::{PartName, TensorId};

use super::{Family, Slab, layer_templates::LayerTemplates};

/// The names of a family in a model with so many decoder layers, behind which others are numbered on,
/// independently of the number in their names.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    family: Family,
    /// Decoder layers; `None` where nothing is known behind them.
    decoder: Option<usize>,
}

impl Names {
    /// The names of a model whose layers behind the decoder's begin with `first`.
    pub(crate) fn new(family: Family, first: Option<usize>) -> Self {
        Self { family, decoder: first }
    }

    /// The same of another family.
    pub(crate) fn of_family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    pub(crate) fn family(&self) -> &Family {
        &self.family
    }

    /// The name on disk of a part; `None` if the family has no such part.
    pub(crate) fn name_of(&self, id: TensorId) -> Option<String> {
        let TensorId::Layer(layer, tensor) = id else { return self.family.name_of(id) };
        let (templates, number) = self.templates_of(layer);
        templates.name_of(number, tensor)
    }

    /// The part that a tensor of this name plays; `None` if no template gives such a name.
    pub(crate) fn part_of(&self, name: &str) -> Option<TensorId> {
        self.family.part_of(name).or_else(|| {
            let (layer, tensor) = self.behind()?.part_of(name)?;
            Some(TensorId::Layer(self.numbered_on(layer)?, tensor))
        })
    }

    /// The layer whose experts a tensor of this name holds, and what it holds of each; `None` if no
    /// template of such tensors gives the name.
    pub(crate) fn fused_of(&self, name: &str) -> Option<(usize, Slab)> {
        self.family.decoder.fused_of(name).or_else(|| {
            let (layer, slab) = self.behind()?.fused_of(name)?;
            Some((self.numbered_on(layer)?, slab))
        })
    }

    /// The layer of a tensor that stands where those are that hold something of all its experts, and what
    /// it is called here; `None` if it stands elsewhere, or has a name that is none here.
    pub(crate) fn beside_experts(&self, name: &str) -> Option<(usize, PartName)> {
        let (layer, rest) = self.family.decoder.beside_experts(name).or_else(|| {
            let (layer, rest) = self.behind()?.beside_experts(name)?;
            Some((self.numbered_on(layer)?, rest))
        })?;
        let part = PartName::parse(&format!("experts.{}", rest.to_ascii_lowercase())).ok()?;
        Some((layer, part))
    }

    /// The name of the tensor that holds a part of every expert of a layer, if the family fuses it.
    pub(crate) fn fused_name_of(&self, id: TensorId) -> Option<String> {
        let TensorId::Layer(layer, tensor) = id else { return None };
        let (templates, number) = self.templates_of(layer);
        templates.fused_name_of(number, tensor)
    }

    /// The name of the same tensor of another expert; of a tensor that is no expert's, its own.
    pub(crate) fn name_with_expert(&self, name: &str, expert: usize) -> String {
        let renamed = self.family.decoder.name_with_expert(name, expert);
        let renamed = renamed.or_else(|| self.behind()?.name_with_expert(name, expert));
        renamed.unwrap_or_else(|| name.to_owned())
    }

    /// The layer and the expert that a tensor is of, by what its name begins with, and what follows the
    /// expert's number.
    pub(crate) fn expert_of<'a>(&self, name: &'a str) -> Option<(usize, usize, &'a str)> {
        self.family.decoder.expert_of(name).or_else(|| {
            let (layer, expert, rest) = self.behind()?.expert_of(name)?;
            Some((self.numbered_on(layer)?, expert, rest))
        })
    }

    /// The part that a tensor of this name helps to hold if its module is stored in several tensors, and
    /// what the name has after that of the module. Of a tensor that is an expert's and of none of its
    /// modules, the expert's first matrix, and `../` before what follows the expert's number.
    pub(crate) fn module_of(&self, name: &str) -> Option<(TensorId, String)> {
        let ends = name.rmatch_indices('.').map(|(at, _)| at);
        let within = self.expert_of(name).map_or(0, |(.., rest)| name.len() - rest.len());
        for end in ends.filter(|&end| end > within) {
            let part = self.part_of(&format!("{}.weight", &name[..end]));
            if let Some(part) = part.filter(|part| part.expert().is_some() || within == 0) {
                return Some((part, name[end + 1..].to_owned()));
            }
        }
        let (layer, expert, rest) = self.expert_of(name)?;
        let first = self.templates_of(layer).0.first_of_expert()?.with_expert(expert);
        Some((TensorId::Layer(layer, first), format!("../{}", rest.trim_start_matches('.'))))
    }

    /// The name of a decoder layer's tensor that is most like one that is not known.
    pub(crate) fn nearest(&self, name: &str) -> Option<String> {
        self.family.decoder.nearest(name, self.decoder_layer_of(name)?)
    }

    /// Whether a name that plays no part belongs to a decoder layer and may be carried over.
    pub(crate) fn is_carried(&self, name: &str) -> bool {
        self.family.decoder.is_carried(name)
    }

    /// The decoder layer whose name prefix a tensor has, with any rest.
    pub(crate) fn decoder_layer_of(&self, name: &str) -> Option<usize> {
        let layer = self.family.decoder.layer_of(name)?;
        let behind = self.behind().is_none() && self.decoder.is_some_and(|first| layer >= first);
        (!behind).then_some(layer)
    }

    /// The layer behind the decoder's whose name prefix a tensor has, with any rest.
    pub(crate) fn extra_layer_of(&self, name: &str) -> Option<usize> {
        match self.behind() {
            Some(templates) => self.numbered_on(templates.layer_of(name)?),
            None => {
                let layer = self.family.decoder.layer_of(name)?;
                self.decoder.is_some_and(|first| layer >= first).then_some(layer)
            }
        }
    }

    /// Whether a tensor that plays no part belongs to the layers behind the decoder's, in one of them or
    /// beside them.
    pub(crate) fn is_of_extra(&self, name: &str) -> bool {
        let form = self.family.descriptor.extra.iter();
        let begin = form.flat_map(|extra| &extra.besides);
        let begins = |begin: &String| name.starts_with(&self.family.descriptor.full_name(begin));
        self.extra_layer_of(name).is_some() || begin.into_iter().any(begins)
    }

    /// Whether layers behind the decoder's have names as its own have.
    pub(crate) fn numbers_extra_on(&self) -> bool {
        self.behind().is_none()
    }

    /// The number of the first layer behind the decoder's in names.
    pub(crate) fn first_number(&self) -> usize {
        if self.behind().is_some() { 0 } else { self.decoder.unwrap_or_default() }
    }

    /// The names of layers that have a prefix of their own.
    fn behind(&self) -> Option<&LayerTemplates> {
        self.family.extra.as_ref().filter(|_| self.decoder.is_some())
    }

    /// The number here of a layer whose names have another.
    fn numbered_on(&self, in_names: usize) -> Option<usize> {
        self.decoder?.checked_add(in_names)
    }

    /// The names of a layer, and its number in them.
    fn templates_of(&self, layer: usize) -> (&LayerTemplates, usize) {
        let number = self.decoder.and_then(|first| layer.checked_sub(first));
        match self.behind().zip(number) {
            Some((templates, number)) => (templates, number),
            None => (&self.family.decoder, layer),
        }
    }
}
