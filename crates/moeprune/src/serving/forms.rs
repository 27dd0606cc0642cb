//! In which forms weights are stored, as engines tell them apart.

use std::{collections::BTreeSet, fmt};

use moeprune_checkpoint::{Checkpoint, StoredPart};
use moeprune_core::{Part, TensorId, encoding::StoredForm};
use serde::{Deserialize, Serialize};

/// A form in which weights are stored, with what decides whether engines load it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new one must be answered")]
pub enum WeightForm {
    /// FP8 with a scale per block, all sizes multiples of the block.
    Fp8Block,
    /// FP8 with a scale per block, some sizes not multiples of it.
    Fp8RaggedBlock,
    /// FP8 with a scale per output.
    Fp8Channel,
    /// The same, with experts of the same layer that are plain numbers.
    Fp8MixedChannel,
    /// FP8 with one scale per matrix.
    Fp8Tensor,
    /// Four bits packed by compressed-tensors, symmetric.
    Int4Packed,
    /// The same with zero points.
    Int4Asymmetric,
    /// MXFP4, a few tensors per matrix of an expert.
    Mxfp4,
    /// MXFP4, all experts of a layer in one tensor.
    Mxfp4Fused,
    /// NVFP4 by Model-Optimizer.
    Nvfp4Modelopt,
    /// NVFP4 by compressed-tensors.
    Nvfp4CompressedTensors,
    /// GPTQ in four bits.
    Gptq,
    /// AWQ (GEMM) in four bits.
    Awq,
    /// Any other form that is not plain numbers.
    Other,
}

impl WeightForm {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Fp8Block,
        Self::Fp8RaggedBlock,
        Self::Fp8Channel,
        Self::Fp8MixedChannel,
        Self::Fp8Tensor,
        Self::Int4Packed,
        Self::Int4Asymmetric,
        Self::Mxfp4,
        Self::Mxfp4Fused,
        Self::Nvfp4Modelopt,
        Self::Nvfp4CompressedTensors,
        Self::Gptq,
        Self::Awq,
        Self::Other,
    ];

    /// Those in which a model stores weights; none if all are plain numbers, or in a GGUF file, of which the
    /// container decides.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint) -> BTreeSet<Self> {
        let spec = checkpoint.spec();
        let mut forms = BTreeSet::new();
        if checkpoint.describes_itself() {
            return forms;
        }
        if spec.has_opaque_experts() {
            forms.insert(Self::Other);
        }
        // Of each layer, whether an expert is in numbers.
        let (mut channels, mut plain) = (BTreeSet::new(), BTreeSet::new());
        let block = checkpoint.block_size();
        for part in spec.parts().into_iter().chain(spec.extra_parts()) {
            let layer = match part.id {
                TensorId::Layer(layer, _) if part.id.expert().is_some() => Some(layer),
                _ => None,
            };
            let stored = checkpoint.stored_part(part.id);
            match stored.as_ref().and_then(|stored| Self::of_part(stored, &part, block)) {
                Some(Self::Fp8Channel) => channels.extend(layer),
                None if part.shape.len() == 2 => plain.extend(layer),
                _ => {}
            }
            forms.extend(stored.and_then(|stored| Self::of_part(&stored, &part, block)));
        }
        if channels.intersection(&plain).next().is_some() {
            forms.remove(&Self::Fp8Channel);
            forms.insert(Self::Fp8MixedChannel);
        }
        forms
    }

    /// That of a part, `None` of numbers.
    fn of_part(stored: &StoredPart<'_>, part: &Part, block: Option<[usize; 2]>) -> Option<Self> {
        let has = |suffix: &str| stored.tensors.iter().any(|(name, _)| *name == suffix);
        let divides = |block: [usize; 2]| {
            part.shape.iter().zip(block).all(|(size, of)| of > 0 && size % of == 0)
        };
        let StoredForm::Codes(name) = stored.form else {
            let numbers = matches!(stored.form, StoredForm::Numbers(_));
            return (!numbers).then_some(Self::Other);
        };
        Some(match &**name {
            "FP8 in blocks" => match block {
                Some(block) if divides(block) => Self::Fp8Block,
                Some(_) => Self::Fp8RaggedBlock,
                None => Self::Other,
            },
            "FP8 per channel" => Self::Fp8Channel,
            "FP8 per tensor" => Self::Fp8Tensor,
            "INT4 packed" if has("weight_zero_point") => Self::Int4Asymmetric,
            "INT4 packed" => Self::Int4Packed,
            "MXFP4" if stored.main.experts.is_some() => Self::Mxfp4Fused,
            "MXFP4" => Self::Mxfp4,
            "NVFP4" if has("weight_packed") => Self::Nvfp4CompressedTensors,
            "NVFP4" => Self::Nvfp4Modelopt,
            "GPTQ INT4" => Self::Gptq,
            "AWQ INT4" => Self::Awq,
            _ => Self::Other,
        })
    }
}

impl fmt::Display for WeightForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp8Block => "FP8 in blocks",
            Self::Fp8RaggedBlock => "FP8 in blocks that do not divide all sizes",
            Self::Fp8Channel => "FP8 per channel",
            Self::Fp8MixedChannel => "FP8 per channel with some experts in plain numbers",
            Self::Fp8Tensor => "FP8 per tensor",
            Self::Int4Packed => "INT4 packed, symmetric",
            Self::Int4Asymmetric => "INT4 packed, asymmetric",
            Self::Mxfp4 => "MXFP4 per expert",
            Self::Mxfp4Fused => "MXFP4 of all experts in one tensor",
            Self::Nvfp4Modelopt => "NVFP4 of Model-Optimizer",
            Self::Nvfp4CompressedTensors => "NVFP4 of compressed-tensors",
            Self::Gptq => "GPTQ INT4",
            Self::Awq => "AWQ INT4",
            Self::Other => "another form",
        })
    }
}
