//! The small quantised models of the assets, and what is known of them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use moeprune_tests::quantised_models;
use safetensors::SafeTensors;
use serde_json::Value;

/// A small model in a layout that people hold.
pub(crate) struct Fixture {
    pub(crate) dir: PathBuf,
    reference: Vec<u8>,
    expect: Value,
}

/// Calls `check` with each.
pub(crate) fn for_each(check: impl Fn(&str, &Fixture)) {
    for name in quantised_models::names() {
        let dir = quantised_models::folder(&name);
        let reference = fs::read(dir.join("ref.safetensors")).unwrap();
        let expect = quantised_models::expected(&name);
        check(&name, &Fixture { dir, reference, expect });
    }
}

impl Fixture {
    fn reference(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.reference).unwrap()
    }

    /// A tensor of numbers in f32.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let reference = self.reference();
        let data = reference.tensor(name).unwrap();
        assert_eq!(data.dtype(), safetensors::Dtype::F32);
        let number = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
        data.data().chunks_exact(4).map(number).collect()
    }

    pub(crate) fn input_ids(&self) -> Vec<Vec<u32>> {
        let reference = self.reference();
        let ids = reference.tensor("input_ids").unwrap();
        let size = ids.data().len() / ids.shape().iter().product::<usize>();
        let number = |b: &[u8]| u32::from_le_bytes(b[..4].try_into().unwrap());
        let all: Vec<u32> = ids.data().chunks_exact(size).map(number).collect();
        all.chunks(ids.shape()[1]).map(<[u32]>::to_vec).collect()
    }

    /// The experts that stay, by layer.
    pub(crate) fn kept(&self) -> BTreeMap<usize, Vec<usize>> {
        let layers = self.expect["kept"].as_object().unwrap();
        let experts = |kept: &Value| serde_json::from_value(kept.clone()).unwrap();
        layers.iter().map(|(layer, kept)| (layer.parse().unwrap(), experts(kept))).collect()
    }
}
