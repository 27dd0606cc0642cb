//! What a checkpoint is, in numbers a person can read.

use std::collections::{BTreeMap, BTreeSet};

use moeprune_core::{ParameterCounts, Part, TensorId};
use serde::Serialize;

use super::{
    Checkpoint, StoredTensor,
    roles::{role_of, role_of_part},
    storage::{self, Storage},
};

/// Sizes and counts of a checkpoint, from its headers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Family whose descriptor was used.
    pub family: String,
    /// Decoder layers.
    pub layers: usize,
    /// Experts of each decoder layer; 0 where there are none.
    pub experts_per_layer: Vec<usize>,
    /// Experts a token goes through.
    pub top_k: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Storage type the config declares.
    pub declared_dtype: Option<String>,
    /// Number of elements by the type they are stored in.
    pub elements_by_dtype: BTreeMap<String, u64>,
    /// Bytes of data by the type that they are stored in.
    pub bytes_by_dtype: BTreeMap<String, u64>,
    /// Parameters as sparsity counts them.
    pub parameters: ParameterCounts,
    /// What the tensors are for, in the order of a forward pass; roles without tensors are left
    /// out.
    pub roles: Vec<RoleSummary>,
    /// Weight files.
    pub shards: usize,
    /// Bytes of tensor data in the largest weight file.
    pub max_shard_bytes: u64,
    /// Bytes of all weight files, headers included.
    pub weight_bytes: u64,
    /// Whether the weight files say what the model is, so that it is cut and not run
    /// ([`Checkpoint::describes_itself`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub describes_itself: bool,
    /// How weights are stored, if some are quantised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
}

/// Tensors of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RoleSummary {
    /// `embedding`, `attention`, `router`, `experts`, `shared`, `residual`, `dense`, `norms`,
    /// `head`, `extra` for tensors of layers behind the decoder's, or `other` for tensors carried over
    /// unread.
    pub role: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of stored elements: of a weight in codes, words and scales.
    pub elements: u64,
    /// Number of parameters, by shapes: of a weight in codes, as many as the matrix has.
    pub parameters: u64,
    /// Bytes of data.
    pub bytes: u64,
}

const ROLES: [&str; 11] = [
    "embedding",
    "attention",
    "router",
    "experts",
    "shared",
    "residual",
    "dense",
    "norms",
    "head",
    "extra",
    "other",
];

pub(super) fn summarize(checkpoint: &Checkpoint) -> Summary {
    let spec = checkpoint.spec();
    let (mut elements_by_dtype, mut bytes_by_dtype) = (BTreeMap::new(), BTreeMap::new());
    let role = |role: &&'static str| RoleSummary {
        role,
        tensors: 0,
        elements: 0,
        parameters: 0,
        bytes: 0,
    };
    let mut roles: Vec<RoleSummary> = ROLES.iter().map(role).collect();
    for tensor in checkpoint.tensors() {
        *elements_by_dtype.entry(tensor.dtype.to_string()).or_default() += tensor.elements();
        *bytes_by_dtype.entry(tensor.dtype.to_string()).or_default() += tensor.bytes;
        let role = if checkpoint.is_extra(tensor) { "extra" } else { role_of(tensor) };
        if let Some(sum) = roles.iter_mut().find(|sum| sum.role == role) {
            sum.tensors += 1;
            sum.elements += tensor.elements();
            sum.bytes += tensor.bytes;
            if checkpoint.holds_numbers(tensor) {
                sum.parameters += tensor.elements();
            }
        }
    }
    for (role, parameters) in in_codes(checkpoint) {
        if let Some(sum) = roles.iter_mut().find(|sum| sum.role == role) {
            sum.parameters += parameters;
        }
    }
    roles.retain(|role| role.tensors > 0);
    let moe = |f: fn(&moeprune_core::MoeSpec) -> usize| {
        spec.layers.iter().map(|layer| layer.moe().map_or(0, f)).collect::<Vec<_>>()
    };
    Summary {
        family: spec.family.clone(),
        layers: spec.layers.len(),
        experts_per_layer: moe(|m| m.experts),
        top_k: moe(|m| m.top_k).into_iter().max().unwrap_or_default(),
        hidden: spec.hidden,
        declared_dtype: checkpoint.declared_dtype().map(str::to_owned),
        elements_by_dtype,
        bytes_by_dtype,
        parameters: ParameterCounts::of(spec),
        roles,
        shards: checkpoint.shard_files().count(),
        max_shard_bytes: checkpoint.max_shard_bytes(),
        weight_bytes: checkpoint.weight_bytes(),
        describes_itself: checkpoint.describes_itself(),
        storage: storage::of(checkpoint),
    }
}

/// The role and the parameters of each part that is stored in codes, decoded or not.
fn in_codes(checkpoint: &Checkpoint) -> Vec<(&'static str, u64)> {
    let spec = checkpoint.spec();
    if checkpoint.describes_itself() {
        // Shapes of its tensors are those of the weights.
        return Vec::new();
    }
    let decoded = spec.decoded();
    let known: BTreeSet<TensorId> = match spec.has_opaque_experts() {
        true => spec.parts().into_iter().map(|part| part.id).collect(),
        false => BTreeSet::new(),
    };
    let opaque = |id: &TensorId| spec.has_opaque_experts() && !known.contains(id);
    let of_decoder = decoded.parts().into_iter().map(|part| (role_of_part(part.id), part));
    let extra = spec.extra_parts().into_iter().map(|part| ("extra", part));
    let parts = of_decoder.chain(extra);
    let parts = parts.filter(|(_, part)| checkpoint.is_in_codes(part.id) || opaque(&part.id));
    parts.map(|(role, part)| (role, Part::parameters(&part))).collect()
}

impl Checkpoint {
    /// Whether the elements of a tensor are parameters, and not codes or what is needed to read some.
    fn holds_numbers(&self, tensor: &StoredTensor) -> bool {
        if self.describes_itself() {
            return true;
        }
        let opaque =
            tensor.experts.as_ref().is_some_and(|held| held.is_opaque() && !held.is_bias());
        !opaque && self.is_plain(tensor)
    }
}
