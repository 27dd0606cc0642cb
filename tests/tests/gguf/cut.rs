//! What a cut leaves: the file that a converter would have made of the model without these experts.

use std::{fs, path::Path};

use moeprune::{
    Execution, Job, OutputPlace, Recipe, Registry, Report, Resume, Silent,
    checkpoint::{Checkpoint, verify},
    core::Sparsity,
    prune_listed, read_keep_list,
};

use crate::builder::{Builder, Q8_0};

/// Prunes a model to experts that are listed for each layer.
pub(crate) fn keep(
    model: &Path,
    out: &Path,
    kept: &[(usize, &[usize])],
) -> Result<Report, moeprune::Error> {
    let source = Checkpoint::open(model).map_err(moeprune::engine::Error::from)?;
    let kept: std::collections::BTreeMap<_, _> = kept.iter().copied().collect();
    let list = tempfile::NamedTempFile::new().unwrap();
    fs::write(list.path(), serde_json::to_string(&kept).unwrap()).unwrap();
    let list = read_keep_list(list.path(), source.spec())?;
    let mut recipe = Recipe::built_in("arctic").unwrap();
    (recipe.sparsity, recipe.experts.sparsity) = (Sparsity::ZERO, Sparsity::ZERO);
    let pipeline = Registry::built_in().keeping(list, source.spec(), &mut recipe, None)?;
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let mut job = Job::new(&source, &pipeline, &cpu, &mut silent);
    let to = OutputPlace { origin: &source, path: out, resume: Resume::No };
    prune_listed(&mut job, to, &recipe)
}

/// Cuts a model of two layers of six experts to four, the same in each layer, and compares all bytes with the
/// file of a model that has these only.
#[track_caller]
fn check(model: &Builder) {
    const KEPT: [usize; 4] = [0, 2, 3, 5];
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) = (scratch.path().join("model.gguf"), scratch.path().join("out.gguf"));
    model.write(&source);
    keep(&source, &out, &[(0, &KEPT), (1, &KEPT)]).unwrap();
    let (got, expected) = (fs::read(&out).unwrap(), model.cut(6, &KEPT).bytes());
    assert_eq!(got.len(), expected.len());
    let at = got.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(at, None, "differs from there on");
    let report = verify(&out, &Checkpoint::open(&source).unwrap(), None).unwrap();
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
    for report in ["out.gguf.report.json", "out.gguf.report.md"] {
        assert!(scratch.path().join(report).is_file(), "{report}");
    }
    let left = fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 4, "model, result and two reports");
}

fn mixture() -> Builder {
    Builder::mixture(2, 6)
}

/// The same tensor in both layers.
fn in_layers(model: &mut Builder, add: impl Fn(&mut Builder, &dyn Fn(&str) -> String)) {
    for layer in 0..2 {
        add(model, &|rest: &str| format!("blk.{layer}.{rest}"));
    }
}

#[test]
fn experts_and_routers() {
    check(&mixture());
}

#[test]
fn biases_scales_and_corrections() {
    let mut model = mixture();
    in_layers(&mut model, |model, name| {
        model
            .values(&name("exp_probs_b.bias"), &[6])
            .values(&name("ffn_gate_inp.bias"), &[6])
            .values(&name("ffn_gate_exps.bias"), &[64, 6])
            .values(&name("ffn_up_exps.bias"), &[64, 6])
            .values(&name("ffn_down_exps.bias"), &[32, 6])
            .values(&name("ffn_down_exps.scale"), &[6])
            .values(&name("ffn_gate_exps.input_scale"), &[6]);
    });
    check(&model);
}

#[test]
fn gate_and_up_in_one() {
    let mut model = mixture();
    in_layers(&mut model, |model, name| {
        model.without(&name("ffn_gate_exps.weight")).without(&name("ffn_up_exps.weight")).blocks(
            &name("ffn_gate_up_exps.weight"),
            &[32, 128, 6],
            Q8_0,
            (32, 34),
        );
    });
    check(&model);
}

#[test]
fn experts_without_a_gate() {
    let mut model = mixture();
    in_layers(&mut model, |model, name| {
        model.without(&name("ffn_gate_exps.weight"));
    });
    check(&model);
}

/// A type that came after this program: its blocks are of no known size.
#[test]
fn types_that_are_not_known() {
    let mut model = mixture();
    in_layers(&mut model, |model, name| {
        model.blocks(&name("ffn_up_exps.weight"), &[32, 64, 6], 201, (32, 21));
    });
    check(&model);
}

/// Types that are known by the size of their blocks, and never decoded.
#[test]
fn types_that_are_not_decoded() {
    const IQ4_NL: u32 = 20;
    const MXFP4: u32 = 39;
    let mut model = mixture();
    in_layers(&mut model, |model, name| {
        model
            .blocks(&name("ffn_up_exps.weight"), &[32, 64, 6], IQ4_NL, (32, 18))
            .blocks(&name("ffn_down_exps.weight"), &[64, 32, 6], MXFP4, (32, 17))
            .blocks(&name("attn_q.weight"), &[32, 32], IQ4_NL, (32, 18));
    });
    check(&model);
}

#[test]
fn alignments() {
    for alignment in [8, 64, 4096] {
        let mut model = mixture();
        model.aligned(alignment);
        check(&model);
    }
}

#[test]
fn keys_that_are_not_known_arrive_unchanged() {
    let mut model = mixture();
    let words = ["<s>", "ä", ""].iter().flat_map(|word| {
        let mut bytes = (word.len() as u64).to_le_bytes().to_vec();
        bytes.extend(word.as_bytes());
        bytes
    });
    let mut list = 8_u32.to_le_bytes().to_vec();
    list.extend(3_u64.to_le_bytes());
    list.extend(words);
    model
        .entry("tokenizer.ggml.tokens", 9, &list)
        .entry("some.half", 6, &0.5_f32.to_le_bytes())
        .entry("some.flag", 7, &[1])
        .entry("some.large", 12, &1e300_f64.to_le_bytes())
        .string("general.name", "a model");
    check(&model);
}

#[test]
fn shared_experts_and_dense_layers() {
    let mut model = Builder::mixture(2, 6);
    in_layers(&mut model, |model, name| {
        model
            .values(&name("ffn_up_shexp.weight"), &[32, 48])
            .values(&name("ffn_gate_shexp.weight"), &[32, 48])
            .values(&name("ffn_down_shexp.weight"), &[48, 32])
            .values(&name("ffn_gate_inp_shexp.weight"), &[32]);
    });
    model.number_in_place("llama.block_count", 3);
    model
        .values("blk.2.attn_norm.weight", &[32])
        .values("blk.2.ffn_norm.weight", &[32])
        .values("blk.2.ffn_up.weight", &[32, 96])
        .values("blk.2.ffn_gate.weight", &[32, 96])
        .values("blk.2.ffn_down.weight", &[96, 32]);
    check(&model);
}

/// As Arctic's: an MLP beside the experts, whose norm has the word for experts in its name.
#[test]
fn mlp_beside_the_experts() {
    let mut model = mixture();
    in_layers(&mut model, |model, name| {
        model
            .values(&name("ffn_norm_exps.weight"), &[32])
            .values(&name("ffn_up.weight"), &[32, 32])
            .values(&name("ffn_gate.weight"), &[32, 32])
            .values(&name("ffn_down.weight"), &[32, 32]);
    });
    check(&model);
}

/// Layers that have neither experts nor an MLP, and norms of which nothing is known.
#[test]
fn layers_of_unknown_kinds() {
    let mut model = Builder::mixture(2, 6);
    model.number_in_place("llama.block_count", 4);
    model
        .values("blk.2.ssm_in.weight", &[32, 80])
        .values("blk.2.ssm_a", &[4])
        .values("blk.3.attn_norm.weight", &[32])
        .values("blk.3.attn_qkv.weight", &[32, 96]);
    check(&model);
}

/// Layers behind the decoder's lose as many experts, by router distance.
#[test]
fn layers_for_multi_token_prediction() {
    let mut model = Builder::mixture(3, 6);
    model.number("llama.nextn_predict_layers", 1).values("blk.2.nextn.eh_proj.weight", &[64, 32]);
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) = (scratch.path().join("model.gguf"), scratch.path().join("out.gguf"));
    model.write(&source);
    let kept: &[usize] = &[0, 1, 2, 3];
    keep(&source, &out, &[(0, kept), (1, kept)]).unwrap();
    let pruned = Checkpoint::open(&out).unwrap();
    for layer in 0..3 {
        assert_eq!(pruned.spec().moe_of(layer).unwrap().experts, 4, "layer {layer}");
    }
    let report = verify(&out, &Checkpoint::open(&source).unwrap(), None).unwrap();
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
}

/// The result of a cut is cut again.
#[test]
fn twice() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    mixture().write(&at("a.gguf"));
    let (first, second): (&[usize], &[usize]) = (&[0, 2, 3, 5], &[1, 3]);
    keep(&at("a.gguf"), &at("b.gguf"), &[(0, first), (1, first)]).unwrap();
    keep(&at("b.gguf"), &at("c.gguf"), &[(0, second), (1, second)]).unwrap();
    assert_eq!(fs::read(at("c.gguf")).unwrap(), mixture().cut(6, &[2, 5]).bytes());
}
