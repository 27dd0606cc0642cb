//! What the config says of weights that their tensors contradict.

use std::collections::BTreeMap;

use moeprune_core::{
    ModelSpec, TensorId,
    encoding::{QuantConfig, StoredForm, contradictions as of_module},
};

use super::{layout::Layout, modules::Module};

/// Each contradiction of all weights in codes, with where it is first. Models with several forms say of each what is
/// so of some, which is none.
pub(super) fn contradictions(
    (modules, forms): (&BTreeMap<TensorId, Module>, &BTreeMap<TensorId, StoredForm>),
    layout: &Layout,
    spec: &ModelSpec,
    said: &QuantConfig,
) -> Vec<String> {
    let in_codes = forms.iter().filter(|(_, form)| matches!(form, StoredForm::Codes(_)));
    let (mut found, mut codes): (Option<BTreeMap<String, &str>>, usize) = (None, 0);
    for (id, form) in in_codes {
        let (Some(module), Some(part)) = (modules.get(id), spec.part(*id)) else { continue };
        codes += 1;
        if found.as_ref().is_some_and(BTreeMap::is_empty) {
            // Of a model that contradicts nothing the first weight tells.
            return Vec::new();
        }
        let names = module.own_names();
        let first = layout.tensors[module.main].name.as_str();
        let says = of_module(form, &module.headers(&names, layout), &part.shape, said);
        match &mut found {
            None => found = Some(says.into_iter().map(|says| (says, first)).collect()),
            Some(found) => found.retain(|known, _| says.contains(known)),
        }
    }
    let note = |(says, first): (String, &str)| {
        format!(
            "config.json says that {says}: {codes} of {codes} weights in codes, the first `{first}`; what is \
             stored counts, and config.json is to be corrected, since engines may go by it"
        )
    };
    found.unwrap_or_default().into_iter().map(note).collect()
}
