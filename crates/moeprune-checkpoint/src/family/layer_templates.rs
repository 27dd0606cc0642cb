//! What the tensors of layers are called: of the decoder's, or of those behind them.

use moeprune_core::LayerTensor;

use super::{
    descriptor::Descriptor,
    fused::Slab,
    template::{Indices, Template},
};
use crate::Error;

/// The names of all tensors of a layer whose number is still open.
#[derive(Debug, Clone)]
pub(super) struct LayerTemplates {
    /// What every name begins with, up to the layer's number.
    prefix: String,
    /// Of single tensors; of one tensor, other names after the descriptor's.
    tensors: Vec<(LayerTensor, Template)>,
    /// What the names of an expert's tensors begin with, its number included.
    experts: Vec<Template>,
    /// What names of tensors begin with that hold something of all experts of a layer.
    beside_experts: Vec<Template>,
    /// Of tensors that hold all experts of a layer.
    fused: Vec<(Slab, Template)>,
    /// Of tensors that play no part.
    carried: Vec<Template>,
}

impl LayerTemplates {
    /// The names that a descriptor gives, each after `prefix`.
    pub(super) fn new(descriptor: &Descriptor, prefix: &str) -> Result<Self, Error> {
        let full = |name: &str| name.replace("{prefix}", &descriptor.prefix);
        let prefix = descriptor.full_name(prefix);
        let parse = |name: &str, expert: bool| {
            let template = Template::parse(&format!("{prefix}{}", full(name)))?;
            template.check(true, expert).map(|()| template)
        };
        let aliases = &descriptor.layers.aliases;
        let called = |name| {
            let same = aliases.iter().filter(move |(_, of)| *of == name);
            [name].into_iter().chain(same.map(|(alias, _)| &**alias))
        };
        let mut tensors: Vec<(LayerTensor, Template)> = Vec::new();
        for (tensor, name) in descriptor.layer_slots()? {
            for name in called(name) {
                let template = parse(name, tensor.expert().is_some())?;
                if tensors.iter().any(|(_, other)| *other == template) {
                    let reason = format!("template `{prefix}{}` is given twice", full(name));
                    return Err(Error::Descriptor { reason });
                }
                tensors.push((tensor, template));
            }
        }
        let slabs = descriptor.experts.slabs()?;
        let mut beside_experts = Vec::new();
        let separate = descriptor.layer_slots()?.into_iter();
        let separate = separate.filter_map(|(_, name)| Some(name.split_once("{expert}")?.0));
        let folders = slabs.iter().filter_map(|(_, name)| Some(&name[..=name.rfind('.')?]));
        for name in separate.chain(folders).filter(|name| name.ends_with(".")) {
            let template = parse(name, false)?;
            if !beside_experts.contains(&template) {
                beside_experts.push(template);
            }
        }
        let fused = slabs.iter().copied();
        let fused = fused.flat_map(|(slab, name)| called(name).map(move |name| (slab, name)));
        let fused = fused.map(|(slab, name)| Ok((slab, parse(name, false)?)));
        let carried = descriptor.layers.carried.iter().map(|name| parse(name, false));
        let mut experts: Vec<Template> = Vec::new();
        for begin in tensors.iter().filter_map(|(_, template)| template.up_to_expert()) {
            if !experts.contains(&begin) {
                experts.push(begin);
            }
        }
        Ok(Self {
            experts,
            beside_experts,
            fused: fused.collect::<Result<_, Error>>()?,
            carried: carried.collect::<Result<_, Error>>()?,
            tensors,
            prefix: prefix.split("{layer}").next().unwrap_or_default().to_owned(),
        })
    }

    /// The name of a tensor of a layer.
    pub(super) fn name_of(&self, layer: usize, tensor: LayerTensor) -> Option<String> {
        let any = tensor.with_expert(0);
        let (_, template) = self.tensors.iter().find(|(other, _)| *other == any)?;
        Some(template.name(Indices { layer: Some(layer), expert: tensor.expert() }))
    }

    /// The layer and the tensor that a name is of.
    pub(super) fn part_of(&self, name: &str) -> Option<(usize, LayerTensor)> {
        self.tensors.iter().find_map(|(tensor, template)| {
            let Indices { layer, expert } = template.indices(name)?;
            Some((layer?, tensor.with_expert(expert.unwrap_or_default())))
        })
    }

    /// The layer whose experts a tensor of this name holds, and what it holds of each.
    pub(super) fn fused_of(&self, name: &str) -> Option<(usize, Slab)> {
        self.fused.iter().find_map(|(slab, template)| Some((template.indices(name)?.layer?, *slab)))
    }

    /// The name of the tensor that holds a part of every expert of a layer, if there can be one.
    pub(super) fn fused_name_of(&self, layer: usize, tensor: LayerTensor) -> Option<String> {
        let (_, template) = self.fused.iter().find(|(slab, _)| {
            tensor.expert().is_some_and(|expert| slab.tensors(expert, true).contains(&tensor))
        })?;
        Some(template.name(Indices { layer: Some(layer), expert: None }))
    }

    /// The name of the same tensor of another expert; `None` of a name that is no expert's.
    pub(super) fn name_with_expert(&self, name: &str, expert: usize) -> Option<String> {
        self.experts.iter().find_map(|template| {
            let (indices, rest) = template.begins(name)?;
            Some(template.name(Indices { expert: Some(expert), ..indices }) + after_number(rest)?)
        })
    }

    /// The layer and the expert that a name is of, known or not, and what follows the expert's number.
    pub(super) fn expert_of<'a>(&self, name: &'a str) -> Option<(usize, usize, &'a str)> {
        self.experts.iter().find_map(|template| {
            let (indices, rest) = template.begins(name)?;
            Some((indices.layer?, indices.expert?, after_number(rest)?))
        })
    }

    /// The layer of a tensor that stands where those are that hold something of all its experts, and what
    /// follows in its name.
    pub(super) fn beside_experts<'a>(&self, name: &'a str) -> Option<(usize, &'a str)> {
        self.beside_experts.iter().find_map(|template| {
            let (indices, rest) = template.begins(name)?;
            let is_one = rest.starts_with(|c: char| c.is_ascii_digit());
            if is_one { None } else { Some((indices.layer?, rest)) }
        })
    }

    /// The matrix of an expert that is named first.
    pub(super) fn first_of_expert(&self) -> Option<LayerTensor> {
        self.tensors.iter().map(|(tensor, _)| *tensor).find(|tensor| tensor.expert().is_some())
    }

    /// The name that is most like one that is not known, of the same layer and expert.
    pub(super) fn nearest(&self, name: &str, layer: usize) -> Option<String> {
        let number = |part: &str| part.parse().ok();
        let expert = name.split('.').filter_map(number).nth(1).unwrap_or_default();
        let indices = Indices { layer: Some(layer), expert: Some(expert) };
        let templates = self.tensors.iter().map(|(_, template)| template);
        let names = templates.chain(self.fused.iter().map(|(_, template)| template));
        let names: Vec<String> = names.map(|template| template.name(indices)).collect();
        names.into_iter().min_by_key(|known| strsim::levenshtein(known, name))
    }

    /// Whether a name that plays no part may be carried over.
    pub(super) fn is_carried(&self, name: &str) -> bool {
        self.carried.iter().any(|template| template.indices(name).is_some())
    }

    /// What every name begins with, up to the layer's number.
    pub(super) fn beginning(&self) -> &str {
        &self.prefix
    }

    /// The layer whose name prefix a tensor has, with any rest.
    pub(super) fn layer_of(&self, name: &str) -> Option<usize> {
        let rest = name.strip_prefix(&self.prefix)?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest[..digits].parse().ok()
    }
}

/// What follows a number in a name, if the number ends there.
fn after_number(rest: &str) -> Option<&str> {
    rest.starts_with(['.', '_']).then_some(rest)
}
