//! The small checkpoints of `assets/parity`, read without the checkpoint crate.

use std::{collections::BTreeMap, path::PathBuf};

use candle_core::Tensor;
use moeprune_capture::{LayerObserver, ObserverOptions};
use moeprune_core::{
    AttentionProjection, AttentionSpec, Dtype, FeedForward, GroupedAttention, LayerObservation,
    LayerSpec, LayerTensor, LinearId, MlpProjection, MlpSpec, ModelSpec, MoeInput, MoeSpec,
    Multipliers, NormWeights, RouterSpec, StageError, StoredWeight, TensorBytes, TensorId,
    TensorSource,
};
use moeprune_model::Layer;
use safetensors::SafeTensors;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Mixtral,
    Arctic,
}

impl Family {
    fn folder(self) -> &'static str {
        match self {
            Self::Mixtral => "mixtral",
            Self::Arctic => "arctic",
        }
    }
}

/// Both checkpoints: 3 layers of 8 experts, top 2.
pub(crate) fn spec(family: Family) -> ModelSpec {
    let arctic = family == Family::Arctic;
    let moe = MoeSpec {
        experts: 8,
        top_k: 2,
        router: RouterSpec::softmax(true),
        expert: MlpSpec::gated(if arctic { 48 } else { 96 }),
        opaque: Vec::new(),
        shared: Vec::new(),
        input: if arctic { MoeInput::LayerInput } else { MoeInput::AfterAttention },
        latent: None,
        residual: arctic.then(|| MlpSpec::gated(64)),
    };
    let layer = LayerSpec::new(
        AttentionSpec::Grouped(GroupedAttention::new(4, 2, 16, 1e6)),
        FeedForward::Moe(moe),
    );
    ModelSpec {
        family: family.folder().into(),
        hidden: 64,
        vocab: 256,
        max_positions: 128,
        norm_eps: 1e-5,
        norm_weights: NormWeights::Factor,
        tied_embeddings: false,
        head_bias: false,
        multipliers: Multipliers::default(),
        logit_cap: None,
        layers: vec![layer; 3],
        extra: None,
        undecoded: None,
        undecoded_experts: false,
    }
}

pub(crate) fn asset(path: &str) -> PathBuf {
    // Cargo names the folder when it runs tests too, as does a caller that runs them without the sources.
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR");
    let crate_folder = crate_folder.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(crate_folder).join("../../assets").join(path)
}

/// A checkpoint in memory, all weights widened to f32.
#[derive(Debug, Clone)]
pub(crate) struct Weights(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Weights {
    pub(crate) fn load(family: Family) -> Self {
        let bytes =
            std::fs::read(asset(&format!("parity/{}/model.safetensors", family.folder()))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let widen = |data: &[u8]| {
            data.chunks(2)
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))
                .collect()
        };
        Self(
            tensors
                .iter()
                .map(|(name, view)| {
                    assert_eq!(view.dtype(), safetensors::Dtype::BF16);
                    (name.to_owned(), (view.shape().to_vec(), widen(view.data())))
                })
                .collect(),
        )
    }

    pub(crate) fn values(&mut self, id: TensorId) -> &mut Vec<f32> {
        &mut self.0.get_mut(&name(id)).unwrap().1
    }
}

impl Weights {
    fn read(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        let (shape, values) = self.0.get(&name(id)).ok_or_else(|| name(id))?;
        Ok(TensorBytes::encode(Dtype::F32, shape.clone(), values)?)
    }
}

impl TensorSource for Weights {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        Ok(StoredWeight::alone(self.read(id)?)?)
    }
}

/// The name on disk; the two families agree where they have the same parts.
pub(crate) fn name(id: TensorId) -> String {
    let part = match id {
        TensorId::Embedding => return "model.embed_tokens.weight".into(),
        TensorId::FinalNorm => return "model.norm.weight".into(),
        TensorId::LmHead => return "lm_head.weight".into(),
        TensorId::Layer(_, part) => part,
        other => panic!("{other} in a small checkpoint"),
    };
    let TensorId::Layer(layer, _) = id else { unreachable!() };
    let w = |p| match p {
        MlpProjection::Gate => "w1",
        MlpProjection::Up => "w3",
        MlpProjection::Down => "w2",
    };
    let part = match part {
        LayerTensor::InputNorm => "input_layernorm".to_owned(),
        LayerTensor::PostAttentionNorm => "post_attention_layernorm".to_owned(),
        LayerTensor::ResidualNorm => "residual_layernorm".to_owned(),
        LayerTensor::Linear(LinearId::Attention(p)) => match p {
            AttentionProjection::Query => "self_attn.q_proj".to_owned(),
            AttentionProjection::Key => "self_attn.k_proj".to_owned(),
            AttentionProjection::Value => "self_attn.v_proj".to_owned(),
            AttentionProjection::Output => "self_attn.o_proj".to_owned(),
        },
        LayerTensor::Linear(LinearId::Router) => "block_sparse_moe.gate".to_owned(),
        LayerTensor::Linear(LinearId::Residual(p)) => format!("residual_mlp.{}", w(p)),
        LayerTensor::Linear(LinearId::Expert(e, p)) => {
            format!("block_sparse_moe.experts.{e}.{}", w(p))
        }
        other => panic!("{other:?} in a small checkpoint"),
    };
    format!("model.layers.{layer}.{part}.weight")
}

/// Runs a whole layer on `inputs`, each a block, and sums what it does: what streaming its experts
/// must give too.
pub(crate) fn observe_whole(
    layer: &Layer,
    spec: &ModelSpec,
    index: usize,
    inputs: &[Tensor],
    options: ObserverOptions,
) -> (LayerObservation, Vec<Tensor>) {
    let mut observer = LayerObserver::new(spec, index, options).unwrap();
    let mut run = |input| {
        observer.begin_block();
        layer.forward(input, 0, None, &mut observer).unwrap()
    };
    let outputs = inputs.iter().map(&mut run).collect();
    (observer.finish().unwrap(), outputs)
}
