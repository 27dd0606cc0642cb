//! How the tensors of a module are read as one weight.

use std::collections::BTreeMap;

use moeprune_core::{
    Error as CoreError, ModelSpec, StoredWeight, TensorId, Undecoded,
    encoding::{Companion, QuantConfig, SharedEncoding, StoredForm, detect_held},
};

use super::{layout::Layout, modules::Module};
use crate::{Error, config::Config, json, model_directory::ModelDirectory, place::Place};

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
    (modules, spec): (&BTreeMap<TensorId, Module>, &ModelSpec),
    layout: &Layout,
    said: &QuantConfig,
) -> BTreeMap<TensorId, Result<Decoding, NotRead>> {
    let shapes: BTreeMap<TensorId, Vec<usize>> = spec
        .parts()
        .into_iter()
        .chain(spec.extra_parts())
        .filter(|part| modules.contains_key(&part.id))
        .map(|part| (part.id, part.shape))
        .collect();
    let decide = |(part, module): (&TensorId, &Module)| {
        let shape = shapes.get(part).map_or(&[][..], Vec::as_slice);
        (*part, decoding(module, layout, (shape, said)))
    };
    modules.iter().map(decide).collect()
}

/// Files that older tools write beside the weights; what config.json does not say is taken from them.
const SIDE_FILES: [&str; 2] = ["quantize_config.json", "quant_config.json"];

/// What the config says about codes, or files beside it; nothing if they do not mention them. Also where a
/// file says otherwise.
pub(super) fn said(
    config: &Config,
    directory: &ModelDirectory,
) -> Result<(QuantConfig, Vec<String>), Error> {
    let objects = config.objects_under(&QUANTIZATION)?;
    let mut said = match objects.first() {
        Some(object) => read(config, object)?,
        None => QuantConfig::default(),
    };
    let mut notes = Vec::new();
    for name in SIDE_FILES {
        let Some(file) = Config::read(directory, name)? else { continue };
        let (both, differ) = said.or(read(&file, file.json())?);
        said = both;
        for key in differ {
            notes.push(format!(
                "{name} says otherwise than config.json what `{key}` is: what config.json says counts; \
                 correct one of the two"
            ));
        }
    }
    Ok((said, notes))
}

fn read(config: &Config, object: &str) -> Result<QuantConfig, Error> {
    let object = json::value(object).map_err(|e| config.refuse(e.to_string()))?;
    QuantConfig::from_json(&object).map_err(|e| config.refuse(e.to_string()))
}

fn decoding(
    module: &Module,
    layout: &Layout,
    (shape, said): (&[usize], &QuantConfig),
) -> Result<Decoding, NotRead> {
    if let Some(beside) = module.tensors.keys().find_map(|suffix| suffix.strip_prefix("../")) {
        let reason = format!(
            "the expert has `{beside}` beside its matrices, which its family does not know, so that it \
             cannot be said what it does"
        );
        return Err(NotRead { lacks: Some(reason.clone()), reason });
    }
    let names = module.own_names();
    let codes = module.codes(&names).unwrap_or_default();
    let encoding = detect_held(&module.headers(&names, layout), codes, shape, said)?;
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
    /// What is beside the codes, in the encoding's order.
    pub(super) fn companions(&self) -> &'static [Companion] {
        self.encoding.companions()
    }

    /// What the config says otherwise than the values beside the codes.
    pub(super) fn mislabelled(&self, layout: &Layout) -> Option<String> {
        let companions = self.companions.iter().map(|place| layout.read_part(place));
        let companions = companions.collect::<Result<Vec<_>, _>>().ok()?;
        self.encoding.mislabelled(&companions)
    }

    /// The weight, from the tensors that hold it.
    pub(super) fn read<'a>(&self, layout: &'a Layout) -> Result<StoredWeight<'a>, Error> {
        let companions = self.companions.iter().map(|place| layout.read_part(place));
        let companions = companions.collect::<Result<_, _>>()?;
        Ok(StoredWeight::new(self.encoding.clone(), layout.read_part(&self.main)?, companions)?)
    }
}

/// The form of the first part that the decoder needs and that is not decoded.
pub(super) fn first_undecoded(
    spec: &ModelSpec,
    decodings: &BTreeMap<TensorId, Result<Decoding, NotRead>>,
    forms: &BTreeMap<TensorId, StoredForm>,
) -> Option<Undecoded> {
    let (id, not_read) = undecoded(spec, decodings).next()?;
    let form = forms.get(id).map_or_else(|| "an unknown form".to_owned(), StoredForm::to_string);
    Some(Undecoded { part: Some(*id), form, lacks: not_read.lacks.clone() })
}

/// The parts that the decoder needs and that are not decoded.
pub(super) fn undecoded<'d>(
    spec: &ModelSpec,
    decodings: &'d BTreeMap<TensorId, Result<Decoding, NotRead>>,
) -> impl Iterator<Item = (&'d TensorId, &'d NotRead)> + use<'d> {
    let layers = spec.layers.len();
    let is_needed = move |id: &TensorId| match id {
        TensorId::Layer(layer, _) => *layer < layers,
        _ => true,
    };
    let needed = decodings.iter().filter(move |(id, _)| is_needed(id));
    needed.filter_map(|(id, read)| Some((id, read.as_ref().err()?)))
}

/// A note where config.json says of codes what their values contradict. All are made alike, so one expert's tell;
/// what cannot be read is said where it is used.
pub(super) fn mislabelled(
    decodings: &BTreeMap<TensorId, Result<Decoding, NotRead>>,
    layout: &Layout,
) -> Option<String> {
    let of_expert = decodings.iter().filter(|(part, _)| part.expert().is_some());
    let decoding = of_expert.filter_map(|(_, read)| read.as_ref().ok()).next()?;
    let says = decoding.mislabelled(layout)?;
    Some(format!(
        "config.json says that {says}: values count; correct config.json, since engines may go by it"
    ))
}
