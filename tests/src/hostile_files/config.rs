//! A model's config.

use moeprune::checkpoint::Checkpoint;

use super::{Place, Target, bounded, look_through, models};

/// `config.json` beside the weights of a small Arctic, if it says `arctic` anywhere, or of a small
/// Mixtral.
#[derive(Debug)]
pub struct Config {
    mixtral: Place,
    arctic: Place,
}

impl Target for Config {
    const NAME: &'static str = "config";

    fn new() -> Self {
        let place = |model: models::Model| {
            let place = Place::new();
            place.write("model/model.safetensors", models::shard(&model.tensors));
            place
        };
        Self { mixtral: place(models::mixtral(1, 2)), arctic: place(models::arctic(2)) }
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        let spread = models::mixtral(1, 2).config.replace(
            r#""rope_theta":1e4"#,
            r#""rope_parameters":{"rope_theta":1e4,"rope_type":"default"}"#,
        );
        let listed = |text: String| {
            text.replace(r#""num_local_experts":2"#, r#""num_local_experts": [ 0, 2 ] "#)
        };
        vec![
            ("mixtral", models::mixtral(1, 2).config.into_bytes()),
            ("mixtral_nested", spread.into_bytes()),
            ("arctic", models::arctic(2).config.into_bytes()),
            ("arctic_listed", listed(models::arctic(2).config).into_bytes()),
        ]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let says_arctic = bytes.windows(6).any(|window| window == b"arctic");
        let place = if says_arctic { &self.arctic } else { &self.mixtral };
        place.write("model/config.json", bytes);
        let opened = bounded(bytes.len(), || Checkpoint::open(&place.model()));
        let checkpoint = opened.map_err(|error| place.redacted(error))?;
        look_through(&checkpoint);
        rewrite(place, &checkpoint);
        let eos = bounded(bytes.len(), || checkpoint.eos_token_ids());
        eos.map(drop).map_err(|error| place.redacted(error))
    }
}

/// The config for a model of the same size says the same.
fn rewrite(place: &Place, checkpoint: &Checkpoint) {
    let experts = |layer: &moeprune::core::LayerSpec| layer.moe().map_or(0, |moe| moe.experts);
    let counts: Vec<usize> = checkpoint.spec().layers.iter().map(experts).collect();
    let text = checkpoint.config_with_experts(&counts).expect("its own counts fit");
    place.write("model/config.json", text);
    let again = Checkpoint::open(&place.model()).expect("only the count was written again");
    assert_eq!(again.spec(), checkpoint.spec());
}
