//! The smallest models that are whole.

use std::fmt::Write;

/// A config, and the names and shapes of the tensors it asks for.
pub(super) struct Model {
    pub(super) config: String,
    pub(super) tensors: Vec<(String, Vec<usize>)>,
}

const HIDDEN: usize = 4;
const INNER: usize = 2;
const VOCAB: usize = 3;
const TOP_K: usize = 1;

/// A Mixtral.
pub(super) fn mixtral(layers: usize, experts: usize) -> Model {
    let config = format!(
        r#"{{"model_type":"mixtral","hidden_size":{HIDDEN},"intermediate_size":{INNER},"vocab_size":{VOCAB},"num_hidden_layers":{layers},"num_attention_heads":2,"num_key_value_heads":1,"num_local_experts":{experts},"num_experts_per_tok":{TOP_K},"max_position_embeddings":16,"rms_norm_eps":1e-5,"rope_theta":1e4,"hidden_act":"silu","tie_word_embeddings":false,"torch_dtype":"bfloat16","eos_token_id":2}}"#
    );
    let mut tensors = outside_layers();
    for layer in 0..layers {
        in_every_layer(layer, &mut tensors);
        with_experts(layer, experts, &mut tensors);
    }
    Model { config, tensors }
}

/// An Arctic: a dense layer, then one of experts beside a residual MLP.
pub(super) fn arctic(experts: usize) -> Model {
    let config = format!(
        r#"{{"model_type":"arctic","hidden_size":{HIDDEN},"intermediate_size":{INNER},"vocab_size":{VOCAB},"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"num_local_experts":{experts},"num_experts_per_tok":{TOP_K},"moe_layer_frequency":2,"parallel_attn_mlp_res":true,"max_position_embeddings":16,"torch_dtype":"bfloat16","eos_token_id":[1,2]}}"#
    );
    let mut tensors = outside_layers();
    for layer in 0..2 {
        in_every_layer(layer, &mut tensors);
    }
    mlp("model.layers.0.block_sparse_moe.mlp", INNER, &mut tensors);
    with_experts(1, experts, &mut tensors);
    tensors.push(("model.layers.1.residual_layernorm.weight".to_owned(), vec![HIDDEN]));
    mlp("model.layers.1.residual_mlp", HIDDEN, &mut tensors);
    Model { config, tensors }
}

fn outside_layers() -> Vec<(String, Vec<usize>)> {
    vec![
        ("lm_head.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ]
}

fn in_every_layer(layer: usize, tensors: &mut Vec<(String, Vec<usize>)>) {
    for (name, shape) in [
        ("input_layernorm", vec![HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
        ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
        ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
        ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
    ] {
        tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
    }
}

fn with_experts(layer: usize, experts: usize, tensors: &mut Vec<(String, Vec<usize>)>) {
    let block = format!("model.layers.{layer}.block_sparse_moe");
    tensors.push((format!("{block}.gate.weight"), vec![experts, HIDDEN]));
    for expert in 0..experts {
        mlp(&format!("{block}.experts.{expert}"), INNER, tensors);
    }
}

fn mlp(prefix: &str, inner: usize, tensors: &mut Vec<(String, Vec<usize>)>) {
    for (name, shape) in
        [("w1", vec![inner, HIDDEN]), ("w2", vec![HIDDEN, inner]), ("w3", vec![inner, HIDDEN])]
    {
        tensors.push((format!("{prefix}.{name}.weight"), shape));
    }
}

/// A safetensors file of these tensors in bf16. No byte of the data is a brace, so that the end of
/// the header can be found again in a damaged file.
pub(super) fn shard(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let (mut header, mut data) = (String::from("{"), Vec::new());
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let start = data.len();
        for j in 0..shape.iter().product() {
            let sign = if (i + j) % 3 == 0 { 0x80 } else { 0 };
            data.extend([((i * 31 + j * 17) % 0x70) as u8, 0x3f | sign]);
        }
        let (comma, end) = (if i == 0 { "" } else { "," }, data.len());
        write!(
            header,
            r#"{comma}"{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        )
        .expect("writes to memory");
    }
    header.push('}');
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}
