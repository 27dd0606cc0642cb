//! Which tokens end a text.

use std::path::Path;

use super::{CONFIG_FILE, Checkpoint};
use crate::{Error, config::Config};

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
        if self.directory.has(GENERATION_FILE) {
            let path = self.directory.path.join(GENERATION_FILE);
            self.directory
                .file(Path::new(GENERATION_FILE))
                .map_err(|reason| Error::Config { path: path.clone(), reason })?;
            let ids = ids(&Config::read(&path)?, &path)?;
            if !ids.is_empty() {
                return Ok(ids);
            }
        }
        ids(&self.config, &self.directory.path.join(CONFIG_FILE))
    }
}

fn ids(config: &Config, path: &Path) -> Result<Vec<u32>, Error> {
    let keys = [KEY.to_owned()];
    let Some(found) = config.find(&keys)? else { return Ok(Vec::new()) };
    let one = serde_json::from_str::<Option<u32>>(found.text).map(Vec::from_iter);
    one.or_else(|_| serde_json::from_str::<Vec<u32>>(found.text)).map_err(|_| Error::Config {
        path: path.to_owned(),
        reason: format!(
            "{KEY} is {}; expected a token id, a list of them, or null",
            found.text.chars().take(60).collect::<String>()
        ),
    })
}
