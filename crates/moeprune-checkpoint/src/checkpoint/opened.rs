//! The config, the family and the tensors of a model that is being opened.

use super::{CONFIG_FILE, layout::Layout};
use crate::{Error, Family, config::Config, container, model_directory::ModelDirectory, spec};

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

fn read_config(directory: &ModelDirectory) -> Result<Config, Error> {
    Config::read(directory, CONFIG_FILE)?.ok_or_else(|| {
        let reason = "has no config.json; expected a Hugging Face model directory".to_owned();
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
