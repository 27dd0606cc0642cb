//! Quantised modules: in which [form](StoredForm) their tensors hold weights, and what configs say about
//! them.
//!
//! The form is read off the tensors that are there, never off a config: lists of modules that were left
//! alone are often wrong. A quantisation config treats modules by name: lists of those that are left alone, tables of those that are
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
mod form;
mod modules;
mod pattern;
mod rewrite;

pub use self::form::StoredForm;
pub(crate) use self::{
    form::{Misfit, Piece, form_of, main_of, shape_of},
    modules::Modules,
    rewrite::edits,
};

/// Files beside `config.json` that say the same as its quantisation config, or more.
pub(crate) const SIDE_FILES: [&str; 4] = [
    "hf_quant_config.json",
    "quantize_config.json",
    "quant_config.json",
    "quantization_config.json",
];

#[cfg(test)]
mod tests;
