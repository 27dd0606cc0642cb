//! Opening reads headers and nothing else, however large the files are.
#![cfg(target_os = "linux")]

use std::{fs, io::Write};

use moeprune_checkpoint::{Access, Checkpoint};

const HIDDEN: usize = 4096;
const INNER: usize = 100_000;

/// A Mixtral of one layer and two experts in a file of 5 GB, nearly all of it a hole.
fn large_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = format!(
        r#"{{"model_type": "mixtral", "hidden_size": {HIDDEN}, "intermediate_size": {INNER},
            "vocab_size": 8, "num_hidden_layers": 1, "num_attention_heads": 32,
            "num_key_value_heads": 8, "num_local_experts": 2, "num_experts_per_tok": 2}}"#
    );
    fs::write(dir.path().join("config.json"), config).expect("writes");
    let mut tensors = vec![
        ("lm_head.weight".to_owned(), vec![8, HIDDEN]),
        ("model.embed_tokens.weight".to_owned(), vec![8, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for (name, shape) in [
        ("input_layernorm", vec![HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
        ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
        ("self_attn.k_proj", vec![1024, HIDDEN]),
        ("self_attn.v_proj", vec![1024, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
        ("block_sparse_moe.gate", vec![2, HIDDEN]),
    ] {
        tensors.push((format!("model.layers.0.{name}.weight"), shape));
    }
    for e in 0..2 {
        for (w, shape) in
            [("w1", vec![INNER, HIDDEN]), ("w2", vec![HIDDEN, INNER]), ("w3", vec![INNER, HIDDEN])]
        {
            let name = format!("model.layers.0.block_sparse_moe.experts.{e}.{w}.weight");
            tensors.push((name, shape));
        }
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let (start, bytes) = (end, 2 * shape.iter().product::<usize>());
        end += bytes;
        let info =
            serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, info);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = fs::File::create(dir.path().join("model.safetensors")).expect("creates");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("writes");
    file.write_all(header.as_bytes()).expect("writes");
    file.set_len((8 + header.len() + end) as u64).expect("makes a hole");
    dir
}

fn number_after(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).expect("reads");
    let line = text.lines().find_map(|l| l.strip_prefix(key)).expect("is there");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn a_large_file_costs_its_header() {
    let dir = large_model();
    for access in [Access::MemoryMap, Access::Read] {
        let bytes_read = || number_after("/proc/self/io", "rchar: ");
        let resident = || number_after("/proc/self/status", "VmRSS:") << 10;
        let before = (bytes_read(), resident());
        let checkpoint = Checkpoint::open_by(dir.path(), None, access).expect("opens");
        assert!(checkpoint.weight_bytes() > 4_900_000_000);
        assert_eq!(checkpoint.summary().top_k, 2);
        checkpoint.fingerprint().expect("reads the router");
        let read = bytes_read() - before.0;
        let grown = resident().saturating_sub(before.1);
        assert!(read < 1 << 20, "{access:?} read {read} bytes");
        assert!(grown < 32 << 20, "{access:?} took {grown} bytes of memory");
    }
}
