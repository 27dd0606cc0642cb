//! Layers with one mixer, and experts of a latent width: what is zeroed is what the statistics of the
//! model in between say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{DType, Tensor};
use moeprune::{
    Calibration, Execution, Recipe,
    checkpoint::{Checkpoint, verify},
    core::{
        AttentionSpec, FeedForward, LinearId, LinearShape, MoeSpec, TensorId, TensorSource as _,
    },
    recipe::Mtp,
};
use moeprune_model::{ActivationSink, Compute, Embedding, Error, Layer, NoSink};
use safetensors::{SafeTensors, tensor::TensorView};

use crate::scratch::{copy, observe, recipe, run_on, tokens};

/// The small model, whose experts get a latent width if one is given.
fn model(latent: Option<usize>, directory: &Path) -> PathBuf {
    let model = copy("parity/nemotron_h", directory);
    fs::remove_file(model.join("ref.safetensors")).unwrap();
    let Some(latent) = latent else { return model };
    let path = model.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut changed: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, tensor) in tensors.iter() {
        let (shape, data) = (tensor.shape(), tensor.data());
        if name.contains(".experts.") && name.ends_with("up_proj.weight") {
            let rows = data.chunks(2 * shape[1]).flat_map(|row| row[..2 * latent].to_vec());
            changed.insert(name.to_owned(), (vec![shape[0], latent], rows.collect()));
        } else if name.contains(".experts.") {
            let rows = data[..2 * latent * shape[1]].to_vec();
            changed.insert(name.to_owned(), (vec![latent, shape[1]], rows));
        }
    }
    // What leads there and back are rows of other matrices.
    for layer in ["backbone.layers.1", "backbone.layers.4", "mtp.layers.1"] {
        let prefix = format!("{layer}.mixer");
        let some = tensors.tensor("backbone.embeddings.weight").unwrap();
        let rows = some.data()[..2 * latent * 64].to_vec();
        changed
            .insert(format!("{prefix}.fc1_latent_proj.weight"), (vec![latent, 64], rows.clone()));
        changed.insert(format!("{prefix}.fc2_latent_proj.weight"), (vec![64, latent], rows));
    }
    let same = tensors.iter().filter(|(name, _)| !changed.contains_key(*name));
    let same = same.map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype(), tensor.shape().to_vec(), tensor.data());
        (name.to_owned(), view.unwrap())
    });
    let new = changed.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(safetensors::Dtype::BF16, shape.clone(), bytes);
        (name.clone(), view.unwrap())
    });
    let file = safetensors::serialize(same.chain(new), None).unwrap();
    fs::write(&path, file).unwrap();
    let config = model.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("\"moe_latent_size\": null", &format!("\"moe_latent_size\": {latent}"));
    fs::write(config, text).unwrap();
    model
}

/// Sums of squares of each input.
#[derive(Default)]
struct Squares(BTreeMap<LinearId, Vec<f64>>);

impl ActivationSink for Squares {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), Error> {
        let rows = input.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        for row in rows {
            let sums = self.0.entry(site).or_insert_with(|| vec![0.0; row.len()]);
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += x * x;
            }
        }
        Ok(())
    }
}

/// Holds the zeros of a matrix to Wanda's scores: none that stays in a row is lower than one that went.
fn check_zeros(before: &[f32], after: &[f32], squares: &[f64], what: &str) -> usize {
    let columns = squares.len();
    let mut zeros = 0;
    for (before, after) in before.chunks(columns).zip(after.chunks(columns)) {
        let mut gone = 0.0_f64;
        let mut stays = f64::INFINITY;
        for ((b, a), squares) in before.iter().zip(after).zip(squares) {
            let score = f64::from(b.abs()) * squares.sqrt();
            if *a == 0.0 {
                zeros += 1;
                gone = gone.max(score);
            } else {
                assert_eq!(a, b, "{what}");
                stays = stays.min(score);
            }
        }
        assert!(gone <= stays * 1.0001, "{what}: {gone} went, {stays} stays");
    }
    zeros
}

fn check(latent: Option<usize>, execution: &Execution) {
    let scratch = tempfile::tempdir().unwrap();
    let (model, out) = (model(latent, scratch.path()), scratch.path().join("out"));
    let text = tokens(scratch.path(), 8, 64, 128);
    let recipe: Recipe = recipe(0.4, 0.0);
    run_on(execution, &model, &out, &text, &recipe).unwrap();

    let (source, pruned) = (Checkpoint::open(&model).unwrap(), Checkpoint::open(&out).unwrap());
    let verified = verify(&out, &source, None).unwrap();
    assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
    let spec = source.spec();
    let calibration = Calibration::read(&text, &source, &recipe).unwrap();
    let blocks = calibration.blocks.blocks();
    let compute = Compute::cpu_in(DType::F64);
    let embedding = Embedding::load(&source, spec, &compute).unwrap();
    let mut hidden = embedding.embed(&blocks.concat()).unwrap();
    hidden = hidden.reshape((blocks.len(), blocks[0].len(), spec.hidden)).unwrap();
    let mut seen = Vec::new();
    for layer in 0..spec.layers.len() {
        let mut squares = Squares::default();
        let whole = Layer::load(&source, spec, layer, &compute).unwrap();
        whole.forward(&hidden, 0, None, &mut squares).unwrap();
        for LinearShape { id, reads, prunable, .. } in spec.linears(layer) {
            let Some(squares) = squares.0.get(&reads).filter(|_| prunable) else { continue };
            let read = |model: &Checkpoint| {
                model.tensor(TensorId::linear(layer, id)).unwrap().to_f32().unwrap()
            };
            let what = format!("layer {layer} {id}");
            let zeros = check_zeros(&read(&source), &read(&pruned), squares, &what);
            assert!(zeros > 0, "{what} has no zeros");
            seen.push(id);
        }
        let whole = Layer::load(&pruned, pruned.spec(), layer, &compute).unwrap();
        hidden = whole.forward(&hidden, 0, None, &mut NoSink).unwrap();
    }
    for linear in [MoeSpec::TO_LATENT, MoeSpec::FROM_LATENT] {
        assert_eq!(seen.contains(&linear), latent.is_some());
    }
}

#[test]
fn zeros_follow_the_statistics() {
    let device = Execution::on(Compute::cpu_in(DType::F64), Some(3));
    for latent in [None, Some(24)] {
        check(latent, &Execution::cpu());
        check(latent, &device);
    }
}

/// An observation's sums are those of layers that run as a whole.
#[test]
fn sums_of_a_latent_width() {
    let scratch = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&model(Some(24), scratch.path())).unwrap();
    let text = tokens(scratch.path(), 8, 64, 128);
    let calibration = Calibration::read(&text, &source, &recipe(0.4, 0.0)).unwrap();
    let observation = observe(&source, &calibration).unwrap();
    for layer in [1, 4] {
        let inputs = &observation.layers[layer].inputs;
        assert_eq!(inputs[&MoeSpec::FROM_LATENT].tokens, 8 * 64);
        assert_eq!(inputs[&MoeSpec::FROM_LATENT].sum_squares.len(), 24);
        let routing = observation.layers[layer].routing.as_ref().unwrap();
        assert_eq!(routing.output_sums.len(), 10 * 24);
    }
}

/// Of the two layers behind the decoder's the first has attention and the second experts; only the config
/// that the publisher wrote counts them.
#[test]
fn layers_behind_the_decoders() {
    let check = |config: &str, mtp: Option<Mtp>| {
        let scratch = tempfile::tempdir().unwrap();
        let model = model(None, scratch.path());
        if config != "config.json" {
            fs::rename(model.join(config), model.join("config.json")).unwrap();
        }
        let source = Checkpoint::open(&model).unwrap();
        let extra = source.spec().extra.as_ref().expect("has such layers");
        let [first, second] = extra.layers.as_slice() else { panic!("{extra:?}") };
        assert_eq!((first.attention.kind(), &first.feed_forward), ("grouped", &FeedForward::None));
        assert_eq!((&second.attention, second.moe().is_some()), (&AttentionSpec::None, true));

        let mut recipe = recipe(0.2, 0.2);
        recipe.experts.mtp = mtp;
        let (text, out) = (tokens(scratch.path(), 8, 64, 128), scratch.path().join("out"));
        run_on(&Execution::cpu(), &model, &out, &text, &recipe).unwrap();
        let pruned = Checkpoint::open(&out).unwrap();
        let verified = verify(&out, &source, None).unwrap();
        assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
        let of_mtp = |model: &Checkpoint| {
            let names = model.tensors().map(|tensor| tensor.name.clone());
            names.filter(|name| name.starts_with("mtp.")).count()
        };
        match mtp {
            Some(Mtp::Drop) => assert_eq!(of_mtp(&pruned), 0),
            _ => {
                assert_eq!(pruned.spec().moe_of(7).unwrap().experts, 8);
                assert_eq!(of_mtp(&pruned), of_mtp(&source) - 2 * 2);
            }
        }
    };
    for config in ["config.json", "config.hub.json"] {
        check(config, None);
        check(config, Some(Mtp::Drop));
    }
}

/// Stages that read experts in other ways than the default ones do.
#[test]
fn other_stages() {
    let check = |change: &dyn Fn(&mut Recipe), experts: f64| {
        let scratch = tempfile::tempdir().unwrap();
        let (model, out) = (model(Some(24), scratch.path()), scratch.path().join("out"));
        let text = tokens(scratch.path(), 8, 32, 128);
        let mut recipe = recipe(0.4, experts);
        recipe.calibration.sequence_len = 32;
        change(&mut recipe);
        run_on(&Execution::cpu(), &model, &out, &text, &recipe).unwrap();
        let source = Checkpoint::open(&model).unwrap();
        let verified = verify(&out, &source, None).unwrap();
        assert!(verified.passed(), "{:?}", verified.failures().collect::<Vec<_>>());
    };
    check(&|recipe| recipe.weights.scorer = "sparsegpt:least_tokens=1".parse().unwrap(), 0.2);
    check(&|recipe| recipe.experts.criterion = "exhaustive".parse().unwrap(), 0.2);
    check(&|recipe| recipe.experts.criterion = "reap".parse().unwrap(), 0.2);
    check(&|recipe| recipe.experts.criterion = "reconstruction".parse().unwrap(), 0.2);
    check(&|recipe| recipe.repair = "refit".parse().unwrap(), 0.2);
    for survivor in ["nearest", "weighted-average", "average"] {
        let merged = |recipe: &mut Recipe| {
            recipe.experts.criterion = "stun".parse().unwrap();
            recipe.experts.similarity = "outputs".parse().unwrap();
            recipe.experts.survivor = survivor.parse().unwrap();
        };
        check(&merged, 0.5);
    }
}
