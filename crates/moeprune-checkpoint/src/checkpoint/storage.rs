//! In which forms a quantised checkpoint stores its weights, and how many bits that takes.

use std::collections::{BTreeMap, BTreeSet};

use moeprune_core::{LayerTensor, Part, TensorId, encoding::fp8};
use serde::Serialize;

use super::{
    Checkpoint, StoredTensor,
    roles::{role_of, role_of_part},
};
use crate::json;

/// How the weights of a quantised checkpoint are stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Storage {
    /// By role, as in [`Summary::roles`](crate::Summary::roles); roles without Linears are left out.
    pub roles: Vec<RoleStorage>,
    /// Bits that a weight takes on average, with all that is needed to read it, over these roles.
    pub bits_per_weight: f64,
    /// The form that has to be decoded for the model to be run and is not; `None`: it can be run.
    pub undecoded: Option<String>,
    /// What that form lacks or contradicts, where others in it are decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
}

/// How the weights of one role are stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RoleStorage {
    /// As [`RoleSummary::role`](crate::RoleSummary::role).
    pub role: &'static str,
    /// What the forms are called, sorted: `BF16`, `FP8 128x128`.
    pub forms: Vec<String>,
    /// Bits that a weight takes on average.
    pub bits_per_weight: f64,
}

/// Roles of weights that tokens are multiplied with.
const ROLES: [&str; 6] = ["attention", "experts", "shared", "residual", "dense", "head"];

/// What is stored of a checkpoint in another form than numbers; `None` if nothing is.
pub(super) fn of(checkpoint: &Checkpoint) -> Option<Storage> {
    let spec = checkpoint.spec();
    if checkpoint.modules.is_empty() && !spec.has_opaque_experts() {
        return None;
    }
    let mut weights: BTreeMap<&str, u64> = BTreeMap::new();
    for part in spec.decoded().parts() {
        *weights.entry(role_of_part(part.id)).or_default() += Part::parameters(&part);
    }
    let blocks = checkpoint.block_size();
    let (mut bytes, mut forms) = (BTreeMap::new(), BTreeMap::new());
    for tensor in checkpoint.tensors().filter(|tensor| !checkpoint.is_extra(tensor)) {
        let role = role_of(tensor);
        *bytes.entry(role).or_insert(0_u64) += tensor.bytes;
        let of_role: &mut BTreeSet<String> = forms.entry(role).or_default();
        of_role.extend(checkpoint.form_shown(tensor, blocks));
    }
    let bits = |bytes: u64, weights: u64| bytes as f64 * 8.0 / weights.max(1) as f64;
    let (mut all_bytes, mut all_weights) = (0, 0);
    let mut roles = Vec::new();
    for role in ROLES {
        let (Some(&weights), Some(&bytes)) = (weights.get(role), bytes.get(role)) else { continue };
        (all_bytes, all_weights) = (all_bytes + bytes, all_weights + weights);
        let forms = forms.remove(role).unwrap_or_default().into_iter().collect();
        roles.push(RoleStorage { role, forms, bits_per_weight: bits(bytes, weights) });
    }
    let opaque = || checkpoint.opaque_form();
    let (undecoded, lacks) = match spec.undecoded.clone() {
        Some(undecoded) => (Some(undecoded.form), undecoded.lacks),
        None => (opaque(), None),
    };
    Some(Storage { roles, bits_per_weight: bits(all_bytes, all_weights), undecoded, lacks })
}

impl Checkpoint {
    /// What the form is called in which a tensor holds a weight, if it holds one or its codes, given the
    /// size of blocks.
    fn form_shown(&self, tensor: &StoredTensor, blocks: Option<[usize; 2]>) -> Option<String> {
        if let Some(held) = &tensor.experts {
            if held.is_bias() {
                return None;
            }
            return match (&tensor.suffix, held.is_opaque()) {
                (Some(_), _) => {
                    let form = self.forms.get(held.parts(0).first()?);
                    form.filter(|_| tensor.is_main).map(ToString::to_string)
                }
                (None, true) => self.opaque_form(),
                (None, false) => Some(tensor.dtype.to_string()),
            };
        }
        let part = tensor.part?;
        let is_weight = matches!(
            part,
            TensorId::Embedding | TensorId::LmHead | TensorId::Layer(_, LayerTensor::Linear(_))
        );
        match self.forms.get(&part) {
            Some(_) if !tensor.is_main => None,
            Some(form) => Some(match blocks.filter(|_| *form == fp8::IN_BLOCKS) {
                Some([rows, cols]) => format!("FP8 {rows}x{cols}"),
                None => form.to_string(),
            }),
            None => is_weight.then(|| tensor.dtype.to_string()),
        }
    }

    /// What the config calls experts that a family names and that are not decoded.
    fn opaque_form(&self) -> Option<String> {
        let layers = self.spec().layers.iter();
        let opaque = layers.filter_map(|layer| layer.moe()?.opaque.first()).next()?;
        Some(opaque.form.as_deref().map_or_else(|| opaque.id.to_string(), str::to_uppercase))
    }

    /// The size of blocks that have a scale in common, if the config says it.
    #[must_use]
    pub fn block_size(&self) -> Option<[usize; 2]> {
        let objects = self.quantization_configs().ok()?;
        let said = objects.into_iter().find_map(|object| {
            let value = json::value(object).ok()?;
            let own = value.get("weight_block_size").cloned();
            own.or_else(|| block_structure(&value))
        });
        serde_json::from_value(said?).ok()
    }
}

/// The blocks of the first group of compressed-tensors that has some.
fn block_structure(config: &serde_json::Value) -> Option<serde_json::Value> {
    let groups = config.get("config_groups")?.as_object()?.values();
    groups
        .filter_map(|group| group.get("weights")?.get("block_structure"))
        .find(|b| b.is_array())
        .cloned()
}
