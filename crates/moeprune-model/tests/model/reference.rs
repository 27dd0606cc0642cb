//! Small checkpoints with what the public model code computed from them.
//!
//! Read here without the checkpoint crate, so that the two are tested apart.

use std::{collections::BTreeMap, fs, path::PathBuf};

use candle_core::{DType, Device, Tensor};
use moeprune_core::{
    AttentionProjection, AttentionSpec, Dtype, FeedForward, GroupedAttention, LayerSpec,
    LayerTensor, LinearId, MlpProjection, MlpSpec, ModelSpec, MoeInput, MoeSpec, Multipliers,
    NormWeights, RouterSpec, StageError, StoredWeight, TensorBytes, TensorId, TensorSource,
};
use safetensors::SafeTensors;
use serde_json::Value;

/// Cargo names the crate's folder when it runs tests too; on a machine without the sources, the
/// program that runs them does.
fn folder(name: &str) -> PathBuf {
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR");
    let crate_folder = crate_folder.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(crate_folder).join("../../assets/parity").join(name)
}

pub(crate) struct Checkpoint {
    pub(crate) spec: ModelSpec,
    tensors: BTreeMap<String, TensorBytes<'static>>,
}

impl Checkpoint {
    pub(crate) fn open(name: &str) -> Self {
        let folder = folder(name);
        let config = fs::read(folder.join("config.json")).unwrap();
        let spec = spec(&serde_json::from_slice(&config).unwrap());
        let mut tensors = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            if !file.starts_with("model") || !file.ends_with(".safetensors") {
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                assert_eq!(view.dtype(), safetensors::Dtype::BF16);
                let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
                tensors.insert(name, TensorBytes::new(Dtype::BF16, shape, data).unwrap());
            }
        }
        Self { spec, tensors }
    }
}

impl Checkpoint {
    fn read(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        let name = name(id);
        let tensor = self.tensors.get(&name).ok_or_else(|| format!("no tensor {name}"))?;
        Ok(TensorBytes::new(tensor.dtype(), tensor.shape(), tensor.bytes())?)
    }
}

impl TensorSource for Checkpoint {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        Ok(StoredWeight::alone(self.read(id)?)?)
    }
}

fn spec(config: &Value) -> ModelSpec {
    let number = |key: &str| config[key].as_u64().unwrap() as usize;
    let arctic = config["model_type"] == "arctic";
    let frequency = config["moe_layer_frequency"].as_u64().unwrap_or(1) as usize;
    let theta = config["rope_theta"].as_f64();
    let layer = |l: usize| {
        if !(l + 1).is_multiple_of(frequency) {
            return FeedForward::Dense(MlpSpec::gated(number("intermediate_size")));
        }
        FeedForward::Moe(MoeSpec {
            experts: number("num_local_experts"),
            top_k: number("num_experts_per_tok"),
            router: RouterSpec::softmax(true),
            expert: MlpSpec::gated(number("intermediate_size")),
            opaque: Vec::new(),
            shared: Vec::new(),
            input: if arctic { MoeInput::LayerInput } else { MoeInput::AfterAttention },
            latent: None,
            residual: arctic.then(|| MlpSpec::gated(number("hidden_size"))),
        })
    };
    let attention = GroupedAttention::new(
        number("num_attention_heads"),
        number("num_key_value_heads"),
        number("hidden_size") / number("num_attention_heads"),
        theta.or_else(|| config["rope_parameters"]["rope_theta"].as_f64()).unwrap(),
    );
    ModelSpec {
        family: config["model_type"].as_str().unwrap().into(),
        hidden: number("hidden_size"),
        vocab: number("vocab_size"),
        max_positions: number("max_position_embeddings"),
        norm_eps: config["rms_norm_eps"].as_f64().unwrap(),
        norm_weights: NormWeights::Factor,
        tied_embeddings: false,
        head_bias: false,
        multipliers: Multipliers::default(),
        logit_cap: None,
        layers: (0..number("num_hidden_layers"))
            .map(|l| LayerSpec::new(AttentionSpec::Grouped(attention.clone()), layer(l)))
            .collect(),
        extra: None,
        undecoded: None,
        undecoded_experts: false,
    }
}

fn name(id: TensorId) -> String {
    let (layer, tensor) = match id {
        TensorId::Embedding => return "model.embed_tokens.weight".into(),
        TensorId::FinalNorm => return "model.norm.weight".into(),
        TensorId::LmHead => return "lm_head.weight".into(),
        TensorId::Layer(layer, tensor) => (layer, tensor),
        other => panic!("{other}"),
    };
    let mlp = |p| match p {
        MlpProjection::Gate => "w1",
        MlpProjection::Up => "w3",
        MlpProjection::Down => "w2",
    };
    let part = match tensor {
        LayerTensor::InputNorm => "input_layernorm".into(),
        LayerTensor::PostAttentionNorm => "post_attention_layernorm".into(),
        LayerTensor::ResidualNorm => "residual_layernorm".into(),
        LayerTensor::Linear(LinearId::Attention(p)) => match p {
            AttentionProjection::Query => "self_attn.q_proj".into(),
            AttentionProjection::Key => "self_attn.k_proj".into(),
            AttentionProjection::Value => "self_attn.v_proj".into(),
            AttentionProjection::Output => "self_attn.o_proj".into(),
        },
        LayerTensor::Linear(LinearId::Router) => "block_sparse_moe.gate".into(),
        LayerTensor::Linear(LinearId::Residual(p)) => format!("residual_mlp.{}", mlp(p)),
        LayerTensor::Linear(LinearId::Dense(p)) => format!("block_sparse_moe.mlp.{}", mlp(p)),
        LayerTensor::Linear(LinearId::Expert(e, p)) => {
            format!("block_sparse_moe.experts.{e}.{}", mlp(p))
        }
        other => panic!("{other:?}"),
    };
    format!("model.layers.{layer}.{part}.weight")
}

/// A checkpoint without some of its experts: `kept[l]` are the old indices of those left.
pub(crate) struct Pruned<'a> {
    source: &'a Checkpoint,
    kept: BTreeMap<usize, Vec<usize>>,
}

impl<'a> Pruned<'a> {
    pub(crate) fn new(
        source: &'a Checkpoint,
        kept: BTreeMap<usize, Vec<usize>>,
    ) -> (Self, ModelSpec) {
        let mut spec = source.spec.clone();
        for (&layer, kept) in &kept {
            let FeedForward::Moe(moe) = &mut spec.layers[layer].feed_forward else {
                panic!("layer {layer} has no experts")
            };
            moe.experts = kept.len();
            moe.top_k = moe.top_k.min(kept.len());
        }
        (Self { source, kept }, spec)
    }
}

impl Pruned<'_> {
    fn read(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        let TensorId::Layer(layer, LayerTensor::Linear(linear)) = id else {
            return self.source.read(id);
        };
        let Some(kept) = self.kept.get(&layer) else { return self.source.read(id) };
        if let Some(expert) = linear.expert() {
            let old = kept.get(expert).ok_or("that expert was removed")?;
            return self.source.read(TensorId::linear(layer, linear.with_expert(*old)));
        }
        let tensor = self.source.read(id)?;
        if linear != LinearId::Router {
            return Ok(tensor);
        }
        let row = tensor.bytes().len() / tensor.shape()[0];
        let rows: Vec<u8> =
            kept.iter().flat_map(|&e| tensor.bytes()[e * row..][..row].to_vec()).collect();
        Ok(TensorBytes::new(tensor.dtype(), [kept.len(), tensor.shape()[1]], rows)?)
    }
}

impl TensorSource for Pruned<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        Ok(StoredWeight::alone(self.read(id)?)?)
    }
}

/// A checkpoint in which one tensor is replaced.
pub(crate) struct Replaced<'a> {
    pub(crate) source: &'a Checkpoint,
    pub(crate) id: TensorId,
    /// `None`: it is missing.
    pub(crate) by: Option<TensorBytes<'static>>,
}

impl Replaced<'_> {
    fn read(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        if id != self.id {
            return self.source.read(id);
        }
        self.by.clone().ok_or_else(|| "it is not in the file".into())
    }
}

impl TensorSource for Replaced<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        Ok(StoredWeight::alone(self.read(id)?)?)
    }
}

/// Values computed by the public model code, in f32 from the bf16 weights.
pub(crate) struct Expected(BTreeMap<String, Tensor>);

impl Expected {
    pub(crate) fn read(name: &str) -> Self {
        let path = folder(name).join("ref.safetensors");
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        Self(tensors.into_iter().collect())
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let tensor = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<u32> {
        let tensor = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        tensor.to_dtype(DType::U32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    pub(crate) fn input_ids(&self) -> Vec<Vec<u32>> {
        let len = self.0["input_ids"].dim(1).unwrap();
        self.integers("input_ids").chunks(len).map(<[u32]>::to_vec).collect()
    }

    /// Old indices of the experts the pruned case keeps, by layer.
    pub(crate) fn kept(&self) -> BTreeMap<usize, Vec<usize>> {
        let layer = |name: &String| name.strip_prefix("pruned.kept.")?.parse().ok();
        let indices = |name: &String| self.integers(name).into_iter().map(|e| e as usize).collect();
        self.0.keys().filter_map(|name| Some((layer(name)?, indices(name)))).collect()
    }
}

pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance, "{what} at {i}: got {g}, expected {w}");
    }
}
