//! Whether both sides kept the same.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use moeprune::{
    checkpoint::Checkpoint,
    core::{Part, TensorSource as _},
};
use serde::Serialize;
use serde_json::Value;

/// What two prunings have in common.
#[derive(Debug, PartialEq, Serialize)]
pub(super) enum Agreement {
    /// Of experts that stay.
    Experts {
        /// Experts that both keep, over all layers.
        common: usize,
        /// Experts that each keeps.
        kept: usize,
        /// Layers of which the experts differ: its number, those that ours alone keeps, those that the peer alone keeps, and
        /// how far these are apart in the peer's saliency, as a share of the largest of them.
        different: Vec<(usize, Vec<usize>, Vec<usize>, f64)>,
    },
    /// Of weights that are zero.
    Masks {
        /// Weights that are zero on both sides.
        common: u64,
        /// Weights that are zero on ours.
        ours: u64,
        /// Weights that are zero on the peer's.
        theirs: u64,
    },
}

type Kept = BTreeMap<usize, Vec<usize>>;

impl Agreement {
    /// Of our pruned model, by its report, and what the peer's script said.
    pub(super) fn of_experts(ours: &Path, said: &Value) -> Result<Self> {
        let report: Value = serde_json::from_slice(&fs::read(ours.join("moeprune-report.json"))?)?;
        let layers = report["layers"].as_array().context("a report has layers")?;
        let mut kept = Kept::new();
        for layer in layers {
            let index = layer["index"].as_u64().context("a layer has a number")? as usize;
            kept.insert(index, serde_json::from_value(layer["kept"].clone())?);
        }
        let theirs: Kept = serde_json::from_value(said["kept"].clone())?;
        let worth: BTreeMap<usize, Vec<f64>> = serde_json::from_value(said["worth"].clone())?;
        kept.retain(|layer, _| theirs.contains_key(layer));
        ensure!(kept.len() == theirs.len(), "the peer pruned layers that ours did not");
        Ok(Self::between(&kept, &theirs, &worth))
    }

    fn between(ours: &Kept, theirs: &Kept, worth: &BTreeMap<usize, Vec<f64>>) -> Self {
        let (mut common, mut all, mut different) = (0, 0, Vec::new());
        for (layer, ours) in ours {
            let theirs = theirs.get(layer).map_or(&[][..], Vec::as_slice);
            let without = |these: &[usize], those: &[usize]| -> Vec<usize> {
                these.iter().filter(|expert| !those.contains(expert)).copied().collect()
            };
            let (more, less) = (without(ours, theirs), without(theirs, ours));
            common += ours.len() - more.len();
            all += ours.len();
            if more.is_empty() && less.is_empty() {
                continue;
            }
            let worth = worth.get(layer).map_or(&[][..], Vec::as_slice);
            let of = more.iter().chain(&less).filter_map(|&expert| worth.get(expert).copied());
            let (low, high) = of.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
                (low.min(value), high.max(value))
            });
            different.push((*layer, more, less, (high - low) / high));
        }
        Self::Experts { common, kept: all, different }
    }

    /// Of two pruned models, by their weights.
    pub(super) fn of_masks(ours: &Path, theirs: &Path) -> Result<Self> {
        let (ours, theirs) = (Checkpoint::open(ours)?, Checkpoint::open(theirs)?);
        let (mut common, mut zero, mut theirs_zero) = (0, 0, 0);
        let spec = ours.spec();
        let prunable = |part: &Part| part.linear_shape().is_some_and(|linear| linear.prunable);
        for part in spec.parts().iter().filter(|part| prunable(part)) {
            let read = |model: &Checkpoint| -> Result<Vec<f32>> {
                let tensor = model.tensor(part.id).map_err(anyhow::Error::from_boxed)?;
                Ok(tensor.to_f32()?)
            };
            let (a, b) = (read(&ours)?, read(&theirs)?);
            ensure!(a.len() == b.len(), "{} has another shape", part.id);
            for (a, b) in a.iter().zip(&b) {
                zero += u64::from(*a == 0.0);
                theirs_zero += u64::from(*b == 0.0);
                common += u64::from(*a == 0.0 && *b == 0.0);
            }
        }
        Ok(Self::Masks { common, ours: zero, theirs: theirs_zero })
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Experts { common, kept, different } => {
                write!(f, "{common} of {kept} experts that stay are the same")?;
                for (layer, ours, theirs, apart) in different {
                    write!(
                        f,
                        "; layer {layer}: {ours:?} here, {theirs:?} there, whose saliencies differ by {apart:.2e}"
                    )?;
                }
                Ok(())
            }
            Self::Masks { common, ours, theirs } => write!(
                f,
                "{:.3} % of the {ours} weights that are zero here are zero there, of {theirs}",
                100.0 * *common as f64 / (*ours).max(1) as f64
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_of_one_side_alone_are_named_with_how_far_apart_they_are() {
        let ours = Kept::from([(0, vec![0, 2]), (3, vec![1, 2])]);
        let theirs = Kept::from([(0, vec![0, 2]), (3, vec![0, 2])]);
        let worth = BTreeMap::from([(3, vec![4.0, 3.0, 9.0])]);
        let found = Agreement::between(&ours, &theirs, &worth);
        let different = vec![(3, vec![1], vec![0], 0.25)];
        assert_eq!(found, Agreement::Experts { common: 3, kept: 4, different });
        let text = found.to_string();
        assert!(
            text.ends_with("layer 3: [1] here, [0] there, whose saliencies differ by 2.50e-1"),
            "{text}"
        );
    }
}
