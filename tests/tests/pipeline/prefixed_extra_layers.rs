//! Layers behind the decoder's that have names of their own: pruned, kept and dropped.

use std::{collections::BTreeMap, fs, path::Path};

use moeprune::{
    Execution, FromRecipe as _, Inputs, Job, Pipeline, Registry, Report, Resume, Run, Silent,
    apply,
    checkpoint::{Checkpoint, verify},
    core::{ExtraPolicy, Plan},
    plan, read_keep_list,
    recipe::Mtp,
};
use safetensors::{SafeTensors, tensor::TensorView};

use crate::scratch::{copy, recipe};

/// Tensors by name: element type, shape and bytes.
type Tensors = BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

/// The config that the publisher wrote.
const HUB: &str = "config.hub.json";

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, TensorView<'_>)| {
        (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
    };
    stored.tensors().into_iter().map(tensor).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A copy of a model with one of its configs and other tensors.
fn edited(name: &str, config: &str, directory: &Path, edit: impl Fn(&mut Tensors)) -> Checkpoint {
    let model = copy(&format!("parity/{name}"), directory);
    if config == HUB {
        fs::rename(model.join(HUB), model.join("config.json")).unwrap();
    }
    fs::remove_file(model.join("ref.safetensors")).unwrap();
    let path = model.join("model.safetensors");
    let mut tensors = read(&path);
    edit(&mut tensors);
    write(&path, &tensors);
    Checkpoint::open(&model).unwrap_or_else(|error| panic!("{error}"))
}

fn planned(source: &Checkpoint, share: f64, mtp: Option<Mtp>) -> Result<Plan, moeprune::Error> {
    let mut recipe = recipe(share, share);
    recipe.experts.mtp = mtp;
    let pipeline = Pipeline::from_recipe(&recipe).unwrap();
    plan(&mut Job::new(source, &pipeline, &Execution::cpu(), &mut Silent), &recipe, None)
}

#[derive(Debug, Default)]
struct Notes(Vec<String>);

impl moeprune::Progress for Notes {
    fn note(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

/// Applies a plan and verifies the result, with the plan and without.
fn applied(source: &Checkpoint, plan: &Plan, out: &Path) -> (Checkpoint, Report, Notes) {
    let (pipeline, cpu, mut notes) = (Pipeline::arctic(), Execution::cpu(), Notes::default());
    let mut job = Job::new(source, &pipeline, &cpu, &mut notes);
    let run = Run::claim(out, source, Resume::No).unwrap();
    let report = apply(&mut job, run, plan, Inputs::None).unwrap();
    for plan in [Some(plan), None] {
        let checked = verify(out, source, plan).unwrap();
        assert!(checked.passed(), "{:?}", checked.failures().collect::<Vec<_>>());
    }
    let pruned = Checkpoint::open_with(out, Some(source.family().clone())).unwrap();
    (pruned, report, notes)
}

/// The tensors of layers behind the decoder's.
fn extra(model: &Checkpoint) -> Vec<&str> {
    let extra = model.tensors().filter(|tensor| model.is_extra(tensor));
    extra.map(|tensor| &*tensor.name).collect()
}

fn is_extra_name(name: &str) -> bool {
    name.starts_with("mtp.") || name.starts_with("model.mtp_")
}

fn shape<'a>(model: &'a Checkpoint, name: &str) -> &'a [usize] {
    &model.tensors().find(|tensor| tensor.name == name).unwrap().shape
}

/// Prunes a quarter of eight experts.
fn check_pruned(name: &str, config: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let source = edited(name, config, scratch.path(), |_| ());
    let made = planned(&source, 0.25, None).unwrap();
    assert_eq!((made.layers.len(), made.layers[4].layer), (5, 4));
    let (pruned, report, notes) = applied(&source, &made, &scratch.path().join("out"));
    assert_eq!(pruned.spec().moe_of(4).unwrap().experts, 6);
    assert_eq!(shape(&pruned, "mtp.layers.0.mlp.gate.weight"), [6, 64]);
    let survivors: Vec<usize> = made.layers[4].survivors.iter().map(|s| s.source).collect();
    for (after, before) in survivors.iter().enumerate() {
        for matrix in ["gate_proj", "up_proj", "down_proj"] {
            let tensor = |of: &Checkpoint, expert: usize| {
                let name = format!("mtp.layers.0.mlp.experts.{expert}.{matrix}.weight");
                of.tensor_by_name(&name).unwrap().into_bytes()
            };
            assert!(tensor(&pruned, after) == tensor(&source, *before), "{after} {matrix}");
        }
    }
    let before = extra(&source);
    assert!(before.iter().copied().eq(before.iter().copied().filter(|name| is_extra_name(name))));
    let gone = |name: &&str| name.contains(".experts.6.") || name.contains(".experts.7.");
    let expected: Vec<&str> = before.into_iter().filter(|name| !gone(name)).collect();
    assert_eq!(extra(&pruned), expected);
    assert_eq!(report.extra.unwrap().layers[0].kept, survivors);
    assert!(notes.0.is_empty(), "{notes:?}");
    let other = source.config_text().replace("\"num_experts\": 8", "\"num_experts\": 6");
    assert_eq!(pruned.config_text(), other);
}

#[test]
fn pruned_to_the_decoders_number() {
    for config in ["config.json", HUB] {
        check_pruned("qwen3_next", config);
        check_pruned("qwen3_5_moe", config);
    }
}

#[test]
fn dropped_with_all_that_is_beside_them() {
    let check = |name: &str, config: &str, key: Option<&str>| {
        let scratch = tempfile::tempdir().unwrap();
        let source = edited(name, config, scratch.path(), |_| ());
        let made = planned(&source, 0.25, Some(Mtp::Drop)).unwrap();
        let (pruned, report, _) = applied(&source, &made, &scratch.path().join("out"));
        assert_eq!(report.extra.unwrap().policy, ExtraPolicy::Drop);
        assert!(pruned.tensors().all(|tensor| !is_extra_name(&tensor.name)));
        let said = |of: &Checkpoint, count: u8| {
            key.is_none_or(|key| of.config_text().contains(&format!("\"{key}\": {count}")))
        };
        assert!(said(&source, 1) && said(&pruned, 0), "{name}");
    };
    check("qwen3_next", HUB, None);
    check("qwen3_5_moe", HUB, Some("mtp_num_hidden_layers"));
    check("qwen3_5_moe", "config.json", None);
    check("ernie4_5_moe", HUB, Some("num_nextn_predict_layers"));
}

#[test]
fn kept_only_where_no_expert_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let source = edited("qwen3_next", HUB, scratch.path(), |_| ());
    let error = planned(&source, 0.25, Some(Mtp::Keep)).unwrap_err().to_string();
    let expected =
        "layer 4 (mtp.layers.0), behind the decoder's, would have 8 experts and the others 6";
    assert!(error.starts_with(expected), "{error}");
    let made = planned(&source, 0.0, Some(Mtp::Keep)).unwrap();
    let (pruned, ..) = applied(&source, &made, &scratch.path().join("out"));
    assert_eq!(extra(&source), extra(&pruned));
}

#[test]
fn verification_looks_into_them() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) =
        (edited("qwen3_5_moe", HUB, scratch.path(), |_| ()), scratch.path().join("out"));
    let made = planned(&source, 0.25, None).unwrap();
    drop(applied(&source, &made, &out));
    let path = out.join("model.safetensors");
    let written = read(&path);
    let check = |name: &str, expected: &str| {
        let mut damaged = written.clone();
        damaged.get_mut(&format!("mtp.{name}.weight")).unwrap().2[0] ^= 1;
        write(&path, &damaged);
        let report = verify(&out, &source, Some(&made)).unwrap();
        let failures: Vec<&str> = report.failures().map(|check| &*check.name).collect();
        assert_eq!(failures, [expected], "{name}");
    };
    check("layers.0.mlp.gate", "routers");
    check("layers.0.mlp.experts.5.up_proj", "experts");
    check("layers.0.self_attn.o_proj", "attention and dense MLPs");
    check("layers.0.self_attn.q_norm", "embeddings, norms, head");
    check("fc", "embeddings, norms, head");
    let mut damaged = written.clone();
    damaged.remove("mtp.fc.weight");
    write(&path, &damaged);
    let report = verify(&out, &source, Some(&made)).unwrap();
    assert_eq!(report.failures().next().unwrap().name, "tensor set");
}

/// Without experts there is nothing to prune.
#[test]
fn dense_layers_are_kept() {
    for config in ["config.json", HUB] {
        let scratch = tempfile::tempdir().unwrap();
        let source = edited("ernie4_5_moe", config, scratch.path(), |_| ());
        assert_eq!((extra(&source).len(), source.spec().extra_layers()), (12, 3..4));
        let made = planned(&source, 0.3, None).unwrap();
        assert_eq!(made.extra, Some(ExtraPolicy::Keep));
        let (pruned, report, _) = applied(&source, &made, &scratch.path().join("out"));
        assert_eq!(extra(&source), extra(&pruned));
        let said = report.serving.join(" ");
        assert!(
            said.contains("copied as they are: layer 3 (model.mtp_block.0) has no experts"),
            "{said}"
        );
    }
}

/// Puts the experts of a layer into two tensors.
fn fuse(tensors: &mut Tensors, prefix: &str, experts: usize) {
    let mut take = |expert: usize, matrix: &str| {
        tensors.remove(&format!("{prefix}.{expert}.{matrix}.weight")).unwrap()
    };
    let (mut gate_ups, mut downs) = (Vec::new(), Vec::new());
    let (mut inner, mut hidden, mut of) = (0, 0, None);
    for expert in 0..experts {
        let (dtype, shape, gate) = take(expert, "gate_proj");
        (inner, hidden, of) = (shape[0], shape[1], Some(dtype));
        gate_ups.extend(gate);
        gate_ups.extend(take(expert, "up_proj").2);
        downs.extend(take(expert, "down_proj").2);
    }
    let shape = vec![experts, 2 * inner, hidden];
    tensors.insert(format!("{prefix}.gate_up_proj"), (of.unwrap(), shape, gate_ups));
    let shape = vec![experts, hidden, inner];
    tensors.insert(format!("{prefix}.down_proj"), (of.unwrap(), shape, downs));
}

/// Experts in one tensor give what experts in tensors of their own give. The decoder's are the one in
/// one of these families and the other in the other.
#[test]
fn fused_experts_are_cut_as_others_are() {
    for name in ["qwen3_next", "qwen3_5_moe"] {
        let scratch = tempfile::tempdir().unwrap();
        let places = ["apart", "fused"].map(|place| scratch.path().join(place));
        places.iter().for_each(|place| fs::create_dir(place).unwrap());
        let prefix = "mtp.layers.0.mlp.experts";
        let apart = edited(name, HUB, &places[0], |_| ());
        let fused = edited(name, HUB, &places[1], |tensors| fuse(tensors, prefix, 8));
        let made = [&apart, &fused].map(|source| planned(source, 0.25, None).unwrap());
        assert_eq!(made[0].layers, made[1].layers);
        drop(applied(&apart, &made[0], &places[0].join("out")));
        let (pruned, ..) = applied(&fused, &made[1], &places[1].join("out"));
        assert_eq!(shape(&pruned, &format!("{prefix}.gate_up_proj")), [6, 32, 64]);
        let mut expected = read(&places[0].join("out/model.safetensors"));
        fuse(&mut expected, prefix, 6);
        assert!(expected == read(&places[1].join("out/model.safetensors")), "{name}");
    }
}

/// A file of their own stays one.
#[test]
fn a_file_of_their_own() {
    let check = |mtp: Option<Mtp>, expected: &[&str]| {
        let scratch = tempfile::tempdir().unwrap();
        drop(edited("qwen3_5_moe", HUB, scratch.path(), |_| ()));
        let model = scratch.path().join("model");
        let all = read(&model.join("model.safetensors"));
        let (own, others): (Tensors, Tensors) =
            all.into_iter().partition(|(name, _)| is_extra_name(name));
        let files = [("mtp.safetensors", own), ("model-00001-of-00001.safetensors", others)];
        fs::remove_file(model.join("model.safetensors")).unwrap();
        let mut index = BTreeMap::new();
        let mut bytes = 0;
        for (file, tensors) in &files {
            write(&model.join(file), tensors);
            index.extend(tensors.keys().map(|name| (name, file)));
            bytes += tensors.values().map(|(_, _, data)| data.len()).sum::<usize>();
        }
        let index = serde_json::json!({ "metadata": { "total_size": bytes }, "weight_map": index });
        fs::write(model.join("model.safetensors.index.json"), index.to_string()).unwrap();
        let source = Checkpoint::open(&model).unwrap();
        let made = planned(&source, 0.25, mtp).unwrap();
        let (pruned, ..) = applied(&source, &made, &scratch.path().join("out"));
        let is_own = |file: &&str| *file == "mtp.safetensors";
        assert_eq!(pruned.shard_files().filter(is_own).collect::<Vec<_>>(), expected);
        let own = pruned.tensors().filter(|tensor| *tensor.file == *"mtp.safetensors");
        assert!(own.map(|tensor| &*tensor.name).eq(extra(&pruned)));
    };
    check(None, &["mtp.safetensors"]);
    check(Some(Mtp::Drop), &[]);
}

#[test]
fn a_keep_list_names_them_by_their_place() {
    let scratch = tempfile::tempdir().unwrap();
    let source = edited("qwen3_next", HUB, scratch.path(), |_| ());
    let list = scratch.path().join("keep.json");
    let each: Vec<String> = (0..4).map(|layer| format!("\"{layer}\": [0, 1, 2, 3]")).collect();
    let text = format!("{{{}, \"mtp.0\": [1, 3, 5, 7]}}", each.join(", "));
    fs::write(&list, text).unwrap();
    let list = read_keep_list(&list, source.spec()).unwrap();
    let mut recipe = recipe(0.4, 0.2);
    let pipeline = Registry::built_in().keeping(list, source.spec(), &mut recipe, None).unwrap();
    let (cpu, mut silent) = (Execution::cpu(), Silent);
    let made = plan(&mut Job::new(&source, &pipeline, &cpu, &mut silent), &recipe, None).unwrap();
    let kept: Vec<usize> = made.layers[4].survivors.iter().map(|s| s.source).collect();
    assert_eq!((made.layers[4].layer, kept), (4, vec![1, 3, 5, 7]));
    let (pruned, ..) = applied(&source, &made, &scratch.path().join("out"));
    assert_eq!(shape(&pruned, "mtp.layers.0.mlp.gate.weight"), [4, 64]);
}

/// Where it is not known how experts are stored, nothing is cut, which is said where others go.
#[test]
fn experts_of_an_unknown_form_are_carried_over() {
    let unknown = |tensors: &mut Tensors| {
        fuse(tensors, "mtp.layers.0.mlp.experts", 8);
        let packed = tensors.remove("mtp.layers.0.mlp.experts.gate_up_proj").unwrap();
        tensors.insert("mtp.layers.0.mlp.experts.packed".to_owned(), packed);
    };
    let check = |share: f64, mtp: Option<Mtp>, expected: bool| {
        let scratch = tempfile::tempdir().unwrap();
        let source = edited("qwen3_next", HUB, scratch.path(), unknown);
        assert!(source.spec().extra.as_ref().unwrap().layers.is_empty());
        let made = planned(&source, share, mtp).unwrap();
        let (pruned, _, notes) = applied(&source, &made, &scratch.path().join("out"));
        let said = notes.0.iter().any(|note| note.contains("`mtp.layers.0.mlp.experts."));
        assert_eq!(said, expected, "{notes:?}");
        assert_eq!(extra(&pruned).is_empty(), mtp == Some(Mtp::Drop));
    };
    check(0.25, None, true);
    check(0.25, Some(Mtp::Drop), false);
    check(0.0, None, false);
}

/// Copies the layer behind the decoder's to another number.
fn second(tensors: &mut Tensors, number: usize) {
    let of_first = |(name, tensor): (&String, &_)| {
        let rest = name.strip_prefix("mtp.layers.0.")?;
        Some((format!("mtp.layers.{number}.{rest}"), Clone::clone(tensor)))
    };
    let copied: Tensors = tensors.iter().filter_map(of_first).collect();
    tensors.extend(copied);
}

#[test]
fn several_are_cut_one_by_one() {
    let scratch = tempfile::tempdir().unwrap();
    let source = edited("qwen3_next", HUB, scratch.path(), |tensors| second(tensors, 1));
    assert_eq!(source.spec().extra_layers(), 4..6);
    let made = planned(&source, 0.25, None).unwrap();
    let (pruned, ..) = applied(&source, &made, &scratch.path().join("out"));
    assert_eq!(shape(&pruned, "mtp.layers.1.mlp.gate.weight"), [6, 64]);
}

/// Numbers that the config or other layers contradict are errors that name both.
#[test]
fn numbers_that_disagree() {
    let check = |number: usize, expected: &str| {
        let scratch = tempfile::tempdir().unwrap();
        drop(edited("qwen3_5_moe", HUB, scratch.path(), |_| ()));
        let path = scratch.path().join("model/model.safetensors");
        let mut tensors = read(&path);
        second(&mut tensors, number);
        write(&path, &tensors);
        let error = Checkpoint::open(&scratch.path().join("model")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(1, "`mtp_num_hidden_layers` in config.json says 1 layers behind the decoder's 4, but");
    check(2, "there are tensors of layers 0, 2; they would be numbered from 0 on");
}

/// Layers that are numbered on from the decoder's last may have their experts in one tensor too.
#[test]
fn fused_experts_of_layers_that_are_numbered_on() {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("model");
    drop(edited("deepseek_v3", HUB, scratch.path(), |_| ()));
    let mut tensors = read(&model.join("model.safetensors"));
    fuse(&mut tensors, "model.layers.3.mlp.experts", 12);
    write(&model.join("model.safetensors"), &tensors);
    let source = Checkpoint::open(&model).unwrap();
    let made = planned(&source, 0.34, None).unwrap();
    let (pruned, ..) = applied(&source, &made, &scratch.path().join("out"));
    assert_eq!(shape(&pruned, "model.layers.3.mlp.experts.down_proj"), [8, 64, 16]);
}
