//! A model that is its files.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use moeprune_capture::SamplingOptions;
use moeprune_core::{
    AttentionSpec, FeedForward, GroupedAttention, LayerSpec, MlpSpec, ModelSpec, Multipliers,
    NormWeights, StageError, StoredWeight, TensorId, TensorSource,
};
use moeprune_engine::{Calibration, Error, Model, ModelText, TextFiles};
use tempfile::TempDir;

/// A model without weights, whose tokenizer is that of the embedded one.
#[derive(Debug)]
pub(crate) struct Reader {
    spec: ModelSpec,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
        let file = |name: &str| (name.to_owned(), fs::read(nano.join(name)).unwrap());
        let attention = AttentionSpec::Grouped(GroupedAttention::new(2, 1, 4, 1e4));
        let layer = LayerSpec::new(attention, FeedForward::Dense(MlpSpec::gated(12)));
        let spec = ModelSpec {
            family: "small".into(),
            hidden: 8,
            vocab: 864,
            max_positions: 4096,
            norm_eps: 1e-5,
            norm_weights: NormWeights::Factor,
            tied_embeddings: true,
            head_bias: false,
            multipliers: Multipliers::default(),
            logit_cap: None,
            layers: vec![layer],
            extra: None,
            undecoded: None,
            undecoded_experts: false,
        };
        Self { spec, files: ["tokenizer.json", "tokenizer_config.json"].map(file).into() }
    }

    /// With this as `chat_template` of its `tokenizer_config.json`.
    pub(crate) fn with_template(mut self, template: &str) -> Self {
        let config = self.files.get_mut("tokenizer_config.json").unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(config).unwrap();
        json["chat_template"] = template.into();
        *config = json.to_string().into_bytes();
        self
    }

    /// All of a text, as one row of tokens.
    pub(crate) fn row(&self, text: TextFiles<'_>) -> Result<Vec<u32>, String> {
        let text = ModelText::open(text, self).map_err(|e| e.to_string())?;
        let blocks = text.blocks_in_order(1 << 20).map_err(|e| e.to_string())?;
        Ok(blocks.blocks().concat())
    }

    /// One block of `len` tokens.
    pub(crate) fn calibration(&self, text: TextFiles<'_>, len: usize) -> Calibration {
        let options = SamplingOptions { samples: 1, sequence_len: len, seed: 0 };
        Calibration::read(text, self, &options).unwrap()
    }
}

impl TensorSource for Reader {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        Err(format!("there is no {id}").into())
    }
}

impl Model for Reader {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn fingerprint(&self) -> Result<String, Error> {
        Ok("reader".into())
    }

    fn name(&self) -> String {
        "reader".into()
    }

    fn stored_bytes(&self, _: TensorId) -> u64 {
        0
    }

    fn read_file(&self, relative: &Path, _: u64) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.files.get(relative.to_str().unwrap()).cloned())
    }
}

/// Files in a folder of their own.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new<const N: usize>(files: [(&str, &str); N]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            fs::write(folder.path(name), text).unwrap();
        }
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
