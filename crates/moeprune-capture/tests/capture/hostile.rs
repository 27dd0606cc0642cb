//! Broken observation files, by accident or not.

use std::fs;

use moeprune_capture::{read_observation, write_observation};
use proptest::prelude::*;

use crate::observation_file::small;

fn small_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("observation");
    write_observation(&small(), &path).unwrap();
    fs::read(path).unwrap()
}

fn read(bytes: &[u8]) -> Result<moeprune_core::Observation, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("observation");
    fs::write(&path, bytes).unwrap();
    read_observation(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "FILE"))
}

/// The file with its header changed, its length kept right.
fn with_header(edit: impl Fn(&str) -> String) -> Vec<u8> {
    let bytes = small_bytes();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let edited = edit(header);
    assert_ne!(edited, header);
    [&(edited.len() as u64).to_le_bytes(), edited.as_bytes(), &bytes[8 + length..]].concat()
}

fn replaced(from: &str, to: &str) -> Vec<u8> {
    with_header(|header| header.replacen(from, to, 1))
}

/// The file with eight bytes of a tensor changed.
fn with_value(tensor: &str, index: usize, value: [u8; 8]) -> Vec<u8> {
    let mut bytes = small_bytes();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let begin = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let at = 8 + length + begin + 8 * index;
    bytes[at..at + 8].copy_from_slice(&value);
    bytes
}

#[test]
fn broken_headers_are_refused() {
    let whole = small_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("not safetensors", b"{\"text\": \"this is something else\"}".to_vec()),
        ("endless header", [&u64::MAX.to_le_bytes(), &whole[8..]].concat()),
        ("header cut", whole[..100].to_vec()),
        ("data cut", whole[..whole.len() - 8].to_vec()),
        ("bytes left", [&whole[..], &[0; 8]].concat()),
        ("header of spaces", with_header(|header| format!(" {header}"))),
        ("another file", replaced("moeprune-observation", "pt")),
        ("no metadata", replaced("__metadata__", "metadata")),
        ("version", replaced("\"version\":\"1\"", "\"version\":\"2\"")),
        ("no fingerprint", replaced("model_fingerprint", "fingerprint")),
        ("corpora", replaced("\"corpora\":\"[", "\"corpora\":\"")),
        ("endless layers", replaced("\"layers\":\"2\"", "\"layers\":\"18446744073709551615\"")),
        ("negative layers", replaced("\"layers\":\"2\"", "\"layers\":\"-1\"")),
        ("a layer too many", replaced("\"layers\":\"2\"", "\"layers\":\"1\"")),
        ("unknown tensor", replaced("routing.counts", "routing.count")),
        ("unknown site", replaced("expert.2.down", "expert.2.sideways")),
        ("another spelling", replaced("expert.2.down", "expert.02.down")),
        ("twice", replaced("layer.1.routing.output_norms", "layer.1.routing.gate_sums")),
        ("missing", replaced("layer.1.routing.gate_sums", "layer.0.routing.gate_sums")),
        ("no input site", replaced("input.attention.query", "input.attention.key")),
        ("type", replaced("\"dtype\":\"F64\"", "\"dtype\":\"U64\"")),
        ("unknown type", replaced("\"dtype\":\"F64\"", "\"dtype\":\"F999\"")),
        ("shape", replaced("\"shape\":[3]", "\"shape\":[4]")),
        ("no dimension", replaced("\"shape\":[3]", "\"shape\":[3,1]")),
        ("endless shape", replaced("\"shape\":[3,3]", "\"shape\":[4294967296,4294967296]")),
        ("negative shape", replaced("\"shape\":[3]", "\"shape\":[-3]")),
        ("outside", replaced("[0,8]", "[0,9223372036854775807]")),
        ("backwards", replaced("[8,16]", "[16,8]")),
        ("overlap", replaced("[8,16]", "[0,8]")),
        ("more keys", replaced("\"dtype\":", "\"scale\":1,\"dtype\":")),
    ];
    let found: Vec<String> =
        cases.iter().map(|(what, bytes)| format!("{what}: {}", read(bytes).unwrap_err())).collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    empty: FILE is not an observation that can be read: it has 0 bytes, fewer than a safetensors file
    not safetensors: FILE is not an observation that can be read: its header would have 4189038663854989947 bytes where 26 are left; it is cut short or not a safetensors file
    endless header: FILE is not an observation that can be read: its header would have 18446744073709551615 bytes where 2272 are left; it is cut short or not a safetensors file
    header cut: FILE is not an observation that can be read: its header would have 1960 bytes where 92 are left; it is cut short or not a safetensors file
    data cut: FILE: tensor `layer.1.input.expert.10.down.sum_squares`: expected bytes within the 304 of the file, got bytes 304 to 312: the file is cut short or broken
    bytes left: FILE is not an observation that can be read: 8 bytes follow its last tensor
    header of spaces: FILE is not an observation that can be read: its header is not a JSON object; it is not a safetensors file
    another file: FILE is not an observation that can be read: it is a safetensors file of something else: its metadata says format `pt`, expected `moeprune-observation`
    no metadata: FILE is not an observation that can be read: its header is broken: unknown field `format`, expected one of `dtype`, `shape`, `data_offsets` at line 1 column 21
    version: FILE is not an observation that can be read: it is of version 2 and this program reads version 1; observe the model again, or use the program that wrote it
    no fingerprint: FILE is not an observation that can be read: its metadata has no `model_fingerprint`
    corpora: FILE is not an observation that can be read: its `corpora` are broken: invalid type: map, expected a sequence at line 1 column 0
    endless layers: FILE is not an observation that can be read: it cannot have `18446744073709551615` layers
    negative layers: FILE is not an observation that can be read: it cannot have `-1` layers
    a layer too many: FILE is not an observation that can be read: it has an unknown tensor `layer.1.routing.tokens`
    unknown tensor: FILE is not an observation that can be read: it has an unknown tensor `layer.1.routing.count`
    unknown site: FILE is not an observation that can be read: it has an unknown tensor `layer.1.input.expert.2.sideways.tokens`
    another spelling: FILE is not an observation that can be read: it has an unknown tensor `layer.1.input.expert.02.down.tokens`
    twice: FILE: tensor `layer.1.routing.gate_sums`: expected each name once, got it twice
    missing: FILE: tensor `layer.0.routing.counts`: expected a tensor, as others of its group are there, got none
    no input site: FILE: tensor `layer.0.input.attention.query.tokens`: expected a tensor, as others of its group are there, got none
    type: FILE: tensor `layer.0.input.attention.query.sum_squares`: expected F64 of shape [3], got U64 of shape [3]
    unknown type: FILE: tensor `layer.0.input.attention.query.sum_squares`: expected F64 of shape [3], got F999 of shape [3]
    shape: FILE: tensor `layer.0.input.attention.query.sum_squares`: expected eight bytes per value of shape [4], got 24 bytes
    no dimension: FILE: tensor `layer.0.input.attention.query.sum_squares`: expected one dimension, got shape [3, 1]
    endless shape: FILE: tensor `layer.1.routing.coactivation`: expected eight bytes per value of shape [4294967296, 4294967296], got 72 bytes
    negative shape: FILE is not an observation that can be read: its header is broken: invalid value: integer `-3`, expected u64 at line 1 column 540
    outside: FILE: tensor `layer.0.input.attention.query.tokens`: expected bytes within the 312 of the file, got bytes 0 to 9223372036854775807: the file is cut short or broken
    backwards: FILE: tensor `layer.0.input.attention.query.calls`: expected bytes within the 312 of the file, got bytes 16 to 8: the file is cut short or broken
    overlap: FILE is not an observation that can be read: its tensors overlap or leave a hole at byte 0
    more keys: FILE is not an observation that can be read: its header is broken: unknown field `scale`, expected one of `dtype`, `shape`, `data_offsets` at line 1 column 343
    "#);
}

#[test]
fn impossible_values_are_refused() {
    let count = u64::to_le_bytes;
    let sum = f64::to_le_bytes;
    let routing = |field: &str| format!("layer.1.routing.{field}");
    let input = |field: &str| format!("layer.1.input.expert.2.down.{field}");
    let idle = |field: &str| format!("layer.1.input.expert.10.down.{field}");
    let cases = [
        (routing("tokens"), 0, count(6)),
        (routing("tokens"), 0, count(u64::MAX)),
        (routing("top_k"), 0, count(1)),
        (routing("top_k"), 0, count(4)),
        (routing("top_k"), 0, count(u64::MAX)),
        (routing("counts"), 0, count(3)),
        (routing("counts"), 2, count(6)),
        (routing("coactivation"), 0, count(1)),
        (routing("coactivation"), 1, count(3)),
        (routing("coactivation"), 1, count(u64::MAX)),
        (routing("gate_sums"), 1, sum(f64::NAN)),
        (routing("gated_output_norms"), 1, sum(f64::INFINITY)),
        (routing("output_norms"), 1, sum(-1.0)),
        (input("tokens"), 0, count(0)),
        (input("tokens"), 0, count(u64::MAX)),
        (input("calls"), 0, count(2)),
        (input("sum_squares"), 0, sum(f64::NAN)),
        (input("sum_squares"), 0, sum(-0.5)),
        (idle("calls"), 0, count(1)),
        (idle("sum_squares"), 0, sum(1.0)),
    ];
    let found: Vec<String> = cases
        .iter()
        .map(|(tensor, index, value)| read(&with_value(tensor, *index, *value)).unwrap_err())
        .collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    FILE: tensor `layer.1.routing.counts`: expected a sum of 6 · 2, got 10
    FILE: tensor `layer.1.routing.tokens`: expected at most 281474976710656, got 18446744073709551615
    FILE: tensor `layer.1.routing.counts`: expected a sum of 5 · 1, got 10
    FILE: tensor `layer.1.routing.top_k`: expected at most 3, the number of experts, got 4
    FILE: tensor `layer.1.routing.top_k`: expected at most 3, the number of experts, got 18446744073709551615
    FILE: tensor `layer.1.routing.coactivation`: expected at most 3, as often as chosen, got 4 for experts 1 and 0
    FILE: tensor `layer.1.routing.counts`: expected at most 5, the tokens, got 6
    FILE: tensor `layer.1.routing.coactivation`: expected a zero diagonal, got 1 at 0
    FILE: tensor `layer.1.routing.coactivation`: expected a symmetric matrix, got 4 and 3 for experts 1 and 0
    FILE: tensor `layer.1.routing.coactivation`: expected a symmetric matrix, got 4 and 18446744073709551615 for experts 1 and 0
    FILE: tensor `layer.1.routing.gate_sums`: expected finite values, none negative, got NaN at 1
    FILE: tensor `layer.1.routing.gated_output_norms`: expected finite values, none negative, got inf at 1
    FILE: tensor `layer.1.routing.output_norms`: expected finite values, none negative, got -1 at 1
    FILE: tensor `layer.1.input.expert.2.down.calls`: expected at most 0, the tokens, got 1
    FILE: tensor `layer.1.input.expert.2.down.tokens`: expected at most 281474976710656, got 18446744073709551615
    FILE: tensor `layer.1.input.expert.2.down.calls`: expected at most 1, the tokens, got 2
    FILE: tensor `layer.1.input.expert.2.down.sum_squares`: expected finite values, none negative, got NaN at 0
    FILE: tensor `layer.1.input.expert.2.down.sum_squares`: expected finite values, none negative, got -0.5 at 0
    FILE: tensor `layer.1.input.expert.10.down.calls`: expected at most 0, the tokens, got 1
    FILE: tensor `layer.1.input.expert.10.down.sum_squares`: expected zeros, as no token came, got 1
    "#);
}

#[test]
fn a_missing_file_is_named() {
    let error = read_observation("no/such/file").unwrap_err().to_string();
    assert!(error.starts_with("cannot read no/such/file: "), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A flipped byte or a cut is an error or another valid observation, never a panic.
    #[test]
    fn damage_never_panics(at: prop::sample::Index, to: u8, cut in prop::option::of(any::<prop::sample::Index>())) {
        let mut bytes = small_bytes();
        let place = at.index(bytes.len());
        bytes[place] = to;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read(&bytes);
    }
}
