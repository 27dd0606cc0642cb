//! Which tensor of llama.cpp's a Linear is, by the kind of what it belongs to.
//!
//! Names stand without `blk.N.` before and `.weight` behind. Where a kind has several, files have one or
//! some of them: fused where the converter fuses, apart where it splits. All of them read the same vector.
//! llama.cpp permutes rows of some of these matrices (queries and keys that turn in pairs), never what they
//! read, but for the output of gated delta nets ([`heads`](super::heads)).

use moeprune_core::{
    AttentionProjection as Projection, AttentionSpec, GatedDeltaNet, KimiDeltaAttention,
    LatentAttention, LayerSpec, LinearId, Mamba2, MlpProjection, ModelSpec, MoeSpec, PartName,
    ShortConvolution,
};
use moeprune_gguf::imatrix::Imatrix;

use crate::ImatrixMismatch;

type Table = &'static [(LinearId, &'static [&'static str])];

const QUERY: LinearId = LinearId::Attention(Projection::Query);
const KEY: LinearId = LinearId::Attention(Projection::Key);
const VALUE: LinearId = LinearId::Attention(Projection::Value);
const OUTPUT: LinearId = LinearId::Attention(Projection::Output);

const GROUPED: Table = &[
    (QUERY, &["attn_q", "attn_qkv"]),
    (KEY, &["attn_k", "attn_qkv"]),
    (VALUE, &["attn_v", "attn_qkv"]),
    (OUTPUT, &["attn_output"]),
];

/// Without `attn_k_b` and `attn_v_b`, the halves of `attn_kv_b` in files since 2025: llama.cpp multiplies
/// queries and weighted latents by them, and so no entry has the inputs of `kv_b`.
const LATENT: Table = &[
    (LatentAttention::Q_A, &["attn_q_a"]),
    (LatentAttention::Q_B, &["attn_q_b"]),
    (LatentAttention::QUERY, &["attn_q"]),
    (LatentAttention::KV_A, &["attn_kv_a_mqa"]),
    (LatentAttention::KV_B, &["attn_kv_b"]),
    (LatentAttention::OUTPUT, &["attn_output"]),
];

const GATED_DELTA: Table = &[
    (GatedDeltaNet::QKVZ, &["ssm_in", "attn_qkv", "attn_gate"]),
    (GatedDeltaNet::BA, &["ssm_ba", "ssm_beta", "ssm_alpha"]),
    (GatedDeltaNet::QKV, &["attn_qkv"]),
    (GatedDeltaNet::Z, &["attn_gate"]),
    (GatedDeltaNet::B, &["ssm_beta", "ssm_ba"]),
    (GatedDeltaNet::A, &["ssm_alpha", "ssm_ba"]),
    (GatedDeltaNet::OUTPUT, &["ssm_out"]),
];

const KIMI_DELTA: Table = &[
    (KimiDeltaAttention::QUERY, &["attn_q", "attn_qkv"]),
    (KimiDeltaAttention::KEY, &["attn_k", "attn_qkv"]),
    (KimiDeltaAttention::VALUE, &["attn_v", "attn_qkv"]),
    (KimiDeltaAttention::DECAY_A, &["ssm_f_a"]),
    (KimiDeltaAttention::DECAY_B, &["ssm_f_b"]),
    (KimiDeltaAttention::GATE_A, &["ssm_g_a"]),
    (KimiDeltaAttention::GATE_B, &["ssm_g_b"]),
    (KimiDeltaAttention::BETA, &["ssm_beta"]),
    (KimiDeltaAttention::OUTPUT, &["attn_output"]),
];

const SHORT_CONVOLUTION: Table = &[
    (ShortConvolution::INPUT, &["shortconv.in_proj"]),
    (ShortConvolution::OUTPUT, &["shortconv.out_proj"]),
];

const MAMBA2: Table = &[(Mamba2::INPUT, &["ssm_in"]), (Mamba2::OUTPUT, &["ssm_out"])];

/// The MLP of a layer without experts, and the one beside them: no layer has both.
const MLP: [&[&str]; 3] = [&["ffn_gate"], &["ffn_up"], &["ffn_down"]];
const SHARED: [&[&str]; 3] = [&["ffn_gate_shexp"], &["ffn_up_shexp"], &["ffn_down_shexp"]];
const EXPERTS: [&[&str]; 3] = [
    &["ffn_gate_exps", "ffn_gate_up_exps"],
    &["ffn_up_exps", "ffn_gate_up_exps"],
    &["ffn_down_exps"],
];

/// The names that a Linear of a layer has; none of one that llama.cpp keeps in another way.
pub(super) fn of(layer: &LayerSpec, linear: LinearId) -> Vec<String> {
    let names: &[&str] = match linear {
        LinearId::Router => &["ffn_gate_inp"],
        LinearId::Dense(p) | LinearId::Residual(p) => by_projection(MLP, p),
        LinearId::Expert(_, p) => by_projection(EXPERTS, p),
        // llama.cpp has all shared experts in one MLP, so what their down projections read stands in a row.
        LinearId::Shared(_, MlpProjection::Down) if shared(layer) > 1 => &[],
        LinearId::Shared(_, p) => by_projection(SHARED, p),
        MoeSpec::TO_LATENT => &["ffn_latent_down"],
        MoeSpec::FROM_LATENT => &["ffn_latent_up"],
        linear => return of_attention(&layer.attention, linear),
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn of_attention(attention: &AttentionSpec, linear: LinearId) -> Vec<String> {
    let table = match attention {
        AttentionSpec::Grouped(_) => GROUPED,
        AttentionSpec::Latent(_) => LATENT,
        AttentionSpec::GatedDelta(_) => GATED_DELTA,
        AttentionSpec::KimiDelta(_) => KIMI_DELTA,
        AttentionSpec::ShortConvolution(_) => SHORT_CONVOLUTION,
        AttentionSpec::Mamba2(_) => MAMBA2,
        AttentionSpec::None => &[],
        AttentionSpec::Opaque(_) => match linear {
            LinearId::Named(name) => return vec![own(&name)],
            _ => GROUPED,
        },
    };
    let found = table.iter().find(|(id, _)| *id == linear);
    found.into_iter().flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned())).collect()
}

/// Of a kind of which only the tensors are known, the name that a model's own files give one: what follows
/// `attention.` in `attention.attn_q_a`.
fn own(name: &PartName) -> String {
    name.as_str().split_once('.').map_or("", |(_, own)| own).to_owned()
}

fn by_projection(
    names: [&'static [&'static str]; 3],
    projection: MlpProjection,
) -> &'static [&'static str] {
    match projection {
        MlpProjection::Gate => names[0],
        MlpProjection::Up => names[1],
        MlpProjection::Down => names[2],
    }
}

fn shared(layer: &LayerSpec) -> usize {
    layer.moe().map_or(0, |moe| moe.shared.len())
}

/// A tensor's whole name.
pub(super) fn full(layer: usize, name: &str) -> String {
    format!("blk.{layer}.{name}.weight")
}

/// A tensor that an imatrix of the model has.
pub(super) fn example(spec: &ModelSpec) -> String {
    let linears = spec.linears(0).into_iter();
    let names = linears.flat_map(|linear| of(&spec.layers[0], linear.id));
    names.take(1).map(|name| full(0, &name)).collect()
}

/// Refuses an imatrix with tensors of layers that the model has not.
pub(super) fn check_layers(imatrix: &Imatrix, spec: &ModelSpec) -> Result<(), ImatrixMismatch> {
    let layers = spec.layers.len() + spec.extra.as_ref().map_or(0, |extra| extra.layers.len());
    for tensor in imatrix.entries.keys() {
        let number = tensor.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
        let layer = number.and_then(|number| number.parse::<usize>().ok());
        if let Some(layer) = layer.filter(|&layer| layer >= layers) {
            return Err(ImatrixMismatch::Layer { tensor: tensor.clone(), layer, layers });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use moeprune_checkpoint::Checkpoint;

    use super::*;

    /// Linears without a name, of all small checkpoints; the others have one.
    #[test]
    fn every_linear_has_a_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/parity");
        let mut seen = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                continue;
            }
            let model = Checkpoint::open(&path).unwrap();
            let spec = model.spec().decoded();
            for (layer, of_layer) in spec.layers.iter().enumerate() {
                for linear in spec.linears(layer) {
                    let names = of(of_layer, linear.id);
                    assert!(!names.is_empty(), "{} of {}", linear.id, path.display());
                    seen += 1;
                }
            }
        }
        assert!(seen > 1000, "{seen}");
    }

    #[test]
    fn opaque_attention_has_the_names_of_its_files() {
        let attention = AttentionSpec::Opaque(Vec::new());
        let check = |linear: &str, expected: &[&str]| {
            assert_eq!(of_attention(&attention, linear.parse().unwrap()), expected);
        };
        check("attention.attn_q_a", &["attn_q_a"]);
        check("attention.query", &["attn_q", "attn_qkv"]);
        check("other.ssm_out", &["ssm_out"]);
    }
}
