//! What configs say about quantised modules.
//!
//! In which form a module is stored is read off the tensors that are there (`moeprune_core::encoding`),
//! never off lists of modules, which are often wrong. A quantisation config treats modules by name: lists of those that are left alone, tables of those that are
//! treated otherwise, patterns of each. After a cut experts have other numbers, so [`rewrite`] changes
//! any entry that names an expert such that **each module that stays is treated as it was**:
//!
//! | entry | becomes |
//! |---|---|
//! | a name of an expert's module | the new name, or nothing if the expert is gone |
//! | a pattern that selects the same modules under their new names | itself, byte for byte |
//! | any other pattern | the new names of what it selected |
//!
//! Which modules an entry selects depends on who reads it ([`pattern::Dialect`]).

mod entries;
mod modules;
mod pattern;
mod rewrite;

pub(crate) use self::{modules::Modules, rewrite::edits};

/// Files beside `config.json` that say the same as its quantisation config, or more.
pub(crate) const SIDE_FILES: [&str; 4] = [
    "hf_quant_config.json",
    "quantize_config.json",
    "quant_config.json",
    "quantization_config.json",
];

#[cfg(test)]
mod tests;
