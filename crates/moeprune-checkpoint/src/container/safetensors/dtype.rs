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
            assert_eq!(theirs.bitsize(), dtype.bits());
        }
    }
}
