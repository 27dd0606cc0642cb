//! Formats that are recognised and not decoded.

use super::{
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm},
    module::ModuleTensors,
};
use crate::{Dtype, Error};

/// Tensors by which a format is known, and its name.
const KNOWN_BY: [(&str, &str); 12] = [
    (".trellis", "EXL3"),
    (".q_weight", "EXL2"),
    (".q_perm", "EXL2"),
    (".svdquant_lora_a", "SVDQuant"),
    (".svdquant_lora_b", "SVDQuant"),
    (".pre_quant_scale", "codes with a scale of their inputs (pre_quant_scale)"),
    (".weight.absmax", "bitsandbytes"),
    (".weight.quant_map", "bitsandbytes"),
    (".SCB", "bitsandbytes"),
    (".W_q", "HQQ"),
    (".weight_g_idx", "pack-quantized with groups in the order of activations (weight_g_idx)"),
    (".B", "Marlin"),
];

pub(super) const FORMAT: Format =
    Format { codes: &[], companions: &[], form, shape: |_| None, encoding: recognise };

fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    let by_types = || by_types(held.module).or_else(|| by_layout(held));
    match known_by(held.module).or_else(by_types) {
        Some(name) => Some(Ok(StoredForm::named(name))),
        None => int8(held),
    }
}

/// What a module is known by that no other format has.
fn known_by(module: &ModuleTensors<'_>) -> Option<&'static str> {
    KNOWN_BY.iter().find(|(suffix, _)| module.has(suffix)).map(|(_, name)| *name)
}

/// The same by the types of its tensors.
fn by_types(module: &ModuleTensors<'_>) -> Option<&'static str> {
    let scale = ["scale", "weight_scale", "weight_scale_inv"];
    let scale = scale.iter().find_map(|name| module.dtype(&format!(".{name}")));
    match (module.dtype(".weight")?, scale) {
        (Dtype::U8, Some(Dtype::U8)) => Some("MXFP4 as Quark stores it"),
        (Dtype::I8, Some(Dtype::F8_E8M0)) => Some("FP4 in pairs with scales per 32"),
        (Dtype::F8_E5M2, _) => Some("F8_E5M2"),
        (Dtype::F8_E4M3FNUZ, _) => Some("F8_E4M3FNUZ"),
        (Dtype::F8_E5M2FNUZ, _) => Some("F8_E5M2FNUZ"),
        _ => None,
    }
}

/// AWQ in other packings than GEMM, by the shape of the codes or as the config names it.
fn by_layout(held: &Held<'_>) -> Option<&'static str> {
    let [outputs, inputs] = held.matrix(".qweight", Dtype::I32)?;
    match held.config.packing.as_deref() {
        Some("gemv") => return Some("AWQ GEMV"),
        Some("gemv_fast") => return Some("AWQ GEMV (fast)"),
        Some("marlin") => return Some("AWQ Marlin"),
        _ => {}
    }
    let scales = held.module.get(".scales").map(|(_, shape)| shape);
    let by_output = scales.is_some_and(|shape| shape.len() == 2 && shape[0] == outputs);
    let packed = [outputs, inputs.div_ceil(8)] == *held.main.2 && !held.module.has(".g_idx");
    (packed && by_output).then_some("AWQ GEMV")
}

/// Of integers of 8 bits: one number per weight, with a scale for all or per row.
fn int8(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    let [outputs, _] = held.matrix(".weight", Dtype::I8)?;
    if held.main.2 != held.expected {
        return None;
    }
    match held.needed(".weight_scale") {
        Err(misfit) => Some(Err(misfit)),
        Ok((_, [] | [1])) => Some(Ok(StoredForm::named("INT8"))),
        Ok((_, shape)) => {
            let per_row = shape == [outputs, 1] || shape == [outputs];
            per_row.then(|| Ok(StoredForm::named("INT8")))
        }
    }
}

fn recognise(module: &ModuleTensors<'_>, config: &QuantConfig) -> Option<Recognised> {
    let has_scale = || module.has(".weight_scale") || module.has(".scale");
    let integers = || module.dtype(".weight") == Some(Dtype::I8) && has_scale();
    let integers = || integers().then_some("integers of 8 bits (W8A8)");
    let name = known_by(module).or_else(|| by_types(module)).or_else(integers)?;
    let method = config.method.as_ref().map(|method| format!(" (quant_method {method})"));
    Some(Err(Error::NotDecoded(name.to_owned() + &method.unwrap_or_default())))
}
