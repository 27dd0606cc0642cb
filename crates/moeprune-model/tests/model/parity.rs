//! Against the public model code.

use candle_core::DType;
use moeprune_model::{
    ActivationSink, Compute, DecoderLayer, Embedding, Error, Head, LanguageModel, Layer,
    LayerCache, NoSink, RoutingChoice,
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

/// Layer by layer: hidden states, routing, logits, and the same with experts removed. In f32 the
/// CPU's own code runs, in f64 the code that devices use.
fn check(checkpoint: &str, expected: &str, dtype: DType) {
    let (model, expected) = (Checkpoint::open(checkpoint), Expected::read(expected));
    let (spec, compute) = (&model.spec, &Compute::cpu_in(dtype));
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

#[test]
fn arctic() {
    check("arctic", "arctic", DType::F32);
    check("arctic", "arctic", DType::F64);
}

#[test]
fn arctic_with_dense_layers() {
    check("arctic_freq2", "arctic_freq2", DType::F32);
    check("arctic_freq2", "arctic_freq2", DType::F64);
}

#[test]
fn mixtral() {
    check("mixtral", "mixtral", DType::F32);
    check("mixtral", "mixtral", DType::F64);
}

#[test]
fn mixtral_in_shards() {
    check("mixtral_sharded", "mixtral", DType::F32);
}

/// bf16 is what a GPU computes in: only near the reference, and through the same code as f64.
#[test]
fn half_precision_is_near() {
    let (model, expected) = (Checkpoint::open("arctic"), Expected::read("arctic"));
    let logits = |dtype| {
        let model = LanguageModel::load(&model, &model.spec, &Compute::cpu_in(dtype)).unwrap();
        let logits = model.logits(&expected.input_ids()).unwrap();
        logits.iter().flat_map(floats).collect::<Vec<_>>()
    };
    let (exact, half) = (logits(DType::F32), logits(DType::BF16));
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
    let error = square(&mut exact.iter().zip(&half).map(|(a, b)| a - b));
    // A token near a routing tie may take another expert.
    assert!(error < 0.02 * square(&mut exact.iter().copied()), "{error}");
}

/// Position by position through a cache equals all at once.
fn check_cache(checkpoint: &str, dtype: DType, calls: &[usize]) {
    let (model, expected) = (Checkpoint::open(checkpoint), Expected::read(checkpoint));
    let ids = expected.input_ids();
    let (batch, seq) = (ids.len(), ids[0].len());
    assert_eq!(calls.iter().sum::<usize>(), seq);
    let (spec, compute) = (&model.spec, &Compute::cpu_in(dtype));
    let embedding = Embedding::load(&model, spec, compute).unwrap();
    let mut hidden =
        embedding.embed(&ids.concat()).unwrap().reshape((batch, seq, spec.hidden)).unwrap();
    for l in 0..spec.layers.len() {
        let layer = Layer::load(&model, spec, l, compute).unwrap();
        let whole = layer.forward(&hidden, 0, None, &mut NoSink).unwrap();
        let mut cache = LayerCache::new(batch);
        let mut start = 0;
        for &len in calls {
            let part = hidden.narrow(1, start, len).unwrap();
            let out = layer.forward(&part, start, Some(&mut cache), &mut NoSink).unwrap();
            let want = floats(&whole.narrow(1, start, len).unwrap());
            assert_close("cached", &floats(&out), &want, 1e-5);
            start += len;
            assert_eq!(cache.positions(batch - 1), Some(start));
        }
        hidden = whole;
    }
}

#[test]
fn a_cache_changes_nothing() {
    check_cache("arctic", DType::F32, &[1; 24]);
    check_cache("mixtral", DType::F32, &[10, 1, 1, 7, 5]);
    check_cache("arctic_freq2", DType::F64, &[20, 1, 1, 2]);
}

/// Without a cache, only differences of positions matter.
#[test]
fn a_later_start_changes_nothing() {
    let (model, expected) = (Checkpoint::open("mixtral"), Expected::read("mixtral"));
    let layer = Layer::load(&model, &model.spec, 0, &Compute::cpu()).unwrap();
    let embedding = Embedding::load(&model, &model.spec, &Compute::cpu()).unwrap();
    let hidden = embedding.embed(&expected.input_ids()[0]).unwrap().unsqueeze(0).unwrap();
    let at = |start| floats(&layer.forward(&hidden, start, None, &mut NoSink).unwrap());
    assert_close("shifted", &at(60), &at(0), 1e-4);
}

#[test]
fn log_likelihood_is_that_of_the_logits() {
    for (name, dtype) in [("arctic", DType::F32), ("mixtral", DType::F64)] {
        let (model, expected) = (Checkpoint::open(name), Expected::read(name));
        let vocab = model.spec.vocab;
        let logits = expected.floats("logits");
        let model = LanguageModel::load(&model, &model.spec, &Compute::cpu_in(dtype)).unwrap();
        for (s, ids) in expected.input_ids().iter().enumerate() {
            let surprise = |t: usize| {
                let row = &logits[(s * ids.len() + t) * vocab..][..vocab];
                let total: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
                total.ln() - f64::from(row[ids[t + 1] as usize])
            };
            let want: f64 = (0..ids.len() - 1).map(surprise).sum();
            let (sum, count) = model.negative_log_likelihood(ids).unwrap();
            assert_eq!(count, ids.len() - 1);
            assert!((sum - want).abs() < 1e-3, "{sum} {want}");
        }
        assert_eq!(model.negative_log_likelihood(&[3]).unwrap(), (0.0, 0));
    }
}
