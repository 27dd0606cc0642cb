//! A weight file.

use std::collections::BTreeMap;

use moeprune::checkpoint::{Access, Checkpoint, Family};
use safetensors::SafeTensors;

use super::{Place, Target, bounded, look_through, models};

/// `model.safetensors` of a small Mixtral, header and data.
#[derive(Debug)]
pub struct Header {
    place: Place,
    family: Family,
}

impl Target for Header {
    const NAME: &'static str = "header";

    fn new() -> Self {
        let place = Place::new();
        place.write("model/config.json", models::mixtral(1, 2).config);
        Self { place, family: Family::builtin("mixtral").expect("is built in") }
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("mixtral", models::shard(&models::mixtral(1, 2).tensors))]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let Self { place, family } = self;
        place.write("model/model.safetensors", bytes);
        let open = |access| Checkpoint::open_by(&place.model(), Some(family.clone()), access);
        let opened = bounded(bytes.len(), || open(Access::Read));
        let checkpoint = opened.map_err(|error| place.redacted(error))?;
        look_through(&checkpoint);
        let mapped = open(Access::MemoryMap).expect("the same file");
        let theirs = SafeTensors::deserialize(bytes).expect("accepted by the format's own reader");
        let theirs: BTreeMap<_, _> = theirs.iter().collect();
        assert_eq!(checkpoint.tensors().count(), theirs.len());
        for stored in checkpoint.tensors() {
            let read = checkpoint.tensor_by_name(&stored.name).expect("reads");
            let view = &theirs[stored.name.as_str()];
            assert_eq!((read.shape(), read.bytes()), (view.shape(), view.data()));
            assert_eq!(read.bytes(), mapped.tensor_by_name(&stored.name).expect("reads").bytes());
        }
        Ok(())
    }
}
