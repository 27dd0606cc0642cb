//! What a sink receives.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use moeprune_core::{AttentionProjection, LinearId, MlpProjection, TensorId, TensorSource};
use moeprune_model::{ActivationSink, Compute, Embedding, Error, Layer, NoSink, RoutingChoice};

use crate::reference::{Checkpoint, Expected, assert_close, floats};

#[derive(Default)]
struct Record {
    order: Vec<LinearId>,
    inputs: BTreeMap<LinearId, Tensor>,
    indices: Vec<u32>,
    weights: Vec<f32>,
    shape: (usize, usize, usize),
    outputs: BTreeMap<usize, (Tensor, Vec<f32>)>,
}

impl ActivationSink for Record {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        self.order.push(site);
        assert!(self.inputs.insert(site, input.clone()).is_none(), "{site} was passed twice");
        Ok(())
    }

    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        assert!(self.indices.is_empty(), "routing was passed twice");
        self.indices = choice.indices.to_vec();
        self.weights = choice.weights.to_vec();
        self.shape = (choice.experts, choice.tokens, choice.top_k);
        Ok(())
    }

    fn expert_output(
        &mut self,
        expert: usize,
        output: &Tensor,
        gates: &[f32],
    ) -> Result<(), Error> {
        assert!(self.outputs.insert(expert, (output.clone(), gates.to_vec())).is_none());
        Ok(())
    }
}

fn record(model: &Checkpoint, expected: &Expected, l: usize, dtype: DType) -> (Record, Vec<f32>) {
    let (spec, compute) = (&model.spec, &Compute::cpu_in(dtype));
    let ids = expected.input_ids();
    let hidden = Embedding::load(model, spec, compute).unwrap().embed(&ids.concat()).unwrap();
    let hidden = hidden.reshape((ids.len(), ids[0].len(), spec.hidden)).unwrap();
    let layer = Layer::load(model, spec, l, compute).unwrap();
    let mut record = Record::default();
    let out = layer.forward(&hidden, 0, None, &mut record).unwrap();
    let again = layer.forward(&hidden, 0, None, &mut NoSink).unwrap();
    assert_eq!(floats(&out), floats(&again), "watching changes nothing");
    (record, floats(&out))
}

fn check_moe(name: &str, l: usize, before_router: &[LinearId], dtype: DType) {
    let (model, expected) = (Checkpoint::open(name), Expected::read(name));
    let spec = &model.spec;
    let (record, _) = record(&model, &expected, l, dtype);
    let (experts, tokens, top_k) = record.shape;
    assert_eq!((experts, tokens, top_k), (8, 48, 2));
    assert_eq!(record.indices.len(), tokens * top_k);

    // Order and features.
    let used: Vec<usize> = record.outputs.keys().copied().collect();
    let sites = |&e: &usize| {
        [LinearId::Expert(e, MlpProjection::Gate), LinearId::Expert(e, MlpProjection::Down)]
    };
    let want: Vec<LinearId> = before_router
        .iter()
        .copied()
        .chain([LinearId::Router])
        .chain(used.iter().flat_map(sites))
        .collect();
    assert_eq!(record.order, want);
    for (site, input) in &record.inputs {
        let shape = spec.linears(l).into_iter().find(|s| s.id == *site).unwrap();
        assert_eq!(*site, shape.reads);
        assert_eq!(input.dim(1).unwrap(), shape.cols, "{site}");
        if site.expert().is_none() {
            assert_eq!(input.dim(0).unwrap(), tokens, "{site}");
        }
    }

    // Every choice reaches exactly one expert.
    let shown: usize = record.outputs.values().map(|(output, _)| output.dim(0).unwrap()).sum();
    assert_eq!(shown, tokens * top_k);
    let all = floats(&record.inputs[&LinearId::Router]);
    for (&expert, (output, gates)) in &record.outputs {
        let places: Vec<usize> =
            (0..record.indices.len()).filter(|&i| record.indices[i] as usize == expert).collect();
        let want: Vec<f32> = places.iter().map(|&i| record.weights[i]).collect();
        assert_eq!(gates, &want);
        assert_eq!(output.dims(), [places.len(), spec.hidden]);
        let row = |i: &usize| all[i / top_k * spec.hidden..][..spec.hidden].to_vec();
        let rows: Vec<f32> = places.iter().flat_map(row).collect();
        let gate_input = &record.inputs[&LinearId::Expert(expert, MlpProjection::Gate)];
        assert_eq!(floats(gate_input), rows);

        // The output is the down projection of the input that was passed.
        let down = TensorId::linear(l, LinearId::Expert(expert, MlpProjection::Down));
        let weight = model.tensor(down).unwrap();
        let inner = weight.shape()[1];
        let weight =
            Tensor::from_vec(weight.to_f32().unwrap(), (spec.hidden, inner), &Device::Cpu).unwrap();
        let input = &record.inputs[&LinearId::Expert(expert, MlpProjection::Down)];
        let product = input.to_dtype(DType::F32).unwrap().matmul(&weight.t().unwrap()).unwrap();
        assert_close("expert output", &floats(&product), &floats(output), 1e-5);
    }
}

const ATTENTION: [LinearId; 2] = [
    LinearId::Attention(AttentionProjection::Query),
    LinearId::Attention(AttentionProjection::Output),
];

#[test]
fn a_mixtral_layer() {
    check_moe("mixtral", 0, &ATTENTION, DType::F32);
    check_moe("mixtral", 2, &ATTENTION, DType::F64);
}

#[test]
fn an_arctic_layer() {
    let residual =
        [LinearId::Residual(MlpProjection::Gate), LinearId::Residual(MlpProjection::Down)];
    let before: Vec<LinearId> = ATTENTION.into_iter().chain(residual).collect();
    check_moe("arctic", 1, &before, DType::F32);
    check_moe("arctic_freq2", 1, &before, DType::F64);
}

#[test]
fn a_dense_layer() {
    let (model, expected) = (Checkpoint::open("arctic_freq2"), Expected::read("arctic_freq2"));
    let (record, _) = record(&model, &expected, 0, DType::F32);
    let dense = [LinearId::Dense(MlpProjection::Gate), LinearId::Dense(MlpProjection::Down)];
    assert_eq!(record.order, ATTENTION.into_iter().chain(dense).collect::<Vec<_>>());
    assert!(record.indices.is_empty() && record.outputs.is_empty());
}

#[test]
fn an_error_of_a_sink_ends_the_pass() {
    struct Refuse;
    impl ActivationSink for Refuse {
        fn routing(&mut self, _: &RoutingChoice<'_>) -> Result<(), Error> {
            Err(Error::Sink("disk full".into()))
        }
    }
    let model = Checkpoint::open("mixtral");
    let layer = Layer::load(&model, &model.spec, 0, &Compute::cpu()).unwrap();
    let hidden = Tensor::ones((1, 2, model.spec.hidden), DType::F32, &Device::Cpu).unwrap();
    let error = layer.forward(&hidden, 0, None, &mut Refuse).unwrap_err();
    assert_eq!(error.to_string(), "activation sink: disk full");
}
