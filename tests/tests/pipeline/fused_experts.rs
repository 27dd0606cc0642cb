//! Experts of a layer in one tensor give what experts in tensors of their own give.

use std::{collections::BTreeSet, fs, path::Path};

use moeprune::{
    Execution, FromRecipe as _, Job, OutputPlace, Pipeline, Recipe, Resume, Silent,
    checkpoint::{Checkpoint, Family, verify},
    core::{TensorId, TensorSource as _},
    prune,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::scratch::{asset, recipe, tokens};

const MIXTRAL: &str = include_str!("../../../crates/moeprune-checkpoint/families/mixtral.toml");

/// How the experts of a layer are stored together.
#[derive(Debug, Clone, Copy)]
struct Form {
    transposed: bool,
    interleaved: bool,
}

impl Form {
    /// Mixtral's family with this form for fused experts.
    fn family(self) -> Family {
        let layout = if self.transposed { "in_out" } else { "out_in" };
        let keys =
            format!("[experts.fused]\nlayout = \"{layout}\"\ninterleaved = {}", self.interleaved);
        let marked = MIXTRAL
            .lines()
            .map(|line| if line.starts_with("[experts.fused]") { keys.as_str() } else { line });
        Family::from_toml(&marked.collect::<Vec<_>>().join("\n")).unwrap()
    }

    /// Gate and up, or one matrix, `[out, in]` each, as the slab of an expert: elements of two bytes.
    fn slab(self, matrices: &[&[u8]], rows: usize, cols: usize) -> Vec<u8> {
        let row = |of: usize, row: usize| &matrices[of][row * cols * 2..(row + 1) * cols * 2];
        let count = matrices.len();
        let lines: Vec<&[u8]> = (0..rows * count)
            .map(|line| {
                if self.interleaved {
                    row(line % count, line / count)
                } else {
                    row(line / rows, line % rows)
                }
            })
            .collect();
        if !self.transposed {
            return lines.concat();
        }
        let column = |c: usize| lines.iter().flat_map(move |line| line[2 * c..2 * c + 2].to_vec());
        (0..cols).flat_map(column).collect()
    }

    fn shape(self, experts: usize, rows: usize, cols: usize) -> Vec<usize> {
        if self.transposed { vec![experts, cols, rows] } else { vec![experts, rows, cols] }
    }
}

/// The fixture's weights with the experts of each layer in two tensors.
fn fuse(form: Form, directory: &Path) {
    fs::create_dir(directory).unwrap();
    let from = asset("parity/mixtral");
    fs::copy(from.join("config.json"), directory.join("config.json")).unwrap();
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, view) in stored.tensors() {
        if !name.contains(".experts.") {
            let name = name.replace("block_sparse_moe.gate", "mlp.gate");
            tensors.push((name, view.shape().to_vec(), view.data().to_vec()));
        }
    }
    for layer in 0..3 {
        let matrix = |e: usize, w: &str| {
            let name = format!("model.layers.{layer}.block_sparse_moe.experts.{e}.{w}.weight");
            stored.tensor(&name).unwrap()
        };
        let (inner, hidden) = (matrix(0, "w1").shape()[0], matrix(0, "w1").shape()[1]);
        let gate_up = |e: usize| {
            let (gate, up) = (matrix(e, "w1"), matrix(e, "w3"));
            form.slab(&[gate.data(), up.data()], inner, hidden)
        };
        let down = |e: usize| form.slab(&[matrix(e, "w2").data()], hidden, inner);
        let prefix = format!("model.layers.{layer}.mlp.experts");
        let shape = form.shape(8, 2 * inner, hidden);
        tensors.push((format!("{prefix}.gate_up_proj"), shape, (0..8).flat_map(gate_up).collect()));
        let shape = form.shape(8, hidden, inner);
        tensors.push((format!("{prefix}.down_proj"), shape, (0..8).flat_map(down).collect()));
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap())
    });
    fs::write(directory.join("model.safetensors"), safetensors::serialize(views, None).unwrap())
        .unwrap();
}

fn pruned(source: &Checkpoint, out: &Path, text: &Path, recipe: &Recipe) -> Checkpoint {
    let pipeline = Pipeline::from_recipe(recipe).unwrap();
    let cpu = Execution::cpu();
    let to = OutputPlace { origin: source, path: out, resume: Resume::No };
    prune(&mut Job::new(source, &pipeline, &cpu, &mut Silent), to, text, recipe).unwrap();
    Checkpoint::open_with(out, Some(source.family().clone())).unwrap()
}

/// Every part of the two, bit for bit.
fn check_same(a: &Checkpoint, b: &Checkpoint) {
    assert_eq!(a.spec(), b.spec());
    for part in a.spec().parts() {
        let (ours, theirs) = (a.tensor(part.id).unwrap(), b.tensor(part.id).unwrap());
        assert!(ours == theirs, "{} differs", part.id);
    }
}

fn check(form: Form, recipe: &Recipe) {
    let scratch = tempfile::tempdir().unwrap();
    let text = tokens(scratch.path(), 8, 64, 256);
    let separate = Checkpoint::open(&asset("parity/mixtral")).unwrap();
    fuse(form, &scratch.path().join("model"));
    let fused = Checkpoint::open_with(&scratch.path().join("model"), Some(form.family())).unwrap();
    check_same(&separate, &fused);

    let expected = pruned(&separate, &scratch.path().join("separate"), &text, recipe);
    let out = scratch.path().join("fused");
    let got = pruned(&fused, &out, &text, recipe);
    check_same(&expected, &got);
    assert_eq!(expected.config_text(), got.config_text());
    let names = |of: &Checkpoint| of.tensors().map(|t| t.name.clone()).collect::<BTreeSet<_>>();
    assert_eq!(names(&fused), names(&got));
    let report = verify(&out, &fused, None).unwrap();
    assert!(report.passed(), "{form:?}: {:?}", report.failures().collect::<Vec<_>>());
}

const FORMS: [Form; 4] = [
    Form { transposed: false, interleaved: false },
    Form { transposed: true, interleaved: false },
    Form { transposed: false, interleaved: true },
    Form { transposed: true, interleaved: true },
];

#[test]
fn a_whole_pruning_is_the_same() {
    for form in FORMS {
        check(form, &recipe(0.4, 0.25));
    }
}

#[test]
fn removing_experts_alone_is_the_same() {
    for form in FORMS {
        check(form, &recipe(0.25, 0.25));
    }
}

#[test]
fn the_fixture_has_the_weights_of_its_namesake() {
    let fused = Checkpoint::open(&asset("parity/mixtral_fused")).unwrap();
    check_same(&Checkpoint::open(&asset("parity/mixtral")).unwrap(), &fused);
    let tensor = fused.tensors().find(|tensor| tensor.experts.is_some()).unwrap();
    let held = tensor.experts.as_ref().unwrap();
    assert_eq!(held.experts().experts, 8);
    let part = held.parts(3)[0];
    assert!(matches!(part, TensorId::Layer(..)) && part.expert() == Some(3));
    assert_eq!(fused.name_of(part).unwrap(), tensor.name);
}
