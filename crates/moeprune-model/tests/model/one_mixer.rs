//! Layers with one mixer, against their formulas in f64: Mamba-2, and experts of a latent width.

use candle_core::DType;
use moeprune_core::{
    Activation, AttentionSpec, CorrectionBias, FeedForward, LayerSpec, LayerTensor, LinearId,
    Mamba2, MlpProjection, MlpSpec, MoeInput, MoeSpec, RouterSpec, Score, ScoredRouter, SharedSpec,
    TensorId,
};

use crate::states::{BATCH, HIDDEN, LEN, Noise, assert_close, noise};

/// A tensor of the layer.
fn tensor(model: &Noise, id: LayerTensor) -> Vec<f64> {
    model.values(TensorId::Layer(0, id)).into_iter().map(f64::from).collect()
}

/// `W · x`
fn times(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn linear(model: &Noise, id: LinearId, x: &[f64]) -> Vec<f64> {
    times(&tensor(model, LayerTensor::Linear(id)), x)
}

fn rms(x: &[f64]) -> f64 {
    (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt()
}

/// The input norm, whose weights are stored less one.
fn normed(model: &Noise, x: &[f64]) -> Vec<f64> {
    let weight = tensor(model, LayerTensor::InputNorm);
    x.iter().zip(weight).map(|(v, w)| v / rms(x) * (w + 1.0)).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// Holds a layer to `mixer`, which maps normed tokens of a sequence to what is added to them.
fn check(model: &Noise, mixer: impl Fn(&[Vec<f64>]) -> Vec<Vec<f64>>) {
    let x = noise(1, BATCH * LEN * HIDDEN);
    let mut expected = Vec::new();
    for sequence in x.chunks(LEN * HIDDEN) {
        let rows = sequence.chunks(HIDDEN);
        let rows: Vec<Vec<f64>> =
            rows.map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
        let read: Vec<Vec<f64>> = rows.iter().map(|row| normed(model, row)).collect();
        for (row, added) in rows.iter().zip(mixer(&read)) {
            expected.extend(row.iter().zip(added).map(|(x, y)| (x + y) as f32));
        }
    }
    for dtype in [DType::F32, DType::F64] {
        for by_token in [false, true] {
            let what = format!("{dtype:?}, token by token: {by_token}");
            assert_close(&what, &model.run(dtype, by_token), &expected);
        }
    }
}

fn mamba_of(model: &Noise, shape: &Mamba2, read: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (inner, channels, groups) = (shape.inner(), shape.channels(), shape.groups);
    let get = |id| tensor(model, id);
    let (taps, bias) = (get(Mamba2::CONVOLUTION), get(Mamba2::CONVOLUTION_BIAS));
    let (log_decay, step_bias, skip) =
        (get(Mamba2::LOG_DECAY), get(Mamba2::STEP_BIAS), get(Mamba2::SKIP));
    let norm = get(Mamba2::NORM);
    let projected: Vec<Vec<f64>> = read.iter().map(|x| linear(model, Mamba2::INPUT, x)).collect();
    let mut states = vec![vec![vec![0.0; shape.state]; shape.head_dim]; shape.heads];
    let mut outputs = Vec::new();
    for t in 0..read.len() {
        let convolved = |c: usize| {
            let seen =
                (0..shape.kernel).filter_map(|j| Some((j, (t + j + 1).checked_sub(shape.kernel)?)));
            let sum: f64 =
                seen.map(|(j, at)| taps[c * shape.kernel + j] * projected[at][inner + c]).sum();
            silu(sum + bias[c])
        };
        let u: Vec<f64> = (0..channels).map(convolved).collect();
        let mut y = vec![0.0; inner];
        for (head, state) in states.iter_mut().enumerate() {
            let step = projected[t][inner + channels + head] + step_bias[head];
            let step = (1.0 + step.exp()).ln().max(shape.least_step);
            let group = head / (shape.heads / groups);
            for (d, memory) in state.iter_mut().enumerate() {
                let at = head * shape.head_dim + d;
                for (n, m) in memory.iter_mut().enumerate() {
                    let key = u[inner + group * shape.state + n];
                    let query = u[inner + (groups + group) * shape.state + n];
                    *m = *m * (-log_decay[head].exp() * step).exp() + step * u[at] * key;
                    y[at] += *m * query;
                }
                y[at] += skip[head] * u[at];
            }
        }
        let gated: Vec<f64> =
            y.iter().zip(&projected[t]).map(|(y, gate)| y * silu(*gate)).collect();
        let by_group = gated.chunks(inner / groups).flat_map(|g| g.iter().map(|v| v / rms(g)));
        let out: Vec<f64> = by_group.zip(&norm).map(|(v, w)| v * w).collect();
        outputs.push(linear(model, Mamba2::OUTPUT, &out));
    }
    outputs
}

#[test]
fn mamba_equals_its_definition() {
    for least_step in [0.0, 0.7] {
        let shape = Mamba2 {
            heads: 4,
            head_dim: 3,
            groups: 2,
            state: 5,
            kernel: 3,
            least_step,
            convolution_bias: true,
            biases: false,
        };
        let model = Noise::of_layer(LayerSpec::new(
            AttentionSpec::Mamba2(shape.clone()),
            FeedForward::None,
        ));
        check(&model, |read| mamba_of(&model, &shape, read));
    }
}

/// `down(max(up · x, 0)²)`
fn mlp_of(model: &Noise, id: impl Fn(MlpProjection) -> LinearId, x: &[f64]) -> Vec<f64> {
    let inner = linear(model, id(MlpProjection::Up), x);
    let inner: Vec<f64> = inner.iter().map(|v| v.max(0.0).powi(2)).collect();
    linear(model, id(MlpProjection::Down), &inner)
}

fn moe_of(model: &Noise, moe: &MoeSpec, x: &[f64]) -> Vec<f64> {
    let scores: Vec<f64> = linear(model, LinearId::Router, x).into_iter().map(sigmoid).collect();
    let bias = tensor(model, LayerTensor::CorrectionBias);
    let mut order: Vec<usize> = (0..moe.experts).collect();
    order.sort_by(|&a, &b| (scores[b] + bias[b]).total_cmp(&(scores[a] + bias[a])));
    let chosen = &order[..moe.top_k];
    let total: f64 = chosen.iter().map(|&e| scores[e]).sum();
    let read = match moe.latent {
        Some(_) => linear(model, MoeSpec::TO_LATENT, x),
        None => x.to_vec(),
    };
    let mut sum = vec![0.0; read.len()];
    for &e in chosen {
        let output = mlp_of(model, |p| LinearId::Expert(e, p), &read);
        for (s, o) in sum.iter_mut().zip(output) {
            *s += 2.5 * scores[e] / total * o;
        }
    }
    let routed = match moe.latent {
        Some(_) => linear(model, MoeSpec::FROM_LATENT, &sum),
        None => sum,
    };
    let shared = mlp_of(model, |p| LinearId::Shared(0, p), x);
    routed.iter().zip(shared).map(|(a, b)| a + b).collect()
}

#[test]
fn experts_without_gates_equal_their_definition() {
    for latent in [None, Some(4), Some(9)] {
        let mlp = |inner| MlpSpec {
            gated: false,
            activation: Activation::ReluSquared,
            ..MlpSpec::gated(inner)
        };
        let router = ScoredRouter {
            score: Score::Sigmoid,
            correction_bias: CorrectionBias::Vector,
            scale: 2.5,
            ..ScoredRouter::softmax(true)
        };
        let moe = MoeSpec {
            experts: 5,
            top_k: 2,
            router: RouterSpec::Scored(router),
            expert: mlp(7),
            shared: vec![SharedSpec { mlp: mlp(8), gate: false }],
            residual: None,
            input: MoeInput::AfterAttention,
            opaque: Vec::new(),
            latent,
        };
        let model =
            Noise::of_layer(LayerSpec::new(AttentionSpec::None, FeedForward::Moe(moe.clone())));
        check(&model, |read| read.iter().map(|x| moe_of(&model, &moe, x)).collect());
    }
}
