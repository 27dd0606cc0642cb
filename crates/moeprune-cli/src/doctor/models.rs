//! Models that were downloaded.

use std::path::PathBuf;

use moeprune_core::plural;
use moeprune_hub::Cache;
use serde::Serialize;

use crate::table::bytes;

#[derive(Debug, Serialize)]
pub(super) struct Models {
    /// The Hugging Face cache; `None` if nothing says where it is.
    cache: Option<PathBuf>,
    exists: bool,
    models: usize,
    bytes: u64,
}

impl Models {
    pub(super) fn of_this_user() -> Self {
        let cache = Cache::of_process();
        let models = cache.as_ref().map(Cache::models).unwrap_or_default();
        Self {
            exists: cache.as_ref().is_some_and(|cache| cache.place().is_dir()),
            cache: cache.map(|cache| cache.place().to_owned()),
            models: models.len(),
            bytes: models.iter().map(|model| model.bytes).sum(),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let Some(cache) = &self.cache else {
            return vec!["no Hugging Face cache: neither HF_HOME nor HOME is set".to_owned()];
        };
        let held = match self.exists {
            true => format!("{} of {}", plural(self.models, "model"), bytes(self.bytes)),
            false => "not there yet".to_owned(),
        };
        vec![format!("{held} in the Hugging Face cache ({})", cache.display())]
    }
}
