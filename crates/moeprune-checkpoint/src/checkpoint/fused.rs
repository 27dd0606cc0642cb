//! Which tensors hold all experts of a layer.

use std::collections::{BTreeMap, BTreeSet};

use moeprune_core::{Dtype, ModelSpec, MoeSpec};

use super::{
    StoredTensor,
    fused_tensor::FusedTensor,
    layout::Layout,
    modules::{CODES, is_code},
};
use crate::{
    family::{FusedForm, Names, Slab, SlabLayout},
    place::FusedExperts,
};

/// Gives each tensor that holds something of all experts of a layer what that is, by its name. In a layer
/// that has codes and tensors beside them that are not known, these belong to them, and matrices are not
/// decoded.
pub(super) fn name_slabs(layout: &mut Layout, names: &Names) {
    let (mut in_codes, mut has_more) = (BTreeSet::new(), BTreeSet::new());
    let mut beside = BTreeMap::new();
    for (at, tensor) in layout.tensors.iter_mut().enumerate() {
        tensor.slab = names.fused_of(&tensor.name);
        if let Some((layer, slab, suffix)) = known_codes(tensor, names) {
            tensor.slab = Some((layer, slab));
            (tensor.suffix, tensor.is_main) = (Some(suffix.to_owned()), suffix == CODES[0]);
            continue;
        }
        if names.part_of(&tensor.name).is_some() {
            continue;
        }
        let Some((layer, part)) = names.beside_experts(&tensor.name) else { continue };
        beside.insert(at, (layer, Slab::Opaque(part)));
        if is_code(tensor.dtype) {
            in_codes.insert(layer);
        }
        if tensor.slab.is_none() {
            has_more.insert(layer);
        }
    }
    in_codes.retain(|layer| has_more.contains(layer));
    for (at, slab) in beside.into_iter().filter(|(_, (layer, _))| in_codes.contains(layer)) {
        let tensor = &mut layout.tensors[at];
        let named = tensor.slab.map(|(_, slab)| slab);
        let is_bias = matches!(named, Some(Slab::GateUpBias | Slab::DownBias));
        let stays = is_bias && tensor.dtype.is_weight() || matches!(named, Some(Slab::Opaque(_)));
        if !stays {
            tensor.slab = Some(slab);
        }
    }
}

/// Of a tensor with codes whose layout is known, or with what is beside them: the layer, the matrices, and the
/// end of its name.
fn known_codes(tensor: &StoredTensor, names: &Names) -> Option<(usize, Slab, &'static str)> {
    let suffix = CODES.into_iter().find(|suffix| tensor.name.ends_with(suffix))?;
    let (layer, slab) = names.fused_of(tensor.name.strip_suffix(suffix)?)?;
    let is_matrix = matches!(slab, Slab::GateUp | Slab::Gate | Slab::Up | Slab::Down);
    (is_matrix && tensor.dtype == Dtype::U8).then_some((layer, slab, suffix))
}

/// The type of the largest tensor that holds codes of all experts of a layer.
pub(super) fn codes(layout: &Layout) -> Option<Dtype> {
    let fused = layout.tensors.iter().filter(|t| t.slab.is_some() && t.suffix.is_none());
    fused.filter(|tensor| is_code(tensor.dtype)).max_by_key(|tensor| tensor.bytes).map(|t| t.dtype)
}

/// Finds the tensors that hold experts, and how they hold them: `(tensor, what)`.
pub(super) fn find(
    layout: &Layout,
    names: &Names,
    spec: &ModelSpec,
) -> Result<Vec<(usize, FusedTensor)>, (usize, String)> {
    let form = names.family().descriptor().experts.fused.as_ref();
    let named: Vec<(usize, usize, Slab)> = (layout.tensors.iter().enumerate())
        .filter_map(|(at, tensor)| {
            let (layer, slab) = tensor.slab?;
            Some((at, layer, slab))
        })
        .collect();
    let mut found = Vec::with_capacity(named.len());
    for &(at, layer, slab) in &named {
        let Some(moe) = spec.moe_of(layer) else { continue };
        let tensor = &layout.tensors[at];
        let Some(form) = form.filter(|_| !matches!(slab, Slab::Opaque(_))) else {
            let experts = opaque(moe, tensor).map_err(|e| (at, e))?;
            found.push((at, FusedTensor { layer, slab, gated: moe.expert.gated, experts }));
            continue;
        };
        let of_layer = |wanted: Slab| {
            let is_it = |&&(_, l, s): &&(usize, usize, Slab)| l == layer && s == wanted;
            named.iter().find(is_it).map(|&(at, ..)| &*layout.tensors[at].shape)
        };
        let (hidden, said) = (moe.expert_width(spec.hidden), layout.config_name());
        let kind = Kind { form, moe, hidden, said };
        let transposed = kind.is_transposed(of_layer(Slab::GateUp), of_layer(Slab::Down));
        let experts = match &tensor.suffix {
            Some(suffix) => kind.codes(tensor, slab, suffix),
            None => kind.experts(tensor, slab, transposed),
        };
        let experts = experts.map_err(|e| (at, e))?;
        found.push((at, FusedTensor { layer, slab, gated: moe.expert.gated, experts }));
    }
    Ok(found)
}

/// How a tensor holds something of each expert in a form that is not decoded.
fn opaque(moe: &MoeSpec, tensor: &StoredTensor) -> Result<FusedExperts, String> {
    let experts = moe.experts;
    if tensor.shape.first() != Some(&experts) {
        let (got, file) = (&tensor.shape, &tensor.file);
        return Err(format!("is {got:?} in {file}, expected {experts} experts"));
    }
    Ok(FusedExperts { experts, matrices: 1, transposed: false, interleaved: false })
}

/// The experts of a layer, and how their family fuses them.
struct Kind<'a> {
    form: &'a FusedForm,
    moe: &'a MoeSpec,
    /// Width of what they read and write.
    hidden: usize,
    /// What messages call the place of what is said of the model.
    said: &'static str,
}

impl Kind<'_> {
    /// Whether matrices are stored `[in, out]`. Where a down matrix is square, gate and up tell.
    fn is_transposed(&self, gate_up: Option<&[usize]>, down: Option<&[usize]>) -> bool {
        let (inner, hidden) = (self.moe.expert.inner, self.hidden);
        let matrices = Slab::GateUp.tensors(0, self.moe.expert.gated).len();
        let is = |shape: Option<&[usize]>, matrix: [usize; 2]| {
            shape.is_some_and(|shape| shape.get(1..) == Some(&matrix))
        };
        match self.form.layout {
            SlabLayout::OutIn => false,
            SlabLayout::InOut => true,
            SlabLayout::ByDown if hidden == inner => is(gate_up, [hidden, matrices * inner]),
            SlabLayout::ByDown => is(down, [inner, hidden]),
        }
    }

    /// Codes of matrices `[out, in]`, 32 of a row in 16 bytes, or the scale of each 32.
    fn codes(
        &self,
        tensor: &StoredTensor,
        slab: Slab,
        suffix: &str,
    ) -> Result<FusedExperts, String> {
        let Self { form, moe, hidden, said } = *self;
        let matrices = slab.tensors(0, moe.expert.gated).len();
        let (rows, cols) = match slab {
            Slab::Down => (hidden, moe.expert.inner),
            _ => (moe.expert.inner * matrices, hidden),
        };
        let mut expected = vec![moe.experts, rows, cols / 32];
        expected.extend((suffix == CODES[0]).then_some(16));
        if tensor.shape != expected || cols % 32 != 0 {
            let (got, file) = (&tensor.shape, &tensor.file);
            return Err(format!("is {got:?} in {file}, but {said} asks for {expected:?}"));
        }
        let interleaved = form.interleaved && matrices > 1;
        Ok(FusedExperts { experts: moe.experts, matrices, transposed: false, interleaved })
    }

    fn experts(
        &self,
        tensor: &StoredTensor,
        slab: Slab,
        transposed: bool,
    ) -> Result<FusedExperts, String> {
        let Self { form, moe, hidden, said } = *self;
        let inner = moe.expert.inner;
        let matrices = slab.tensors(0, moe.expert.gated).len();
        let matrix = |rows: usize, cols| {
            let rows = rows * matrices;
            if transposed { vec![moe.experts, cols, rows] } else { vec![moe.experts, rows, cols] }
        };
        let expected = match slab {
            Slab::GateUp | Slab::Gate | Slab::Up => matrix(inner, hidden),
            Slab::Down => matrix(hidden, inner),
            Slab::GateUpBias => vec![moe.experts, inner * matrices],
            Slab::DownBias => vec![moe.experts, hidden],
            Slab::Opaque(_) => return opaque(moe, tensor),
        };
        if tensor.shape != expected {
            let (got, file) = (&tensor.shape, &tensor.file);
            return Err(format!("is {got:?} in {file}, but {said} asks for {expected:?}"));
        }
        let vectors = matches!(slab, Slab::GateUpBias | Slab::DownBias);
        Ok(FusedExperts {
            experts: moe.experts,
            matrices,
            transposed: transposed && !vectors,
            interleaved: form.interleaved && matrices > 1,
        })
    }
}

/// The number of experts that a tensor of this name has, if it holds all of a layer.
pub(super) fn experts_in(tensor: &StoredTensor) -> Option<(usize, usize)> {
    let (layer, _) = tensor.slab?;
    Some((layer, tensor.shape.first().copied().unwrap_or_default()))
}
