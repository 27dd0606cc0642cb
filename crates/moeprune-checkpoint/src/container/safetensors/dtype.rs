//! The element types of the `safetensors` crate and those of the vocabulary, matched by name.

use moeprune_core::Dtype;
use serde::{
    Deserialize,
    de::{IntoDeserializer, value},
};

/// `None` for a type the vocabulary lacks.
pub(super) fn from_format(dtype: safetensors::Dtype) -> Option<Dtype> {
    let name = dtype.to_string();
    Dtype::ALL.into_iter().find(|ours| ours.to_string() == name)
}

/// The error names the type, and those the crate knows.
pub(super) fn to_format(dtype: Dtype) -> Result<safetensors::Dtype, value::Error> {
    let name = dtype.to_string();
    safetensors::Dtype::deserialize(IntoDeserializer::<value::Error>::into_deserializer(&*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_the_same_both_ways() {
        for dtype in Dtype::ALL {
            let theirs = to_format(dtype).expect("the crate has it");
            assert_eq!(from_format(theirs), Some(dtype));
            assert_eq!(Some(theirs.bitsize()), dtype.bits());
        }
    }

    #[test]
    fn block_types_are_refused() {
        for blocks in moeprune_core::GgmlType::all() {
            let error = to_format(Dtype::Ggml(blocks)).expect_err("the format has no blocks");
            assert!(error.to_string().contains(&format!("`{blocks}`")), "{error}");
        }
    }
}
