//! Layers that keep a state in place of keys and values, in shapes that no reference has: on slices and
//! through candle's operations, at once and token by token.

use candle_core::{DType, Tensor};
use moeprune_core::{
    AttentionBiases, AttentionSpec, DeltaProjections, Dtype, FeedForward, GatedDeltaNet,
    GroupedAttention, KimiDeltaAttention, LayerSpec, Mamba2, MlpSpec, ModelSpec, Multipliers,
    NormWeights, QueryKeyNorm, ShortConvolution, StageError, StoredWeight, TensorBytes, TensorId,
    TensorSource,
};
use moeprune_model::{Compute, Layer, LayerCache, NoSink};

pub(crate) const HIDDEN: usize = 6;
pub(crate) const BATCH: usize = 2;
pub(crate) const LEN: usize = 7;

/// A model whose weights are noise, but for those that are given.
pub(crate) struct Noise {
    pub(crate) spec: ModelSpec,
    given: Vec<(TensorId, Vec<f32>)>,
}

pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

impl Noise {
    fn new(attention: AttentionSpec) -> Self {
        let feed_forward = FeedForward::Dense(MlpSpec::gated(5));
        Self::of_layer(LayerSpec::new(attention, feed_forward))
    }

    pub(crate) fn of_layer(layer: LayerSpec) -> Self {
        let spec = ModelSpec {
            family: "noise".to_owned(),
            hidden: HIDDEN,
            vocab: 9,
            max_positions: 16,
            norm_eps: 1e-5,
            norm_weights: NormWeights::MinusOne,
            tied_embeddings: true,
            head_bias: false,
            multipliers: Multipliers::default(),
            logit_cap: None,
            layers: vec![layer],
            extra: None,
            undecoded: None,
            undecoded_experts: false,
        };
        Self { spec, given: Vec::new() }
    }

    pub(crate) fn values(&self, id: TensorId) -> Vec<f32> {
        if let Some((_, values)) = self.given.iter().find(|(given, _)| *given == id) {
            return values.clone();
        }
        let part = self.spec.part(id).expect("a part of the model");
        let name = id.to_string();
        let seed =
            name.bytes().fold(5, |seed: u64, b| seed.wrapping_mul(31).wrapping_add(u64::from(b)));
        noise(seed, part.shape.iter().product())
    }

    /// The layer's outputs for the first noise.
    pub(crate) fn run(&self, dtype: DType, by_token: bool) -> Vec<f32> {
        let layer = Layer::load(self, &self.spec, 0, &Compute::cpu_in(dtype)).expect("loads");
        let shape = (BATCH, LEN, HIDDEN);
        let x = Tensor::from_vec(noise(1, BATCH * LEN * HIDDEN), shape, &candle_core::Device::Cpu);
        let x = x.and_then(|x| x.to_dtype(dtype)).expect("a tensor");
        let mut cache = LayerCache::new(BATCH);
        let steps = if by_token { LEN } else { 1 };
        let step = |at: usize| {
            let x = x.narrow(1, at * (LEN / steps), LEN / steps).expect("some tokens");
            layer.forward(&x, at, Some(&mut cache), &mut NoSink).expect("runs")
        };
        let outputs: Vec<Tensor> = (0..steps).map(step).collect();
        assert_eq!((0..BATCH).map(|i| cache.positions(i)).collect::<Vec<_>>(), [Some(LEN); BATCH]);
        let all = Tensor::cat(&outputs, 1).and_then(|all| all.flatten_all()?.to_dtype(DType::F32));
        all.and_then(|all| all.to_vec1()).expect("values")
    }
}

impl TensorSource for Noise {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        let shape = self.spec.part(id).ok_or("no such part")?.shape;
        Ok(StoredWeight::alone(TensorBytes::encode(Dtype::F32, shape, &self.values(id))?)?)
    }
}

pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-4, "{what}: off by {off}");
    assert!(want.iter().any(|v| v.abs() > 0.01), "{what}: nothing to compare");
}

fn check(attention: AttentionSpec) {
    let what = format!("{attention:?}");
    let model = Noise::new(attention);
    let want = model.run(DType::F64, false);
    assert_close(&what, &model.run(DType::F32, false), &want);
    assert_close(&what, &model.run(DType::F32, true), &want);
    assert_close(&what, &model.run(DType::F64, true), &want);
}

fn delta(key_heads: usize, value_heads: usize, kernel: usize) -> GatedDeltaNet {
    let projections = DeltaProjections::Apart;
    GatedDeltaNet { key_heads, value_heads, key_dim: 3, value_dim: 4, kernel, projections }
}

#[test]
fn gated_delta_nets() {
    for (key_heads, value_heads, kernel) in [(1, 1, 1), (1, 3, 2), (2, 4, 4), (3, 3, 9)] {
        let shape = delta(key_heads, value_heads, kernel);
        check(AttentionSpec::GatedDelta(shape.clone()));
        let projections = DeltaProjections::ByKeyHead;
        check(AttentionSpec::GatedDelta(GatedDeltaNet { projections, ..shape }));
    }
}

/// The same weights in both orders.
#[test]
fn projections_by_key_head() {
    let shape = delta(2, 4, 3);
    let apart = Noise::new(AttentionSpec::GatedDelta(shape.clone()));
    let rows = |linear| {
        let values = apart.values(TensorId::linear(0, linear));
        values.chunks(HIDDEN).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    let (qkv, z) = (rows(GatedDeltaNet::QKV), rows(GatedDeltaNet::Z));
    let (b, a) = (rows(GatedDeltaNet::B), rows(GatedDeltaNet::A));
    let (keys, values) = (shape.key_dim, 2 * shape.value_dim); // two value heads per key head
    let (mut qkvz, mut ba) = (Vec::new(), Vec::new());
    for head in 0..2 {
        qkvz.extend_from_slice(&qkv[head * keys..][..keys]);
        qkvz.extend_from_slice(&qkv[shape.key_width() + head * keys..][..keys]);
        qkvz.extend_from_slice(&qkv[2 * shape.key_width() + head * values..][..values]);
        qkvz.extend_from_slice(&z[head * values..][..values]);
        ba.extend_from_slice(&b[head * 2..][..2]);
        ba.extend_from_slice(&a[head * 2..][..2]);
    }
    let projections = DeltaProjections::ByKeyHead;
    let mut joined = Noise::new(AttentionSpec::GatedDelta(GatedDeltaNet { projections, ..shape }));
    joined.given = vec![
        (TensorId::linear(0, GatedDeltaNet::QKVZ), qkvz.concat()),
        (TensorId::linear(0, GatedDeltaNet::BA), ba.concat()),
    ];
    assert_close("by key head", &joined.run(DType::F32, false), &apart.run(DType::F32, false));
}

#[test]
fn kimi_delta_attention() {
    for (heads, head_dim, kernel) in [(1, 2, 2), (3, 5, 4), (2, 1, 1)] {
        check(AttentionSpec::KimiDelta(KimiDeltaAttention { heads, head_dim, kernel }));
    }
}

#[test]
fn short_convolutions() {
    for (kernel, biases) in [(1, false), (3, true), (10, true)] {
        check(AttentionSpec::ShortConvolution(ShortConvolution { kernel, biases }));
    }
}

#[test]
fn mamba() {
    for (heads, groups, kernel) in [(1, 1, 1), (4, 2, 3), (6, 3, 9)] {
        let shape = Mamba2 {
            heads,
            head_dim: 3,
            groups,
            state: 5,
            kernel,
            least_step: 0.0,
            convolution_bias: kernel > 1,
            biases: kernel > 3,
        };
        check(AttentionSpec::Mamba2(shape.clone()));
        check(AttentionSpec::Mamba2(Mamba2 { least_step: 0.7, ..shape }));
    }
}

#[test]
fn gated_attention() {
    let shape = GroupedAttention::new(4, 2, 4, 1e4);
    let shape = GroupedAttention { output_gate: true, ..shape };
    check(AttentionSpec::Grouped(shape.clone()));
    let biases = AttentionBiases { query_key_value: true, output: true };
    let norm = Some(QueryKeyNorm::PerHead);
    check(AttentionSpec::Grouped(GroupedAttention { biases, norm, ..shape }));
}

/// Nothing is before the first token, so only the last tap counts there.
#[test]
fn a_single_token_meets_the_last_tap() {
    let shape = ShortConvolution { kernel: 3, biases: false };
    let mut model = Noise::new(AttentionSpec::ShortConvolution(shape));
    let id = TensorId::Layer(0, ShortConvolution::CONVOLUTION);
    let only = |tap: usize| {
        let taps =
            |channel: usize| (0..3).map(move |t| if t == tap { channel as f32 + 1.0 } else { 0.0 });
        (0..HIDDEN).flat_map(taps).collect::<Vec<_>>()
    };
    model.given = vec![(id, only(2))];
    let last = model.run(DType::F32, false);
    model.given = vec![(id, only(1))];
    let earlier = model.run(DType::F32, false);
    model.given = vec![(id, vec![0.0; 3 * HIDDEN])];
    let none = model.run(DType::F32, false);
    let first = |values: &[f32]| values[..HIDDEN].to_vec();
    assert_ne!(first(&last), first(&none));
    assert_eq!(first(&earlier), first(&none));
}
