//! What a config says of itself that engines go by.

use moeprune_checkpoint::Checkpoint;
use serde::Deserialize;

use super::engine::EngineContainer;

/// What `config.json` says that engines go by, beside the family.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[non_exhaustive]
pub struct Declared {
    /// `model_type`, if there is one.
    #[serde(default)]
    pub model_type: Option<String>,
    /// `quantization_config.quant_method`, if there is one: the form of the weights.
    #[serde(default, rename = "quantization_config")]
    pub weights: Option<QuantizationConfig>,
    /// The files of the weights.
    #[serde(skip)]
    pub container: EngineContainer,
}

/// What `quantization_config` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[non_exhaustive]
pub struct QuantizationConfig {
    /// The form of the weights: `fp8`, `mxfp4`.
    #[serde(default)]
    pub quant_method: Option<String>,
}

impl Declared {
    /// Of an open model. What is there and is no text counts as not there: nothing is checked here.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let said: Self = serde_json::from_str(checkpoint.config_json()).unwrap_or_default();
        let container = match checkpoint.describes_itself() {
            true => EngineContainer::Gguf,
            false => EngineContainer::Safetensors,
        };
        Self { container, ..said }
    }

    /// Of a model of this `model_type`, its weights in a plain type.
    #[must_use]
    pub fn of_type(model_type: &str) -> Self {
        Self { model_type: Some(model_type.to_owned()), ..Self::default() }
    }

    /// The same of weights in another form.
    #[must_use]
    pub fn with_weights(self, quant_method: &str) -> Self {
        let weights = QuantizationConfig { quant_method: Some(quant_method.to_owned()) };
        Self { weights: Some(weights), ..self }
    }

    pub(super) fn form(&self) -> Option<&str> {
        self.weights.as_ref()?.quant_method.as_deref()
    }
}
