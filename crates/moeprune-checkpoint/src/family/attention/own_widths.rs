//! `[attention.own]`

use serde::Deserialize;

use super::Key;
use crate::{Error, config::Config};

/// Members of the object of a layer that are known.
const HEAD_DIM: &str = "head_dim";
const KV_HEADS: &str = "num_key_value_heads";

/// Widths that layers of a kind have of their own.
///
/// There are two dialects: keys that hold for all layers of the kind, and an object with an object of
/// each layer that differs. Where that is there, nothing else counts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnWidthsForm {
    /// The object of the config with one of each layer, by its number.
    per_layer: String,
    head_dim: Option<Key<usize>>,
    /// Absent from the config: as many as elsewhere.
    kv_heads: Option<Key<usize>>,
    /// Whether `kv_heads` counts; absent: it does.
    kv_heads_when: Option<Key<bool>>,
}

/// Key and value heads of a layer, and how wide a head is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widths {
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl OwnWidthsForm {
    /// `common`: those of other layers.
    pub(super) fn of_layer(
        &self,
        config: &Config,
        layer: usize,
        common: Widths,
    ) -> Result<Widths, Error> {
        if config.find(std::slice::from_ref(&self.per_layer))?.is_some() {
            return self.of_object(config, layer, common);
        }
        let number = |key: &Option<Key<usize>>| match key {
            Some(key) => key.optional(config),
            None => Ok(None),
        };
        let counts = self.kv_heads_when.as_ref().map_or(Ok(true), |key| key.needed(config))?;
        let kv_heads = if counts { number(&self.kv_heads)? } else { None };
        Ok(Widths {
            kv_heads: kv_heads.unwrap_or(common.kv_heads),
            head_dim: number(&self.head_dim)?.unwrap_or(common.head_dim),
        })
    }

    fn of_object(&self, config: &Config, layer: usize, common: Widths) -> Result<Widths, Error> {
        let object = format!("{}.{layer}", self.per_layer);
        for member in config.members_of(&object)? {
            if member != HEAD_DIM && member != KV_HEADS {
                return Err(config.refuse(format!(
                    "`{object}.{member}` is not known; of single layers `{HEAD_DIM}` and \
                     `{KV_HEADS}` are implemented"
                )));
            }
        }
        let number = |member: &str, common: usize| {
            let key = Key { keys: vec![format!("{object}.{member}")], default: Some(common) };
            key.needed(config)
        };
        Ok(Widths {
            kv_heads: number(KV_HEADS, common.kv_heads)?,
            head_dim: number(HEAD_DIM, common.head_dim)?,
        })
    }
}
