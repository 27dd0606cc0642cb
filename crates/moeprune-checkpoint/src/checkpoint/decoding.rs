//! How the tensors of a module are read as one weight.

use std::collections::BTreeMap;

use moeprune_core::{
    Error as CoreError, StoredWeight, TensorId,
    encoding::{QuantConfig, SharedEncoding, detect},
};

use super::{layout::Layout, modules::Module};
use crate::{Error, config::Config, place::Place};

/// What config.json calls what it says about codes.
pub(super) const QUANTIZATION: [&str; 2] = ["quantization_config", "compression_config"];

/// What reads a module's tensors.
#[derive(Debug, Clone)]
pub(crate) struct Decoding {
    encoding: SharedEncoding,
    main: Place,
    /// What is beside it, in the encoding's order.
    companions: Vec<Place>,
}

/// Why nothing reads a module's tensors.
#[derive(Debug, Clone)]
pub(crate) struct NotRead {
    /// To be read after the tensor's name.
    pub(super) reason: String,
    /// What is missing or contradictory, of a form that is decoded elsewhere.
    pub(super) lacks: Option<String>,
}

impl From<CoreError> for NotRead {
    fn from(error: CoreError) -> Self {
        let lacks = match &error {
            CoreError::Encoding { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        Self { reason: error.to_string(), lacks }
    }
}

/// Decides for each module what reads its tensors, or why nothing does.
pub(super) fn decide(
    modules: &BTreeMap<TensorId, Module>,
    layout: &Layout,
    said: &QuantConfig,
) -> BTreeMap<TensorId, Result<Decoding, NotRead>> {
    let decide = |module: &Module| decoding(module, layout, said);
    modules.iter().map(|(part, module)| (*part, decide(module))).collect()
}

/// What the config says about codes; nothing if it does not mention them.
pub(super) fn said(config: &Config) -> Result<QuantConfig, Error> {
    let objects = config.objects_under(&QUANTIZATION)?;
    let Some(object) = objects.first() else { return Ok(QuantConfig::default()) };
    let object = serde_json::from_str(object).map_err(|e| config.refuse(e.to_string()))?;
    QuantConfig::from_json(&object).map_err(|e| config.refuse(e.to_string()))
}

fn decoding(module: &Module, layout: &Layout, said: &QuantConfig) -> Result<Decoding, NotRead> {
    let names = module.own_names();
    let encoding = detect(&module.headers(&names, layout), said)?;
    let place = |suffix: &str| {
        let found = module.tensors.get(suffix.trim_start_matches('.')).copied();
        let lacks = |reason: String| NotRead { lacks: Some(reason.clone()), reason };
        let number = found.ok_or_else(|| lacks(format!("`{suffix}` is missing")))?;
        module.place_in(layout, number).map_err(|e| lacks(e.to_string()))
    };
    let main = place(encoding.suffix())?;
    let companions = encoding.companions().iter().map(|companion| place(companion.suffix));
    let companions = companions.collect::<Result<_, NotRead>>()?;
    Ok(Decoding { encoding, main, companions })
}

impl Decoding {
    /// The weight, from the tensors that hold it.
    pub(super) fn read<'a>(&self, layout: &'a Layout) -> Result<StoredWeight<'a>, Error> {
        let companions = self.companions.iter().map(|place| layout.read_part(place));
        let companions = companions.collect::<Result<_, _>>()?;
        Ok(StoredWeight::new(self.encoding.clone(), layout.read_part(&self.main)?, companions)?)
    }
}
