//! Whole models against the public model code, wherever they run.

use moeprune_model::{
    ActivationSink, Compute, Embedding, Error, Head, LanguageModel, Layer, RoutingChoice,
};

use crate::reference::{Checkpoint, Expected, Pruned, assert_close, floats};

#[derive(Default)]
struct Routing {
    indices: Vec<u32>,
    weights: Vec<f32>,
}

impl ActivationSink for Routing {
    fn routing(&mut self, choice: &RoutingChoice<'_>) -> Result<(), Error> {
        self.indices.extend(choice.indices);
        self.weights.extend(choice.weights);
        Ok(())
    }
}

/// Layer by layer: hidden states, routing, logits, and the same with experts removed.
pub(crate) fn check_model(checkpoint: &str, expected: &str, compute: &Compute) {
    let (model, expected) = (Checkpoint::open(checkpoint), Expected::read(expected));
    let spec = &model.spec;
    let ids = expected.input_ids();
    let (batch, seq) = (ids.len(), ids[0].len());

    let embedding = Embedding::load(&model, spec, compute).unwrap();
    let mut hidden =
        embedding.embed(&ids.concat()).unwrap().reshape((batch, seq, spec.hidden)).unwrap();
    for l in 0..spec.layers.len() {
        assert_close("hidden", &floats(&hidden), &expected.floats(&format!("hidden.{l}")), 1e-4);
        let layer = Layer::load(&model, spec, l, compute).unwrap();
        let mut routing = Routing::default();
        hidden = layer.forward(&hidden, 0, None, &mut routing).unwrap();
        if spec.layers[l].moe().is_some() {
            assert_eq!(routing.indices, expected.integers(&format!("router.{l}.idx")));
            let weights = expected.floats(&format!("router.{l}.weight"));
            assert_close("router weights", &routing.weights, &weights, 1e-5);
        } else {
            assert!(routing.indices.is_empty());
        }
    }
    let head = Head::load(&model, spec, compute).unwrap();
    let last = expected.floats(&format!("hidden.{}", spec.layers.len()));
    assert_close("last hidden", &floats(&head.norm(&hidden).unwrap()), &last, 1e-4);
    let logits = head.logits(&hidden).unwrap();
    assert_eq!(logits.dims(), [batch, seq, spec.vocab]);
    assert_close("logits", &floats(&logits), &expected.floats("logits"), 1e-4);

    let (pruned, spec) = Pruned::new(&model, expected.kept());
    let model = LanguageModel::load(&pruned, &spec, compute).unwrap();
    let logits: Vec<f32> = model.logits(&ids).unwrap().iter().flat_map(floats).collect();
    assert_close("pruned logits", &logits, &expected.floats("pruned.logits"), 1e-4);
}

/// A 16-bit type is only near f32: the squared errors are under a fiftieth of the squared logits.
pub(crate) fn check_half(compute: &Compute) {
    let (model, expected) = (Checkpoint::open("arctic"), Expected::read("arctic"));
    let logits = |compute: &Compute| {
        let model = LanguageModel::load(&model, &model.spec, compute).unwrap();
        let logits = model.logits(&expected.input_ids()).unwrap();
        logits.iter().flat_map(floats).collect::<Vec<_>>()
    };
    let (exact, half) = (logits(&Compute::cpu()), logits(compute));
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
    let error = square(&mut exact.iter().zip(&half).map(|(a, b)| a - b));
    // A token near a routing tie may take another expert.
    assert!(error < 0.02 * square(&mut exact.iter().copied()), "{error}");
}
