//! Layers that are run, sinks, and the generator over them, against the suites of their traits.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use moeprune::{
    Silent,
    capture::{LayerObserver, ObserverOptions},
    evaluation::NativeGenerator,
};
use moeprune_checkpoint::Checkpoint;
use moeprune_core::{ModelSpec, TensorSource};
use moeprune_eval::{Generator, Request, generate_each};
use moeprune_model::{
    ActivationSink, Compute, Embedding, Error, Expert, LanguageModel, Layer, LayerTrunk, NoSink,
    TrunkOutput,
};
use moeprune_tests::conformance::{activation_sink, generator, layer};
use tokenizers::AddedToken;

fn open(name: &str) -> Checkpoint {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets");
    Checkpoint::open(&assets.join(name)).unwrap()
}

fn check_layers(name: &str, dtype: DType) {
    let checkpoint = open(name);
    let (spec, compute) = (checkpoint.spec(), Compute::cpu_in(dtype));
    let tokens: Vec<u32> = (0..3 * 7).map(|i| (i * 37 + 5) % spec.vocab as u32).collect();
    let embedding = Embedding::load(&checkpoint, spec, &compute).unwrap();
    let hidden = embedding.embed(&tokens).unwrap().reshape((3, 7, spec.hidden)).unwrap();
    for index in 0..spec.layers.len() {
        check(&checkpoint, spec, index, &hidden, &compute);
    }
}

/// A layer in memory, and the one whose experts are loaded one after the other.
fn check(
    source: &dyn TensorSource,
    spec: &ModelSpec,
    index: usize,
    hidden: &Tensor,
    compute: &Compute,
) {
    let whole = Layer::load(source, spec, index, compute).unwrap();
    let forward = |x: &Tensor, sink: &mut dyn ActivationSink| whole.forward(x, 0, None, sink);
    layer::check(&forward, spec, index, hidden);

    let trunk = LayerTrunk::load(source, spec, index, compute).unwrap();
    let in_pieces = |x: &Tensor, sink: &mut dyn ActivationSink| -> Result<Tensor, Error> {
        let TrunkOutput { mut sum, routed } = trunk.forward(x, sink)?;
        if let Some(routed) = routed {
            for e in 0..spec.layers[index].moe().map_or(0, |moe| moe.experts) {
                let (rows, gates) = routed.tokens(e);
                if rows.is_empty() {
                    continue;
                }
                let expert = Expert::load(source, spec, index, e, compute)?;
                let output = expert.forward(&routed.input(e, 0..rows.len())?, sink)?;
                sink.expert_output(e, &output, gates)?;
                sum.add(rows, gates, &output)?;
            }
        }
        Ok(sum.into_tensor()?.reshape(x.dims())?)
    };
    layer::check(&in_pieces, spec, index, hidden);
}

#[test]
fn layers_with_experts() {
    check_layers("parity/mixtral", DType::F32);
    check_layers("parity/mixtral", DType::F64);
    check_layers("nano", DType::F32);
}

#[test]
fn layers_with_latent_attention_and_shared_experts() {
    check_layers("parity/deepseek_v3", DType::F32);
    check_layers("parity/moonlight", DType::F64);
}

#[test]
fn layers_that_keep_a_state() {
    for name in ["qwen3_next", "qwen3_5_moe", "kimi_linear", "lfm2_moe"] {
        check_layers(&format!("parity/{name}"), DType::F32);
        check_layers(&format!("parity/{name}"), DType::F64);
    }
    check_layers("parity/qwen3_next", DType::BF16);
    check_layers("parity/kimi_linear", DType::BF16);
}

#[test]
fn layers_with_norms_and_biases_in_attention() {
    check_layers("parity/glm4_moe", DType::F32);
    check_layers("parity/olmoe_clip", DType::F64);
    check_layers("parity/qwen2_moe_mixed", DType::F32);
}

#[test]
fn layers_with_a_residual_or_dense_mlp() {
    check_layers("parity/arctic", DType::F32);
    check_layers("parity/arctic_freq2", DType::F32);
}

#[test]
fn few_tokens_leave_experts_idle() {
    let checkpoint = open("nano");
    let spec = checkpoint.spec();
    let values: Vec<f32> = (0..2 * spec.hidden).map(|i| (i * i % 11) as f32 - 5.0).collect();
    let hidden = Tensor::from_vec(values, (2, 1, spec.hidden), &Device::Cpu).unwrap();
    check(&checkpoint, spec, 1, &hidden, &Compute::cpu());
}

#[test]
fn observers() {
    let all = ObserverOptions::default();
    let check = |name: &str, layer: usize, options: ObserverOptions| {
        let checkpoint = open(name);
        let spec = checkpoint.spec();
        let new = || LayerObserver::new(spec, layer, options).unwrap();
        activation_sink::check(spec, layer, new, |observer| observer.finish().unwrap());
    };
    check("parity/mixtral", 1, all);
    check("parity/arctic", 0, all);
    check("parity/arctic_freq2", 0, all);
    check("parity/qwen3_next", 0, all);
    check("parity/kimi_linear", 1, all);
    check("nano", 2, ObserverOptions { hessians: true, ..all });
    check("nano", 2, ObserverOptions { inputs: false, ..all });
    check("nano", 2, ObserverOptions { routing: false, ..all });
}

#[test]
fn no_sink() {
    activation_sink::check(open("nano").spec(), 0, || NoSink, |_| ());
}

#[test]
fn native_generator() {
    let checkpoint = open("nano");
    let model = LanguageModel::load(&checkpoint, checkpoint.spec(), &Compute::cpu()).unwrap();
    let tokenizer = moeprune::load_tokenizer(&checkpoint).unwrap();
    let stop_ids = checkpoint.eos_token_ids().unwrap();
    let mut silent = Silent;
    let mut native = NativeGenerator::new(model, tokenizer, stop_ids, &mut silent);
    let prompts = ["Once upon a time", "", "Question: 6 * 7?\nAnswer:", "é·", "fn main() {"];
    generator::check(&mut native, &prompts);
    assert_eq!(native.prompts_cut(), 0);
    let words: String = (0..2 * native.context()).map(|n| format!("{n} apples, ")).collect();
    generator::check_long(&mut native, &words);
    assert_eq!(native.prompts_cut(), 4);
}

#[test]
fn a_token_beyond_the_embedding_is_named_where_it_occurs() {
    let checkpoint = open("nano");
    let model = LanguageModel::load(&checkpoint, checkpoint.spec(), &Compute::cpu()).unwrap();
    let mut tokenizer = moeprune::load_tokenizer(&checkpoint).unwrap();
    tokenizer.add_tokens([AddedToken::from("<beyond>", true)]).unwrap();
    let mut silent = Silent;
    let mut native = NativeGenerator::new(model, tokenizer, Vec::new(), &mut silent);
    let mut ask = |prompts: [&str; 2]| {
        native.generate(&prompts.map(|prompt| Request::new(prompt, Vec::new(), 1)))
    };
    assert_eq!(ask(["1 + 1", "2"]).unwrap().len(), 2);
    let error = ask(["1", "2 <beyond>"]).unwrap_err().to_string();
    let expected = "prompt 4: token id 864 (\"<beyond>\") does not fit the model, whose embedding has 864 rows";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn generator_made_of_a_closure() {
    let mut counting = generate_each(|request| {
        let numbers = request.prompt.len()..request.prompt.len() + request.max_new_tokens;
        Ok(numbers.map(|n| format!(" {n}")).collect())
    });
    generator::check(&mut counting, &["a", "to", "", "tree"]);
}
