//! Formats that are recognised and not decoded.

use super::{
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm},
    module::ModuleTensors,
};
use crate::{Dtype, Error};

/// Tensors by which a format is known, and its name.
const KNOWN_BY: [(&str, &str); 11] = [
    (".trellis", "EXL3"),
    (".q_weight", "EXL2"),
    (".q_perm", "EXL2"),
    (".svdquant_lora_a", "SVDQuant"),
    (".svdquant_lora_b", "SVDQuant"),
    (".pre_quant_scale", "weights with a scale of their inputs (pre_quant_scale)"),
    (".weight.absmax", "bitsandbytes"),
    (".weight.quant_map", "bitsandbytes"),
    (".W_q", "HQQ"),
    (".weight_g_idx", "pack-quantized with groups in the order of activations (weight_g_idx)"),
    (".B", "Marlin"),
];

pub(super) const FORMAT: Format =
    Format { codes: &[], companions: &[], form, shape: |_| None, encoding: recognise };

/// Of integers of 8 bits: one number per weight, with a scale for all or per row.
fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
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
    let known = KNOWN_BY.iter().find(|(suffix, _)| module.has(suffix)).map(|(_, name)| *name);
    let scale = ["scale", "weight_scale", "weight_scale_inv"];
    let scale = scale.iter().find_map(|name| module.dtype(&format!(".{name}")));
    let by_types = match (module.dtype(".weight"), scale) {
        (Some(Dtype::U8), Some(Dtype::U8)) => Some("MXFP4 as Quark stores it"),
        (Some(Dtype::I8), Some(Dtype::F8_E8M0)) => Some("FP4 in pairs with scales per 32"),
        (Some(Dtype::I8), Some(_)) => Some("integers of 8 bits (W8A8)"),
        _ => None,
    };
    let name = known.or(by_types)?;
    let method = config.method.as_ref().map(|method| format!(" (quant_method {method})"));
    Some(Err(Error::NotDecoded(name.to_owned() + &method.unwrap_or_default())))
}
