//! What the config says of weights that their tensors contradict.

use std::collections::BTreeMap;

use moeprune_core::{
    ModelSpec, TensorId,
    encoding::{QuantConfig, StoredForm, contradictions as of_module},
};

use super::{layout::Layout, modules::Module};

/// Each contradiction once, with where it is first.
pub(super) fn contradictions(
    (modules, forms): (&BTreeMap<TensorId, Module>, &BTreeMap<TensorId, StoredForm>),
    layout: &Layout,
    spec: &ModelSpec,
    said: &QuantConfig,
) -> Vec<String> {
    let mut found: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    let mut codes = 0;
    for part in spec.parts() {
        let (Some(module), Some(form)) = (modules.get(&part.id), forms.get(&part.id)) else {
            continue;
        };
        codes += usize::from(matches!(form, StoredForm::Codes(_)));
        let names = module.own_names();
        for says in of_module(form, &module.headers(&names, layout), &part.shape, said) {
            let first = layout.tensors[module.main].name.as_str();
            found.entry(says).or_insert((0, first)).0 += 1;
        }
    }
    let note = |(says, (count, first)): (String, (usize, &str))| {
        format!(
            "config.json says that {says}: {count} of {codes} weights in codes, the first `{first}`; what is \
             stored counts, and config.json is to be corrected, since engines may go by it"
        )
    };
    // Models with several forms say of each what is so of some; a contradiction is one of all.
    found.into_iter().filter(|(_, (count, _))| *count == codes).map(note).collect()
}
