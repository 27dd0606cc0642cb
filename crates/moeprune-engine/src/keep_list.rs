//! Which experts stay, as a list says.

use std::{collections::BTreeMap, fmt, str::FromStr};

use moeprune_core::{ModelSpec, MoeSpec, plural};
use serde::{Serialize, Serializer};

use crate::Error;

/// The experts to keep, as indices of the model, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(clippy::exhaustive_enums, reason = "plain data")]
pub enum KeepList {
    /// The same of each decoder layer with experts.
    EveryLayer(Vec<usize>),
    /// By layer. Each decoder layer with experts must be named; layers behind the decoder's may be.
    ByLayer(BTreeMap<LayerKey, Vec<usize>>),
}

/// How a keep-list names a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "plain data")]
pub enum LayerKey {
    /// By its number as in tensor names, from 0.
    Layer(usize),
    /// By its place behind the decoder's layers, from 0: `mtp.0`.
    Mtp(usize),
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(layer) => layer.fmt(f),
            Self::Mtp(place) => write!(f, "mtp.{place}"),
        }
    }
}

impl FromStr for LayerKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|n: &usize| n.to_string() == text);
        let key = match text.strip_prefix("mtp.") {
            Some(place) => number(place).map(Self::Mtp),
            None => number(text).map(Self::Layer),
        };
        key.ok_or_else(|| {
            format!("`{text}` names no layer; write its number as in tensor names, or `mtp.0`")
        })
    }
}

impl Serialize for LayerKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl KeepList {
    /// The experts that go, of each layer that loses some: `(layer, experts)`, both ascending. Layers
    /// behind the decoder's that are not named lose none.
    ///
    /// # Errors
    /// [`Error::Request`] that names the layer, if one does not exist, has no experts, is named twice,
    /// or has experts and is left out; if an expert does not exist, comes twice or out of order; if
    /// the router cannot select from those that are left; or if a layer behind the decoder's would keep
    /// another number than the decoder's layer that keeps most.
    pub fn dropped(&self, spec: &ModelSpec) -> Result<Vec<(usize, Vec<usize>)>, Error> {
        let (mut all, mut most_kept) = (Vec::new(), 0);
        for (layer, kept) in self.by_number(spec)? {
            let wrong = |problem: String| {
                Error::Request(format!("the keep-list: {} {problem}", spec.layer_name(layer)))
            };
            let moe = spec.moe_of(layer).ok_or_else(|| wrong(no_experts(spec, layer)))?;
            check_kept(moe, kept).map_err(wrong)?;
            let goes = |expert: &usize| kept.binary_search(expert).is_err();
            let dropped: Vec<usize> = (0..moe.experts).filter(goes).collect();
            if layer < spec.layers.len() {
                most_kept = most_kept.max(kept.len());
            } else if kept.len() != most_kept {
                return Err(wrong(format!(
                    "is behind the decoder's and keeps {}, the others {most_kept}; engines \
                     build all of them with one number, so keep as many, or leave it out",
                    plural(kept.len(), "expert")
                )));
            }
            if !dropped.is_empty() {
                all.push((layer, dropped));
            }
        }
        Ok(all)
    }

    /// The share of the decoder's experts that it removes.
    ///
    /// # Errors
    /// As [`dropped`](Self::dropped).
    pub fn share(&self, spec: &ModelSpec) -> Result<f64, Error> {
        let dropped = self.dropped(spec)?;
        let of_decoder = dropped.iter().filter(|(layer, _)| *layer < spec.layers.len());
        let removed: usize = of_decoder.map(|(_, dropped)| dropped.len()).sum();
        let experts = spec.layers.iter().filter_map(|layer| layer.moe()).map(|moe| moe.experts);
        Ok(removed as f64 / experts.sum::<usize>().max(1) as f64)
    }

    /// The lists by the numbers of their layers.
    fn by_number(&self, spec: &ModelSpec) -> Result<BTreeMap<usize, &Vec<usize>>, Error> {
        let bad = |problem: String| Err(Error::Request(format!("the keep-list {problem}")));
        let with_experts = (0..spec.layers.len()).filter(|&layer| spec.moe_of(layer).is_some());
        let named = match self {
            Self::EveryLayer(kept) => return Ok(with_experts.map(|layer| (layer, kept)).collect()),
            Self::ByLayer(named) => named,
        };
        let mut lists = BTreeMap::new();
        for (key, kept) in named {
            let layer = match *key {
                LayerKey::Layer(layer) => layer,
                LayerKey::Mtp(place) => spec.layers.len().saturating_add(place),
            };
            if lists.insert(layer, kept).is_some() {
                return bad(format!("names layer {layer} twice, by its number and as `{key}`"));
            }
        }
        for layer in with_experts {
            if !lists.contains_key(&layer) {
                return bad(format!(
                    "leaves out layer {layer}, which has experts; name all of them to keep them all"
                ));
            }
        }
        Ok(lists)
    }
}

/// Why a layer has nothing to keep.
fn no_experts(spec: &ModelSpec, layer: usize) -> String {
    match (spec.layer(layer), spec.extra_layers()) {
        (Some(_), _) => "has no experts; leave it out".to_owned(),
        (None, extra) if extra.is_empty() => {
            format!("does not exist; the model has layers 0 to {}", spec.layers.len() - 1)
        }
        (None, extra) => format!(
            "does not exist; the model has layers 0 to {}, the last {} of them behind the decoder's",
            extra.end - 1,
            extra.len()
        ),
    }
}

/// Checks that a layer can go on with these experts.
fn check_kept(moe: &MoeSpec, kept: &[usize]) -> Result<(), String> {
    let experts = moe.experts;
    if let Some(expert) = kept.iter().find(|&&expert| expert >= experts) {
        return Err(format!("has experts 0 to {}, and no {expert}", experts - 1));
    }
    if let Some(pair) = kept.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(match pair[0] == pair[1] {
            true => format!("names expert {} twice; name it once", pair[0]),
            false => format!(
                "names expert {} before {}; write them in ascending order, which is theirs in the \
                 pruned model",
                pair[0], pair[1]
            ),
        });
    }
    if kept.len() < moe.top_k {
        return Err(format!(
            "keeps {} {}, but every token is routed to {}; keep at least that many",
            kept.len(),
            if kept.len() == 1 { "expert" } else { "experts" },
            moe.top_k
        ));
    }
    let Some(groups) = moe.router.groups().filter(|_| kept.len() != experts) else {
        return Ok(());
    };
    let checked = groups.check_count(kept.len(), moe.top_k);
    let checked = checked.and_then(|()| groups.check_kept(experts, kept));
    checked.map_err(|problem| format!("cannot be routed: {problem}"))
}
