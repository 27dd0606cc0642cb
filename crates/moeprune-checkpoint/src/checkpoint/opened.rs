//! The config, the family and the tensors of a model that is being opened.

use std::sync::OnceLock;

use moeprune_core::{Undecoded, encoding::QuantConfig};

use super::{CONFIG_FILE, Checkpoint, decoding, labels, layout::Layout, modules, parts, prefix};
use crate::{
    Error, Family, config::Config, container, family::Names, model_directory::ModelDirectory, spec,
};

/// What a model is opened from.
pub(super) struct Opened {
    pub(super) config: Config,
    pub(super) family: Family,
    pub(super) layout: Layout,
}

impl Opened {
    pub(super) fn of(directory: &ModelDirectory, family: Option<Family>) -> Result<Self, Error> {
        let described =
            container::find(directory.files()).is_ok_and(|container| container.describes_model());
        let (config, layout) = match described {
            true => {
                let layout = Layout::open(directory)?;
                let config = layout.model.as_ref().map(|model| model.config.clone());
                (Config::of_text(&directory.path, config.unwrap_or_default())?, Some(layout))
            }
            false => (read_config(directory)?, None),
        };
        let said = layout.as_ref().and_then(|layout| layout.model.as_ref());
        let family = match (family, said) {
            (Some(family), _) => family,
            (None, Some(model)) => Family::from_toml(&model.family)?,
            (None, None) => builtin_family(&config)?,
        };
        let config =
            config.within(family.descriptor().config.as_deref().filter(|key| !key.is_empty()))?;
        spec::check_requirements(&family, &config)?;
        let layout = layout.map_or_else(|| Layout::open(directory), Ok)?;
        Ok(Self { config, family, layout })
    }
}

impl Checkpoint {
    /// Opens a model of a directory, as one of the given family or of that which its config names.
    pub(super) fn of_directory(
        directory: ModelDirectory,
        family: Option<Family>,
    ) -> Result<Self, Error> {
        let opened = Opened::of(&directory, family)?;
        let family = opened.family.clone();
        Self::of_opened(opened, directory.clone())
            .map_err(|error| prefix::explained(error, &directory, &family))
    }

    fn of_opened(opened: Opened, directory: ModelDirectory) -> Result<Self, Error> {
        let Opened { config, family, mut layout } = opened;
        if !modules::has_codes(&layout) {
            spec::check_not_quantised(&family, &config)?;
        }
        let extra = spec::announced_extra(&family, &config)?;
        let names = Names::new(family.clone(), extra.as_ref().map(|extra| extra.first));
        let (names, under) = prefix::fitted(&layout, names, &directory)?;
        let family = names.family().clone();
        let (named, mut modules) = parts::assign(&mut layout, &names, extra, &directory)?;
        modules::check_routers(&modules, &layout, &directory)?;
        let (said, mut notes) = match modules::has_codes(&layout) {
            true => decoding::said(&config, &directory)?,
            false => (QuantConfig::default(), Vec::new()),
        };
        let mut spec = spec::read_spec(&family, &config, &named)?;
        parts::check_experts(&layout, &names, &spec, &directory, &config)?;
        parts::assign_experts(&mut layout, &names, &spec, &directory)?;
        modules::add_fused(&mut modules, &layout, &directory)?;
        let found = parts::check(&layout, &names, &spec, (&modules, &said, &directory))?;
        let decodings = decoding::decide((&modules, &spec), &layout, &said);
        notes.extend(under);
        notes.extend(layout.notes(directory.files())?);
        notes.extend(labels::contradictions((&modules, &found.forms), &layout, &spec, &said));
        notes.extend(decoding::mislabelled(&decodings, &layout));
        spec.undecoded = decoding::first_undecoded(&spec, &decodings, &found.forms);
        spec.undecoded_experts =
            decoding::undecoded(&spec, &decodings).any(|(id, _)| id.expert().is_some());
        if layout.model.is_some() {
            // Nothing says how such a model is run, so whole experts of it go and stay.
            spec.undecoded = Some(Undecoded::form(layout.container.name()));
            spec.undecoded_experts = true;
        }
        let by_name = layout.order_of_names();
        let declared_dtype = spec::declared_dtype(&family, &config)?;
        let fingerprint = OnceLock::new();
        let mut checkpoint = Self {
            directory,
            config,
            names,
            spec,
            layout,
            by_part: found.places,
            modules,
            forms: found.forms,
            decodings,
            notes,
            by_name,
            fingerprint,
            declared_dtype,
        };
        checkpoint.notes.extend(checkpoint.note_on_head()?);
        Ok(checkpoint)
    }
}

fn read_config(directory: &ModelDirectory) -> Result<Config, Error> {
    Config::read(directory, CONFIG_FILE)?.ok_or_else(|| {
        let reason = container::adapter(directory.files()).unwrap_or_else(|| {
            "has no config.json; expected a Hugging Face model directory".to_owned()
        });
        Error::Weights { dir: directory.path.clone(), reason }
    })
}

fn builtin_family(config: &Config) -> Result<Family, Error> {
    let keys = ["model_type".to_owned()];
    let found = config.find(&keys)?;
    let found = found.ok_or_else(|| config.refuse("lacks `model_type`".to_owned()))?;
    let model_type: String = found.read(config)?;
    Family::builtin(&model_type).ok_or_else(|| Error::UnknownFamily {
        path: config.path().to_owned(),
        known: Family::builtins()
            .iter()
            .flat_map(Family::model_types)
            .cloned()
            .collect::<Vec<_>>()
            .join(", "),
        model_type,
    })
}
