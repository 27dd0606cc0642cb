//! Bad input is refused with a message that says what is wrong.

use candle_core::{DType, Device, Tensor};
use moeprune_core::{
    Activation, AttentionSpec, Dtype, FeedForward, GroupedAttention, LayerSpec, LayerTensor,
    LinearId, MlpProjection, MlpSpec, ModelSpec, MoeSpec, OpaqueRouter, RotarySpec, RouterSpec,
    SharedSpec, TensorBytes, TensorId,
};
use moeprune_model::{
    Compute, Error, GenerationOptions, LanguageModel, Layer, LayerCache, NoSink, check_runnable,
};

use crate::reference::{Checkpoint, Replaced};

fn assert_says<T: std::fmt::Debug>(result: Result<T, Error>, want: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(want), "{message}");
}

fn load_with(id: TensorId, by: Option<TensorBytes<'static>>) -> Result<LanguageModel, Error> {
    let model = Checkpoint::open("arctic");
    let source = Replaced { source: &model, id, by };
    LanguageModel::load(&source, &model.spec, &Compute::cpu())
}

fn constant(shape: [usize; 2], value: f32) -> Option<TensorBytes<'static>> {
    let values = vec![value; shape[0] * shape[1]];
    Some(TensorBytes::encode(Dtype::BF16, shape, &values).unwrap())
}

#[test]
fn missing_tensors_are_named() {
    let check = |id, want| assert_says(load_with(id, None), want);
    check(TensorId::Embedding, "cannot read embedding: it is not in the file");
    check(TensorId::LmHead, "cannot read head: ");
    check(TensorId::FinalNorm, "cannot read final norm: ");
    check(TensorId::Layer(1, LayerTensor::ResidualNorm), "cannot read layer 1 residual norm: ");
    check(TensorId::linear(2, LinearId::Router), "cannot read layer 2 router: ");
    check(
        TensorId::linear(0, LinearId::Expert(7, MlpProjection::Up)),
        "cannot read layer 0 expert.7.up: ",
    );
}

#[test]
fn wrong_shapes_are_named() {
    let check = |id, want| assert_says(load_with(id, constant([3, 5], 0.0)), want);
    check(TensorId::Embedding, "embedding has shape [3, 5], expected [256, 64]");
    check(TensorId::FinalNorm, "final norm has shape [3, 5], expected [64]");
    check(TensorId::linear(2, LinearId::Router), "router has shape [3, 5], expected [8, 64]");
    check(
        TensorId::linear(0, LinearId::Expert(7, MlpProjection::Down)),
        "layer 0 expert.7.down has shape [3, 5], expected [64, 48]",
    );
}

#[test]
fn integers_are_no_weights() {
    let integers = TensorBytes::new(Dtype::I32, [8, 64], vec![0; 8 * 64 * 4]).unwrap();
    assert_says(
        load_with(TensorId::linear(2, LinearId::Router), Some(integers)),
        "cannot read layer 2 router: cannot read I32 as weights",
    );
}

#[test]
fn specifications_that_make_no_sense() {
    let check = |change: &dyn Fn(&mut ModelSpec), want| {
        let model = Checkpoint::open("mixtral");
        let mut spec = model.spec.clone();
        change(&mut spec);
        assert_says(Layer::load(&model, &spec, 0, &Compute::cpu()), want);
    };
    fn attention(spec: &mut ModelSpec) -> &mut GroupedAttention {
        match &mut spec.layers[0].attention {
            AttentionSpec::Grouped(attention) => attention,
            _ => unreachable!(),
        }
    }
    check(&|spec| attention(spec).kv_heads = 3, "must be a multiple");
    check(&|spec| attention(spec).kv_heads = 0, "must be a multiple");
    check(&|spec| attention(spec).head_dim = 5, "16 dimensions turn in heads of width 5");
    check(
        &|spec| attention(spec).rotary = Some(RotarySpec::plain(1e4, 5)),
        "the width that turns even",
    );
    check(&|spec| attention(spec).reach = moeprune_core::Reach::Window(0), "sliding window");
    check(&|spec| spec.layers.clear(), "no layer 0 in a model of 0");
    let moe = |spec: &mut ModelSpec, experts, top_k| {
        if let FeedForward::Moe(moe) = &mut spec.layers[0].feed_forward {
            (moe.experts, moe.top_k) = (experts, top_k);
        }
    };
    check(&|spec| moe(spec, 0, 2), "must be at least 1");
    check(&|spec| moe(spec, 8, 0), "must be at least 1");
    check(&|spec| moe(spec, 9, 2), "router has shape [8, 64], expected [9, 64]");
}

fn arctic() -> LanguageModel {
    let model = Checkpoint::open("arctic");
    LanguageModel::load(&model, &model.spec, &Compute::cpu()).unwrap()
}

#[test]
fn sequences_that_cannot_be_run() {
    let model = arctic();
    let check = |sequence: &[u32], want: &str| {
        assert_says(model.logits(&[vec![1, 2], sequence.to_vec()]), want);
        assert_says(
            model.negative_log_likelihood(sequence),
            &want.replace("sequence 1", "sequence 0"),
        );
        let options = GenerationOptions { max_new_tokens: 1, ..GenerationOptions::default() };
        let prompts = [vec![1, 2], sequence.to_vec()];
        assert_says(
            model.generate(&prompts, &options, &mut |_, _| false),
            &want.replace("129", "130"),
        );
    };
    check(&[], "sequence 1 is empty");
    check(&[3, 256], "token id 256 is outside the vocabulary of 256");
    check(&[3; 129], "a sequence of 129 tokens is longer than the model's 128 positions");
    assert!(model.logits(&[vec![3; 128]]).is_ok());
    let options = GenerationOptions { max_new_tokens: 28, ..GenerationOptions::default() };
    assert!(model.generate(&[vec![3; 100]], &options, &mut |_, _| false).is_ok());
    assert_says(
        model.generate(&[vec![3; 101]], &options, &mut |_, _| false),
        "a sequence of 129 tokens",
    );
}

#[test]
fn broken_weights_are_noticed() {
    let check = |id, shape, value, want: &str| {
        let model = load_with(id, constant(shape, value)).unwrap();
        assert_says(model.logits(&[vec![1, 2, 3], vec![4, 5]]), want);
        assert_says(model.negative_log_likelihood(&[1, 2, 3]), want);
        let options = GenerationOptions::default();
        let short = GenerationOptions { max_new_tokens: 2, ..options };
        assert_says(model.generate(&[vec![1, 2, 3]], &short, &mut |_, _| false), want);
    };
    check(TensorId::LmHead, [256, 64], f32::NAN, "the logits of sequence 0 at position");
    check(TensorId::LmHead, [256, 64], f32::INFINITY, "not finite");
    let router = TensorId::linear(1, LinearId::Router);
    check(router, [8, 64], f32::NAN, "the router of layer 1 gave NaN to expert 0 for token 0");
    let down = TensorId::linear(0, LinearId::Residual(MlpProjection::Down));
    check(down, [64, 64], f32::INFINITY, "the router of layer 1 gave NaN");
}

#[test]
fn hidden_states_and_caches_must_fit() {
    let model = Checkpoint::open("mixtral");
    let layer = Layer::load(&model, &model.spec, 0, &Compute::cpu()).unwrap();
    let hidden = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let run = |shape: &[usize], start, cache: Option<&mut LayerCache>| {
        layer.forward(&hidden(shape), start, cache, &mut NoSink)
    };
    assert_says(run(&[2, 64], 0, None), "shape [2, 64], expected [batch, seq, 64]");
    assert_says(run(&[1, 2, 63], 0, None), "shape [1, 2, 63], expected [batch, seq, 64]");
    assert_says(run(&[1, 9, 64], 120, None), "a sequence of 129 tokens");
    assert_eq!(run(&[0, 4, 64], 0, None).unwrap().dims(), [0, 4, 64]);
    assert_eq!(run(&[1, 0, 64], 0, None).unwrap().dims(), [1, 0, 64]);

    let mut cache = LayerCache::new(2);
    assert_says(run(&[3, 1, 64], 0, Some(&mut cache)), "holds 2 sequences, the hidden state 3");
    assert_says(run(&[2, 1, 64], 4, Some(&mut cache)), "at position 4, but 0 are cached");
    run(&[2, 5, 64], 0, Some(&mut cache)).unwrap();
    assert_says(run(&[2, 1, 64], 4, Some(&mut cache)), "at position 4, but 5 are cached");
    run(&[2, 1, 64], 5, Some(&mut cache)).unwrap();
    assert_eq!((cache.batch(), cache.positions(1), cache.positions(2)), (2, Some(6), None));
}

#[test]
fn kinds_that_cannot_be_run() {
    let check = |change: &dyn Fn(&mut LayerSpec), want: &str| {
        let model = Checkpoint::open("mixtral");
        let mut spec = model.spec.clone();
        change(&mut spec.layers[1]);
        let want = format!("{want} of layer 1 cannot be run; the model can be inspected");
        assert_says(check_runnable(&spec), &want);
        assert_says(Layer::load(&model, &spec, 1, &Compute::cpu()), &want);
    };
    fn moe(layer: &mut LayerSpec) -> &mut MoeSpec {
        match &mut layer.feed_forward {
            FeedForward::Moe(moe) => moe,
            other => panic!("{other:?}"),
        }
    }
    let opaque = AttentionSpec::Opaque(Vec::new());
    check(&|layer| layer.attention = opaque.clone(), "attention kind `opaque`");
    check(
        &|layer| moe(layer).router = RouterSpec::Opaque(OpaqueRouter::default()),
        "router kind `opaque`",
    );
    check(&|layer| moe(layer).expert.gated = false, "expert kind `ungated silu`");
    check(
        &|layer| moe(layer).expert.activation = Activation::ReluSquared,
        "expert kind `gated relu2`",
    );
    check(&|layer| moe(layer).expert.activation = Activation::Opaque, "expert kind `opaque`");
    let ungated = MlpSpec { gated: false, ..MlpSpec::gated(4) };
    let shared = SharedSpec { mlp: ungated, gate: false };
    check(&|layer| moe(layer).shared.push(shared), "shared expert kind `ungated silu`");
    assert!(check_runnable(&Checkpoint::open("mixtral").spec).is_ok());
}
