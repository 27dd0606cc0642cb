//! Models to read and to damage.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use moeprune_checkpoint::{
    Checkpoint, Error, OutputDirectory, PlannedTensor, ShardedWriter, average, select_rows,
};
use moeprune_core::{
    Dtype, LayerPlan, LayerTensor, LinearId, Partition, Plan, Survivor, SurvivorReason,
    TensorBytes, TensorId, TensorSink, TensorSource,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const PARITY: [&str; 4] = ["arctic", "arctic_freq2", "mixtral", "mixtral_sharded"];

pub(crate) fn parity(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/parity").join(name)
}

/// A copy of a parity model in `model` of a temporary directory.
pub(crate) struct Model {
    pub(crate) root: TempDir,
    pub(crate) dir: PathBuf,
}

impl Model {
    pub(crate) fn copy_of(name: &str) -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let dir = root.path().join("model");
        fs::create_dir(&dir).expect("creates");
        for entry in fs::read_dir(parity(name)).expect("lists") {
            let entry = entry.expect("lists");
            let file = entry.file_name();
            if file != "ref.safetensors" && file != "config.hub.json" {
                let bytes = fs::read(entry.path()).expect("reads");
                fs::write(dir.join(file), bytes).expect("writes");
            }
        }
        Self { root, dir }
    }

    /// The smallest Mixtral: one layer, two experts, width 4; and further tensors.
    pub(crate) fn tiny(extra: &[(PlannedTensor, Vec<u8>)], max_shard_bytes: u64) -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let dir = root.path().join("model");
        fs::create_dir(&dir).expect("creates");
        fs::write(dir.join("config.json"), tiny_config().to_string()).expect("writes");
        let mut tensors = tiny_tensors();
        tensors.extend_from_slice(extra);
        let plan = tensors.iter().map(|(planned, _)| planned.clone()).collect();
        let mut writer = ShardedWriter::create(&dir, max_shard_bytes, plan).expect("plans");
        for (planned, bytes) in &tensors {
            let tensor = TensorBytes::new(planned.dtype, planned.shape.clone(), &bytes[..]);
            writer.put(&planned.name, &tensor.expect("fits")).expect("puts");
        }
        writer.finish().expect("finishes");
        Self { root, dir }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    pub(crate) fn open(&self) -> Result<Checkpoint, Error> {
        Checkpoint::open(&self.dir)
    }

    pub(crate) fn edit_text(&self, file: &str, edit: impl Fn(String) -> String) {
        let text = fs::read_to_string(self.path(file)).expect("reads");
        let edited = edit(text.clone());
        assert_ne!(text, edited, "the edit changes nothing");
        fs::write(self.path(file), edited).expect("writes");
    }

    /// Edits a weight file as (header, data).
    pub(crate) fn edit_weights(&self, file: &str, edit: impl Fn(&mut String, &mut Vec<u8>)) {
        let bytes = fs::read(self.path(file)).expect("reads");
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let mut header = String::from_utf8(bytes[8..8 + length].to_vec()).expect("UTF-8");
        let mut data = bytes[8 + length..].to_vec();
        edit(&mut header, &mut data);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(data);
        fs::write(self.path(file), bytes).expect("writes");
    }

    /// Rewrites a weight file with its tensors changed, as (name, dtype, shape, bytes).
    pub(crate) fn edit_tensors(&self, file: &str, edit: impl Fn(&mut Vec<RawTensor>)) {
        let bytes = fs::read(self.path(file)).expect("reads");
        let file_tensors = safetensors::SafeTensors::deserialize(&bytes).expect("valid");
        let mut tensors: Vec<RawTensor> = file_tensors
            .iter()
            .map(|(name, view)| RawTensor {
                name: name.to_owned(),
                dtype: format!("{:?}", view.dtype()),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            })
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        edit(&mut tensors);
        fs::write(self.path(file), raw_file(&tensors)).expect("writes");
    }
}

#[derive(Clone)]
pub(crate) struct RawTensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn raw_file(tensors: &[RawTensor]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for t in tensors {
        let offsets = [data.len(), data.len() + t.bytes.len()];
        let info = json!({"dtype": t.dtype, "shape": t.shape, "data_offsets": offsets});
        header.insert(t.name.clone(), info);
        data.extend_from_slice(&t.bytes);
    }
    let header = Value::from(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(data);
    bytes
}

pub(crate) fn tiny_config() -> Value {
    json!({
        "model_type": "mixtral", "hidden_size": 4, "intermediate_size": 2, "vocab_size": 3,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "num_local_experts": 2, "num_experts_per_tok": 1
    })
}

fn tiny_tensors() -> Vec<(PlannedTensor, Vec<u8>)> {
    let mut tensors: Vec<(String, Vec<usize>)> = vec![
        ("lm_head.weight".into(), vec![3, 4]),
        ("model.embed_tokens.weight".into(), vec![3, 4]),
        ("model.norm.weight".into(), vec![4]),
    ];
    let layer = "model.layers.0";
    for (name, shape) in [
        ("input_layernorm", vec![4]),
        ("post_attention_layernorm", vec![4]),
        ("self_attn.q_proj", vec![4, 4]),
        ("self_attn.k_proj", vec![2, 4]),
        ("self_attn.v_proj", vec![2, 4]),
        ("self_attn.o_proj", vec![4, 4]),
        ("block_sparse_moe.gate", vec![2, 4]),
    ] {
        tensors.push((format!("{layer}.{name}.weight"), shape));
    }
    for e in 0..2 {
        for (w, shape) in [("w1", vec![2, 4]), ("w2", vec![4, 2]), ("w3", vec![2, 4])] {
            tensors.push((format!("{layer}.block_sparse_moe.experts.{e}.{w}.weight"), shape));
        }
    }
    tensors
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let values: Vec<f32> =
                (0..shape.iter().product::<usize>()).map(|j| (i * 40 + j) as f32 - 7.5).collect();
            let bytes = TensorBytes::encode(Dtype::BF16, shape.clone(), &values).expect("encodes");
            (PlannedTensor { name, dtype: Dtype::BF16, shape }, bytes.into_bytes())
        })
        .collect()
}

/// Checks that something failed with a message that has all of these in it.
#[track_caller]
pub(crate) fn check_refused<T, E: Display>(result: Result<T, E>, expected: &[&str]) {
    let Err(error) = result else { panic!("was accepted; expected an error with {expected:?}") };
    let message = error.to_string();
    for part in expected {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

/// All files of a directory.
pub(crate) fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir)
        .expect("lists")
        .map(|entry| {
            let entry = entry.expect("lists");
            let name = entry.file_name().into_string().expect("UTF-8");
            (name, fs::read(entry.path()).expect("reads"))
        })
        .collect()
}

pub(crate) fn planned(name: &str, dtype: Dtype, shape: &[usize]) -> PlannedTensor {
    PlannedTensor { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

/// A plan that keeps these experts of each layer with experts.
pub(crate) fn plan_keeping(source: &Checkpoint, kept: &[usize]) -> Plan {
    let survivors: Vec<Survivor> = kept
        .iter()
        .map(|&source| Survivor {
            source,
            reason: SurvivorReason::LowestIndex,
            average_of: Vec::new(),
            average_weights: Vec::new(),
        })
        .collect();
    let layers = source.spec().layers.iter().enumerate().filter_map(|(layer, spec)| {
        let experts = spec.moe()?.experts;
        Some(LayerPlan {
            layer,
            experts_before: experts,
            clusters: Partition::singletons(experts),
            survivors: survivors.clone(),
            tokens: Vec::new(),
            dropped: Vec::new(),
        })
    });
    Plan {
        format: 1,
        tool: "test".into(),
        model_fingerprint: source.fingerprint().expect("reads"),
        observation_sha256: None,
        corpora: Vec::new(),
        recipe: Value::Null,
        unstructured: None,
        repairs: false,
        layers: layers.collect(),
        extra: None,
    }
}

/// Applies a plan; `change` may alter each tensor on its way.
pub(crate) fn apply(
    source: &Checkpoint,
    plan: &Plan,
    out: &Path,
    change: impl Fn(&PlannedTensor, TensorBytes<'static>) -> TensorBytes<'static>,
) {
    let survivors = |layer: usize| {
        let of_plan = plan.layers.iter().find(|p| p.layer == layer);
        of_plan.expect("planned").survivors.clone()
    };
    let members = |s: &Survivor| match s.average_of.as_slice() {
        [] => vec![s.source],
        members => members.to_vec(),
    };
    let mut tensors: Vec<(PlannedTensor, TensorBytes<'static>)> = Vec::new();
    let owned = |t: TensorBytes<'_>| {
        TensorBytes::new(t.dtype(), t.shape().to_vec(), t.bytes().to_vec()).expect("fits")
    };
    for stored in source.tensors() {
        let (mut name, read) = (stored.name.clone(), |id| owned(source.tensor(id).expect("reads")));
        let tensor = match stored.part {
            Some(TensorId::Layer(l, LayerTensor::Linear(LinearId::Router))) => {
                let router = read(TensorId::linear(l, LinearId::Router));
                let survivors = survivors(l);
                let mut bytes = Vec::new();
                for s in &survivors {
                    let rows = members(s).into_iter().map(|e| select_rows(&router, &[e]));
                    let rows = rows.collect::<Result<Vec<_>, _>>().expect("rows");
                    bytes.extend(average(&rows).expect("averages").into_bytes());
                }
                let shape = [survivors.len(), router.shape()[1]];
                TensorBytes::new(router.dtype(), shape, bytes).expect("fits")
            }
            Some(TensorId::Layer(l, LayerTensor::Linear(linear @ LinearId::Expert(e, _)))) => {
                let survivors = survivors(l);
                let Some(new) = survivors.iter().position(|s| s.source == e) else { continue };
                name = source
                    .name_of(TensorId::linear(l, linear.with_expert(new)))
                    .expect("has a name");
                let of = |e: usize| read(TensorId::linear(l, linear.with_expert(e)));
                let tensors: Vec<_> = members(&survivors[new]).into_iter().map(of).collect();
                average(&tensors).expect("averages")
            }
            _ => owned(source.tensor_by_name(&name).expect("reads")),
        };
        let planned = PlannedTensor { name, dtype: tensor.dtype(), shape: tensor.shape().to_vec() };
        let tensor = change(&planned, tensor);
        tensors.push((planned, tensor));
    }
    let kept: Vec<usize> = (0..source.spec().layers.len())
        .map(|l| plan.layers.iter().find(|p| p.layer == l).map_or(0, |p| p.survivors.len()))
        .collect();
    let directory = OutputDirectory::create(out, source).expect("creates");
    directory.copy_auxiliary(source).expect("copies");
    let config = source.config_with_experts(&kept).expect("rewrites");
    directory.write("config.json", config.as_bytes()).expect("writes");
    let planned = tensors.iter().map(|(planned, _)| planned.clone()).collect();
    let mut writer =
        ShardedWriter::create(directory.path(), source.max_shard_bytes(), planned).expect("plans");
    for (planned, tensor) in &tensors {
        writer.put(&planned.name, tensor).expect("puts");
    }
    writer.finish().expect("finishes");
    directory.publish().expect("publishes");
}
