//! Forward pass of a decoder layer, and reading it.
//!
//! The layer is Arctic's at an eighth of its widths and a quarter of its experts. How many
//! floating-point operations a token takes is in the throughput: one element is one multiplication
//! and one addition in a Linear.

use candle_core::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use moeprune_core::{
    AttentionSpec, Dtype, FeedForward, GroupedAttention, LayerSpec, LayerTensor, LinearId, MlpSpec,
    ModelSpec, MoeInput, MoeSpec, Multipliers, NormWeights, RouterSpec, StageError, StoredWeight,
    TensorBytes, TensorId, TensorSource,
};
use moeprune_model::{Compute, Layer, NoSink};

const EXPERTS: usize = 32;
const TOP_K: usize = 2;

fn arctic_like() -> ModelSpec {
    let hidden = 896;
    let moe = MoeSpec {
        experts: EXPERTS,
        top_k: TOP_K,
        router: RouterSpec::softmax(true),
        expert: MlpSpec::gated(608),
        opaque: Vec::new(),
        shared: Vec::new(),
        residual: Some(MlpSpec::gated(hidden)),
        input: MoeInput::LayerInput,
        latent: None,
    };
    let layer = LayerSpec::new(
        AttentionSpec::Grouped(GroupedAttention::new(7, 1, 128, 1e6)),
        FeedForward::Moe(moe),
    );
    ModelSpec {
        family: "arctic".into(),
        hidden,
        vocab: 16,
        max_positions: 4096,
        norm_eps: 1e-5,
        norm_weights: NormWeights::Factor,
        tied_embeddings: false,
        head_bias: false,
        multipliers: Multipliers::default(),
        logit_cap: None,
        layers: vec![layer],
        extra: None,
        undecoded: None,
        undecoded_experts: false,
    }
}

/// Weights from a counter; their sizes are a trained model's, so nothing grows or vanishes.
struct Weights(ModelSpec);

impl Weights {
    fn read(&self, id: TensorId) -> Result<TensorBytes<'_>, StageError> {
        let (shape, offset) = match id {
            TensorId::Layer(layer, LayerTensor::Linear(linear)) => {
                let linears = self.0.linears(layer);
                let linear = linears.iter().find(|l| l.id == linear).ok_or("no such Linear")?;
                (vec![linear.rows, linear.cols], 0.0)
            }
            _ => (vec![self.0.hidden], 1.0),
        };
        let len: usize = shape.iter().product();
        Ok(TensorBytes::encode(Dtype::BF16, shape, &values(len, offset))?)
    }
}

impl TensorSource for Weights {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        Ok(StoredWeight::alone(self.read(id)?)?)
    }
}

fn values(len: usize, offset: f32) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    (0..len).map(|_| offset + 0.08 * random()).collect()
}

/// Weights of the Linears one token goes through.
fn active(spec: &ModelSpec) -> usize {
    let linears = spec.linears(0);
    let size = |expert: bool| -> usize {
        let of_kind = linears.iter().filter(|l| matches!(l.id, LinearId::Expert(..)) == expert);
        of_kind.map(|l| l.rows * l.cols).sum()
    };
    size(false) + size(true) / EXPERTS * TOP_K
}

fn layer(criterion: &mut Criterion) {
    let spec = arctic_like();
    let source = Weights(spec.clone());
    let load = || Layer::load(&source, &spec, 0, &Compute::cpu()).expect("a layer");
    let layer = load();

    let mut group = criterion.benchmark_group("layer");
    group.sample_size(10);
    for (sequences, tokens) in [(1, 1), (1, 256), (4, 256), (1, 2048)] {
        let hidden = values(sequences * tokens * spec.hidden, 0.0);
        let hidden = Tensor::from_vec(hidden, (sequences, tokens, spec.hidden), &Device::Cpu)
            .expect("hidden states");
        group.throughput(Throughput::Elements((sequences * tokens * active(&spec)) as u64));
        group.bench_function(format!("forward of {sequences} x {tokens} tokens"), |bencher| {
            bencher.iter(|| layer.forward(&hidden, 0, None, &mut NoSink).expect("hidden states"));
        });
    }
    group.finish();
}

criterion_group!(benches, layer);
criterion_main!(benches);
