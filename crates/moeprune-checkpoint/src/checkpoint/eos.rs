//! Which tokens end a text.

use super::Checkpoint;
use crate::{
    Error,
    config::Config,
    number::{whole, wholes},
};

const GENERATION_FILE: &str = "generation_config.json";
const KEY: &str = "eos_token_id";

impl Checkpoint {
    /// Tokens after which generation stops: `eos_token_id` of `generation_config.json`, or of
    /// `config.json` where that file or key is missing; a number or a list. Empty if neither names
    /// one.
    ///
    /// # Errors
    /// If a file cannot be read, is a link out of the model directory, or the value is something
    /// else.
    pub fn eos_token_ids(&self) -> Result<Vec<u32>, Error> {
        if let Some(config) = Config::read(&self.directory, GENERATION_FILE)? {
            let ids = ids(&config)?;
            if !ids.is_empty() {
                return Ok(ids);
            }
        }
        ids(&self.config)
    }
}

/// As the part of the config says that describes the text model, or else its top level.
fn ids(config: &Config) -> Result<Vec<u32>, Error> {
    let (keys, of_top) = ([KEY.to_owned()], [format!("/{KEY}")]);
    let found = match config.find(&keys)? {
        Some(found) => Some(found),
        None => config.find(&of_top)?,
    };
    let Some(found) = found else { return Ok(Vec::new()) };
    let id = |number: u64| u32::try_from(number).ok();
    let one = || whole(found.text).and_then(id).map(|id| vec![id]);
    let list = || wholes(found.text)?.into_iter().map(id).collect();
    one().or_else(list).ok_or_else(|| Error::Config {
        path: config.path().to_owned(),
        reason: format!("{KEY} is {}; expected a token id, a list of them, or null", found.shown()),
    })
}
