//! What a config says of codes that their tensors contradict.

use super::{config::QuantConfig, form::StoredForm, module::ModuleTensors};

/// What forms are called that a method makes; of others, forms are not held against it.
const MADE_BY: [(&str, &[&str]); 6] = [
    ("gptq", &["GPTQ"]),
    ("awq", &["AWQ"]),
    ("exl3", &["EXL3"]),
    ("bitsandbytes", &["bitsandbytes"]),
    ("mxfp4", &["MXFP4"]),
    ("fp8", &["FP8", "MXFP8", "FP4", "F8_"]),
];

/// What `config` says otherwise than the tensors of a weight of shape `expected` in this form, to be read
/// after "config.json says": they decide.
#[must_use]
pub fn contradictions(
    form: &StoredForm,
    module: &ModuleTensors<'_>,
    expected: &[usize],
    config: &QuantConfig,
) -> Vec<String> {
    let StoredForm::Codes(name) = form else { return Vec::new() };
    let mut found = Vec::new();
    let made = MADE_BY.iter().find(|(method, _)| Some(*method) == config.method.as_deref());
    if let Some((method, forms)) = made
        && !forms.iter().any(|form| name.starts_with(form))
    {
        found.push(format!("`quant_method` is {method}, and weights are stored as {name}"));
    }
    let Some(bits) = form.bits() else { return found };
    if let Some(said) = config.bits.filter(|said| *said != bits) {
        found.push(format!("codes have {said} bits, and they have {bits}"));
    }
    let zeros = module.has(".weight_zero_point");
    if config.symmetric == Some(true) && zeros {
        found.push("codes are symmetric, and there are zero points".to_owned());
    }
    let groups = module.get(".scales").and_then(|(_, shape)| shape.first());
    let groups = groups.or_else(|| module.get(".weight_scale").and_then(|(_, shape)| shape.get(1)));
    if let (Some(said), Some(&groups), &[_, inputs]) = (config.group_size, groups, expected)
        && groups > 0
        && inputs.div_ceil(said) != groups
    {
        let size = inputs.div_ceil(groups);
        found.push(format!("groups have {said} inputs (`group_size`), and they have {size}"));
    }
    found
}
