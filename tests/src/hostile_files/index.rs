//! An index of shards.

use std::fs;

use moeprune::checkpoint::{Checkpoint, Family};
use serde_json::json;

use super::{Place, Target, bounded, look_through, models};

/// `model.safetensors.index.json` of a small Mixtral in two shards, with links out of the
/// directory, a loop, a folder and a pipe beside them for it to name.
#[derive(Debug)]
pub struct Index {
    place: Place,
    family: Family,
}

const SHARDS: [&str; 2] = ["a.safetensors", "b.safetensors"];

impl Target for Index {
    const NAME: &'static str = "index";

    fn new() -> Self {
        let place = Place::new();
        let model = models::mixtral(1, 2);
        let (a, b) = model.tensors.split_at(model.tensors.len() / 2);
        place.write("model/config.json", &model.config);
        place.write("model/a.safetensors", models::shard(a));
        place.write("model/b.safetensors", models::shard(b));
        // A reader that follows the links finds what the index needs.
        place.write("outside/b.safetensors", models::shard(b));
        place.write("outside/generation_config.json", r#"{"eos_token_id":1}"#);
        fs::create_dir(place.path("model/folder")).expect("makes a folder");
        place.write("model/folder/b.safetensors", models::shard(b));
        place.link("generation_config.json", "../outside/generation_config.json");
        place.link("out.safetensors", "../outside/b.safetensors");
        place.link("out", "../outside");
        place.link("in.safetensors", "b.safetensors");
        place.link("loop.safetensors", "loop.safetensors");
        place.pipe("pipe.safetensors");
        place.was_left();
        Self { place, family: Family::builtin("mixtral").expect("is built in") }
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        let index = |shards: [&str; 2]| {
            let tensors = models::mixtral(1, 2).tensors;
            let half = tensors.len() / 2;
            let shard = |i: usize| shards[usize::from(i >= half)];
            let map: serde_json::Map<_, _> = tensors
                .into_iter()
                .zip(0..)
                .map(|((name, _), i)| (name, shard(i).into()))
                .collect();
            json!({"metadata": {"total_size": 232}, "weight_map": map}).to_string().into_bytes()
        };
        vec![("plain", index(SHARDS)), ("link_inside", index([SHARDS[0], "in.safetensors"]))]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let Self { place, family } = self;
        place.write("model/model.safetensors.index.json", bytes);
        let opened =
            bounded(bytes.len(), || Checkpoint::open_with(&place.model(), Some(family.clone())));
        place.assert_not_left();
        let checkpoint = opened.map_err(|error| place.redacted(error))?;
        let model = place.model().canonicalize().expect("is there");
        for shard in checkpoint.shard_files() {
            let real = place.model().join(shard).canonicalize().expect("is there");
            assert!(real.starts_with(&model), "{shard} is {}", real.display());
        }
        look_through(&checkpoint);
        let eos = checkpoint.eos_token_ids().map_err(|error| place.redacted(error));
        if cfg!(unix) {
            assert!(eos.is_err_and(|error| error.contains("outside of the model directory")));
        }
        place.assert_not_left();
        Ok(())
    }
}
