//! `[attention.window]`

use moeprune_core::Reach;
use serde::Deserialize;

use super::{Key, Model};
use crate::{
    Error,
    family::key::{Count, Strings},
};

/// How far back attention looks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowForm {
    /// Absent from the config: as far as there is.
    size: Key<Count>,
    /// Whether the size counts; absent: it does.
    when: Option<Key<bool>>,
    /// A list of `sliding_attention` and `full_attention`, one per layer.
    types: Option<Key<Strings>>,
    /// Without such a list the layers from this one on have a window; absent: all.
    from: Option<Key<Count>>,
    /// Without such a list those of the even layers have one that come before this layer.
    even_until: Option<Key<Count>>,
}

impl WindowForm {
    /// How far back each decoder layer looks.
    pub(super) fn read(&self, model: Model<'_>) -> Result<Vec<Reach>, Error> {
        let Model { config, layers, .. } = model;
        let counts = self.when.as_ref().map_or(Ok(true), |key| key.needed(config))?;
        let types = match &self.types {
            Some(key) => key.optional(config)?,
            None => None,
        };
        let slides: Vec<bool> = match types {
            Some(Strings(types)) => {
                let keys = self.types.as_ref().map(Key::shown).unwrap_or_default();
                if types.len() != layers {
                    let got = types.len();
                    return Err(config.refuse(format!(
                        "`{keys}` has length {got}, expected {layers}, one entry per layer"
                    )));
                }
                let slides = |kind: &String| match kind.as_str() {
                    "sliding_attention" => Ok(true),
                    "full_attention" => Ok(false),
                    other => {
                        Err(config.refuse(format!("`{keys}` has `{other}`, which is not known")))
                    }
                };
                types.iter().map(slides).collect::<Result<_, _>>()?
            }
            None => {
                let limit = |key: &Option<Key<Count>>| match key {
                    Some(key) => key.needed(config).map(|Count(layer)| Some(layer)),
                    None => Ok(None),
                };
                let (from, even_until) = (limit(&self.from)?, limit(&self.even_until)?);
                let slides = |layer: usize| {
                    from.is_none_or(|from| layer >= from)
                        && even_until.is_none_or(|end| layer < end && layer.is_multiple_of(2))
                };
                (0..layers).map(slides).collect()
            }
        };
        let size = if counts { self.size.optional(config)?.map(|Count(size)| size) } else { None };
        let window = match size {
            Some(0) if slides.contains(&true) => {
                return Err(config.refuse(format!("`{}` is 0 and sees nothing", self.size.shown())));
            }
            window => window.map_or(Reach::Everything, Reach::Window),
        };
        let reach = |slides: bool| if slides { window } else { Reach::Everything };
        Ok(slides.into_iter().map(reach).collect())
    }
}
