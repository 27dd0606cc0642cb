//! Writing a model as an ordinary Hugging Face directory.

use crate::config::Design;
use crate::model::Model;
use crate::router::Router;
use crate::tokenizer::{BOS, EOS, Tokenizer};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Writes `config.json`, `model.safetensors`, `tokenizer.json`, `tokenizer_config.json` and
/// `generation_config.json`.
///
/// Each file replaces its predecessor at once, so that a reader never sees half of one.
pub fn write(model: &Model, tokenizer: &Tokenizer, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let (bos, eos) = (tokenizer.bos, tokenizer.eos);
    replace(directory, "config.json", &pretty(&model.config.json(bos, eos))?)?;
    replace(directory, "model.safetensors", &weights(model)?)?;
    replace(directory, "tokenizer.json", tokenizer.json()?.as_bytes())?;
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "add_bos_token": true,
        "clean_up_tokenization_spaces": false,
        "model_max_length": model.config.positions,
    });
    replace(directory, "tokenizer_config.json", &pretty(&tokenizer_config)?)?;
    let generation = json!({
        "bos_token_id": bos,
        "eos_token_id": eos,
        "do_sample": false,
    });
    replace(directory, "generation_config.json", &pretty(&generation)?)
}

/// Rounds every weight to what the written file holds.
pub fn round(model: &Model) -> Result<()> {
    for var in model.vars() {
        var.set(&var.to_dtype(DType::BF16)?.to_dtype(DType::F32)?)?;
    }
    Ok(())
}

/// All weights under the names that the released models give them.
pub fn named(model: &Model) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    let mut name = |name: String, tensor: Tensor| tensors.insert(name, tensor);
    name("model.embed_tokens.weight".into(), model.embedding.as_detached_tensor());
    name("model.norm.weight".into(), model.norm.as_detached_tensor());
    name("lm_head.weight".into(), model.head.as_detached_tensor());
    let heads = model.config.heads;
    let Names { block, beside, matrices } = Names::of(model.config.design);
    for (index, layer) in model.layers.iter().enumerate() {
        let of = |part: &str| format!("model.layers.{index}.{part}.weight");
        name(of("input_layernorm"), layer.input_norm.as_detached_tensor());
        if let Some(norm) = &layer.residual_norm {
            name(of("residual_layernorm"), norm.as_detached_tensor());
        }
        name(of("post_attention_layernorm"), layer.expert_norm.as_detached_tensor());
        let qkv = layer.qkv.as_detached_tensor();
        let (queries, keys) = (heads.queries * heads.size, heads.keys * heads.size);
        name(of("self_attn.q_proj"), qkv.narrow(0, 0, queries)?);
        name(of("self_attn.k_proj"), qkv.narrow(0, queries, keys)?);
        name(of("self_attn.v_proj"), qkv.narrow(0, queries + keys, keys)?);
        name(of("self_attn.o_proj"), layer.out.as_detached_tensor());
        for (matrix, tensor) in
            matrices.iter().zip(mlp(&layer.beside.as_detached_tensor().get(0)?)?)
        {
            name(of(&format!("{beside}.{matrix}")), tensor);
        }
        if let Some(router) = &layer.router {
            name(of(&format!("{block}.gate")), router.weight().as_detached_tensor());
            if let Router::Sigmoid { bias, .. } = router {
                let bias = Tensor::new(bias.as_slice(), &Device::Cpu)?;
                name(format!("model.layers.{index}.{block}.{CORRECTION}"), bias);
            }
        }
        let experts = layer.experts.as_detached_tensor();
        for expert in 0..experts.dim(0)? {
            for (matrix, tensor) in matrices.iter().zip(mlp(&experts.get(expert)?)?) {
                name(of(&format!("{block}.experts.{expert}.{matrix}")), tensor);
            }
        }
    }
    Ok(tensors)
}

/// The correction biases; written as f32, as in released models.
const CORRECTION: &str = "gate.e_score_correction_bias";

/// What a family calls its parts.
struct Names {
    /// The mixture of experts.
    block: &'static str,
    /// The MLP besides the experts.
    beside: &'static str,
    /// The matrices of an MLP: gate, up, down.
    matrices: [&'static str; 3],
}

impl Names {
    fn of(design: Design) -> Self {
        match design {
            Design::Arctic => Self {
                block: "block_sparse_moe",
                beside: "residual_mlp",
                matrices: ["w1", "w3", "w2"],
            },
            Design::SharedExpert { .. } => Self {
                block: "mlp",
                beside: "mlp.shared_experts",
                matrices: ["gate_proj", "up_proj", "down_proj"],
            },
        }
    }
}

/// The three matrices of [3, f, d] as gate, up and down, in [out, in] layout.
fn mlp(weights: &Tensor) -> Result<[Tensor; 3]> {
    Ok([weights.get(0)?, weights.get(1)?, weights.get(2)?.t()?])
}

fn weights(model: &Model) -> Result<Vec<u8>> {
    let mut data = BTreeMap::new();
    for (name, tensor) in named(model)? {
        let values = tensor.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        let (dtype, bytes): (_, Vec<u8>) = if name.ends_with(CORRECTION) {
            (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        } else {
            let rounded = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes());
            (Dtype::BF16, rounded.collect())
        };
        data.insert(name, (dtype, tensor.dims().to_vec(), bytes));
    }
    let mut views = Vec::with_capacity(data.len());
    for (name, (dtype, shape, bytes)) in &data {
        views.push((name, TensorView::new(*dtype, shape.clone(), bytes)?));
    }
    let metadata = [("format".to_owned(), "pt".to_owned())];
    Ok(safetensors::serialize(views, Some(metadata.into()))?)
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text.into_bytes())
}

fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (target, partial) = (directory.join(name), directory.join(format!("{name}.partial")));
    fs::write(&partial, bytes).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, &target).with_context(|| format!("writing {}", target.display()))
}
