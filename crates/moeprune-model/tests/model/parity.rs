//! Against the public model code.

use candle_core::DType;
use moeprune_model::{Compute, Embedding, LanguageModel, Layer, LayerCache, NoSink};

use crate::{
    forward::{check_half, check_model},
    reference::{Checkpoint, Expected, assert_close, floats},
};

/// In f32 the CPU's own code runs, in f64 the code that devices use.
fn check(checkpoint: &str, expected: &str, dtype: DType) {
    check_model(checkpoint, expected, &Compute::cpu_in(dtype));
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

/// bf16 is what a GPU computes in; here it takes the same code as f64.
#[test]
fn half_precision_is_near() {
    check_half(&Compute::cpu_in(DType::BF16));
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
