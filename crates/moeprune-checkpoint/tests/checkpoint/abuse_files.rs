//! Weight files and indices that are damaged or hostile.
//!
//! | no. | abuse | answer |
//! |---|---|---|
//! | 1 | a shard is missing | names shard and index |
//! | 2 | a shard is cut short | names shard, bytes expected and there |
//! | 3 | header length beyond any header | limit and length |
//! | 4 | header length past the end of the file | both lengths |
//! | 5 | header length zero; file shorter than a length | not a safetensors file |
//! | 6 | header that is no JSON, no UTF-8, no object, or begins with a space | says which |
//! | 7 | a name twice in a header | names it (other readers take the last silently) |
//! | 8 | overlaps, holes, bytes after the last tensor | names the tensor and its neighbour |
//! | 9 | shape and range that do not fit, sizes that overflow, parts of bytes | names the tensor |
//! | 10 | unknown type; metadata that is not text | names it |
//! | 11 | data at odd offsets | accepted: nothing is cast in place |
//! | 12 | index that names a tensor no shard has, or has it elsewhere, or leaves one out | both |
//! | 13 | index with `..`, folders, absolute paths | refused before anything is opened |
//! | 13 | index, config or shard of any size, with holes for bytes | limit, or where the tensors end |
//! | 14 | index that names a tensor twice, is no JSON, is empty | says which |
//! | 15 | a tensor in two shards | names both |
//! | 16 | shard or config linked out of the directory | refused, but for the Hugging Face cache |
//! | 16 | a shard, index, config or other file read that is a loop of links or a link to a folder | refused |
//! | 17 | single file and index both; neither | says what to do |
//! | 18 | no directory; a file in its place; a folder for a shard | says so |

use std::{fs, os::unix::fs::symlink};

use moeprune_checkpoint::{Checkpoint, Error};
use moeprune_core::Dtype;

use crate::fixture::{Model, RawTensor, check_refused, contents, parity, raw_file};

const SHARD: &str = "model-00002-of-00005.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Damages a sharded model and checks what opening it says.
#[track_caller]
fn check(damage: impl FnOnce(&Model), expected: &[&str]) {
    let model = Model::copy_of("mixtral_sharded");
    damage(&model);
    check_refused(model.open(), expected);
}

#[track_caller]
fn check_header(edit: impl Fn(&mut String, &mut Vec<u8>), expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.push(SHARD);
    check(|model| model.edit_weights(SHARD, edit), &expected);
}

/// Overwrites the first bytes of a shard.
#[track_caller]
fn check_bytes(bytes: &[u8], keep_rest: bool, expected: &[&str]) {
    let damage = |model: &Model| {
        let mut file = fs::read(model.path(SHARD)).expect("reads");
        file.splice(..bytes.len(), bytes.iter().copied());
        if !keep_rest {
            file.truncate(bytes.len());
        }
        fs::write(model.path(SHARD), file).expect("writes");
    };
    check(damage, expected);
}

#[test]
fn abuse_01_missing_shard() {
    check(
        |model| fs::remove_file(model.path(SHARD)).expect("removes"),
        &[SHARD, "is missing", INDEX, "download it again"],
    );
}

#[test]
fn abuse_02_truncated_shard() {
    check(
        |model| {
            let file = fs::File::options().write(true).open(model.path(SHARD)).expect("opens");
            file.set_len(100_000).expect("truncates");
        },
        &[
            SHARD,
            "is truncated: its header says that 222464 bytes of tensors follow, 97352 are there",
        ],
    );
}

#[test]
fn abuse_03_header_length_beyond_any() {
    check_bytes(&u64::MAX.to_le_bytes(), true, &[SHARD, "18446744073709551615", "100000000"]);
    check_bytes(&100_000_001_u64.to_le_bytes(), true, &[SHARD, "100000001"]);
}

#[test]
fn abuse_04_header_length_past_the_file() {
    check_bytes(
        &99_000_000_u64.to_le_bytes(),
        true,
        &[SHARD, "is truncated: its header ends at byte 99000008", "the file is 225112 bytes long"],
    );
}

#[test]
fn abuse_05_no_header() {
    check_bytes(&[0; 8], true, &[SHARD, "does not begin with `{`"]);
    check_bytes(&[0; 8], false, &[SHARD, "does not begin with `{`"]);
    check_bytes(&[0; 7], false, &[SHARD, "7 bytes long, too short"]);
    check_bytes(&[], false, &[SHARD, "is empty (0 bytes)"]);
}

#[test]
fn abuse_06_header_that_is_none() {
    check_header(|h, _| h.insert(0, ' '), &["does not begin with `{`"]);
    check_header(|h, _| *h = "[]".into(), &["does not begin with `{`"]);
    check_header(|h, _| h.truncate(100), &["header is not a JSON object"]);
    check_header(|h, _| h.push('}'), &["header is not a JSON object"]);
    check_header(|h, _| *h = format!("{{{}", "[".repeat(90_000)), &["header is not a JSON object"]);
    let mut bytes = 10_u64.to_le_bytes().to_vec();
    bytes.extend_from_slice(b"{\"\xff\xfe\": 1}");
    check_bytes(&bytes, true, &[SHARD, "header is not UTF-8"]);
}

#[test]
fn abuse_07_name_twice_in_a_header() {
    let name = "model.layers.0.block_sparse_moe.gate.weight";
    check_header(
        |h, _| {
            let start = h.find(&format!("\"{name}\"")).expect("is there");
            let end = start + h[start..].find('}').expect("closes") + 1;
            let again = format!(",{}}}", &h[start..end]);
            let close = h.rfind('}').expect("closes");
            h.replace_range(close.., &again);
        },
        &[name, "appears twice"],
    );
}

#[test]
fn abuse_08_tensors_that_do_not_cover_the_data() {
    check_header(
        |h, _| *h = h.replace("[12288,24576]", "[12280,24568]"),
        &[
            "overlaps tensor `model.layers.0.block_sparse_moe.experts.0.w3.weight`, which ends at 12288",
        ],
    );
    check_header(
        |h, _| *h = h.replace("[0,12288]", "[8,12296]"),
        &["range 8..12296 leaves a hole after the beginning, which ends at 0"],
    );
    check_header(|_, d| d.extend([0; 16]), &["has 16 bytes after its last tensor"]);
}

#[test]
fn abuse_09_sizes_that_cannot_be() {
    let name = "`model.layers.0.block_sparse_moe.experts.0.w3.weight`";
    let edit = |from: &'static str, to: &'static str| {
        move |h: &mut String, _: &mut Vec<u8>| *h = h.replacen(from, to, 1)
    };
    let check = |to, expected: &[&str]| check_header(edit("[96,64]", to), expected);
    check("[96,65]", &[name, "range 0..12288 takes 12480 bytes"]);
    check("[18446744073709551615,2]", &[name, "has no whole number of bytes"]);
    check("[18446744073709551616,2]", &[name, "invalid type"]);
    check("[-1,2]", &[name, "invalid value"]);
    check("[4294967296,4294967296,0]", &[name, "has no whole number of bytes"]);
    check("\"96\"", &[name, "invalid type"]);
    check_header(edit("[0,12288]", "[12288,0]"), &[name, "range 12288..0 leaves a hole"]);
    check_header(edit("[12288,24576]", "[12288,0]"), &["range 12288..0 ends before it begins"]);
    check_header(edit("[0,12288]", "[0,12288,1]"), &[name]);
    check_header(
        |h, _| *h = h.replacen("BF16", "F4", 1).replacen("[96,64]", "[3]", 1),
        &[name, "has no whole number of bytes"],
    );
}

#[test]
fn abuse_10_unknown_type_and_odd_metadata() {
    check_header(
        |h, _| *h = h.replacen("BF16", "BF17", 1),
        &["unknown variant `BF17`, expected one of `BOOL`"],
    );
    check_header(
        |h, _| *h = h.replace(r#"{"format":"pt"}"#, r#"{"format":1}"#),
        &["`__metadata__` must map strings to strings"],
    );
    check_header(
        |h, _| *h = h.replace(r#"{"format":"pt"}"#, r#"{"a":"1","a":"2"}"#),
        &["`__metadata__`", "`a` appears twice"],
    );
}

#[test]
fn abuse_11_odd_offsets_are_read() {
    let model = Model::copy_of("mixtral");
    let expected = model.open().expect("opens");
    let untouched = Model::copy_of("mixtral");
    let before = untouched.open().expect("opens");
    drop(expected);
    model.edit_tensors("model.safetensors", |tensors| {
        tensors.insert(
            0,
            RawTensor { name: "a".into(), dtype: "U8".into(), shape: vec![1], bytes: vec![9] },
        );
    });
    let shifted = model.open().expect("opens");
    for tensor in before.tensors() {
        let (a, b) = (before.tensor_by_name(&tensor.name), shifted.tensor_by_name(&tensor.name));
        let (a, b) = (a.expect("reads"), b.expect("reads"));
        assert_eq!(a, b);
        assert_eq!(a.to_f32().expect("decodes"), b.to_f32().expect("decodes"));
        assert_eq!(
            moeprune_checkpoint::count_zeros(&b).expect("counts"),
            moeprune_checkpoint::count_zeros(&a).expect("counts")
        );
    }
    let extra = shifted.tensor_by_name("a").expect("carried over");
    assert_eq!((extra.dtype(), extra.bytes()), (Dtype::U8, &[9][..]));
}

#[test]
fn abuse_12_index_that_disagrees_with_the_shards() {
    let index = |from: &'static str, to: &'static str| {
        move |model: &Model| model.edit_text(INDEX, |text| text.replace(from, to))
    };
    check(
        index("\"lm_head.weight\"", "\"lm_tail.weight\""),
        &[INDEX, "`lm_tail.weight` into model-00001-of-00005.safetensors, but no shard holds it"],
    );
    check(
        index(
            "\"lm_head.weight\": \"model-00001-of-00005.safetensors\"",
            "\"lm_head.weight\": \"model-00002-of-00005.safetensors\"",
        ),
        &[INDEX, "`lm_head.weight` into model-00002", "but it is in model-00001"],
    );
    check(
        index("    \"lm_head.weight\": \"model-00001-of-00005.safetensors\",\n", ""),
        &[INDEX, "does not name tensor `lm_head.weight`, which is in model-00001"],
    );
}

#[test]
fn abuse_13_index_that_leads_elsewhere() {
    for path in [
        "../model/x.safetensors",
        "/etc/passwd",
        "sub/x.safetensors",
        "..",
        ".",
        "",
        "a\\\\b",
        "./x",
    ] {
        check(
            |model| {
                model.edit_text(INDEX, |text| {
                    text.replacen("model-00001-of-00005.safetensors", path, 1)
                });
            },
            &[INDEX, "must lie in the model directory itself"],
        );
    }
}

/// Files with holes take no room on disk and any room in memory.
#[test]
fn abuse_13_files_too_large_to_be_read() {
    let enlarge = |file: &'static str| {
        move |model: &Model| {
            let file = fs::File::options().write(true).open(model.path(file)).expect("opens");
            file.set_len(1 << 40).expect("makes a hole");
        }
    };
    check(enlarge(INDEX), &[INDEX, "is larger than 100000000 bytes"]);
    check(enlarge("config.json"), &["config.json", "is larger than 16777216 bytes"]);
    check(enlarge(SHARD), &[SHARD, "bytes after its last tensor"]);
}

#[test]
fn abuse_14_index_that_is_none() {
    let write = |text: &'static str| {
        move |model: &Model| fs::write(model.path(INDEX), text).expect("writes")
    };
    check(write("{"), &[INDEX, "is not an index"]);
    check(write("[]"), &[INDEX, "is not an index"]);
    check(write("{}"), &[INDEX, "is not an index", "weight_map"]);
    check(write(r#"{"weight_map": {}}"#), &[INDEX, "names no tensors"]);
    check(write(r#"{"weight_map": {"a": 1}}"#), &[INDEX, "is not an index"]);
    check(write(r#"{"weight_map": {"a": "x", "a": "y"}}"#), &[INDEX, "`a` appears twice"]);
}

#[test]
fn abuse_15_tensor_in_two_shards() {
    check(
        |model| {
            let extra = RawTensor {
                name: "lm_head.weight".into(),
                dtype: "U8".into(),
                shape: vec![1],
                bytes: vec![0],
            };
            model.edit_tensors(SHARD, |tensors| tensors.push(extra.clone()));
        },
        &[SHARD, "`lm_head.weight` is also in model-00001-of-00005.safetensors"],
    );
}

#[test]
fn abuse_16_links_out_of_the_directory() {
    for file in [SHARD, INDEX, "config.json"] {
        check(
            |model| {
                let outside = model.root.path().join("outside");
                fs::rename(model.path(file), &outside).expect("moves");
                symlink(&outside, model.path(file)).expect("links");
            },
            &[file, "outside of the model directory", "copy or hard-link"],
        );
    }
    let inside = Model::copy_of("mixtral_sharded");
    fs::rename(inside.path(SHARD), inside.path("blob")).expect("moves");
    symlink("blob", inside.path(SHARD)).expect("links");
    inside.open().expect("a link within the directory is fine");

    let dangling = |model: &Model| {
        fs::remove_file(model.path(SHARD)).expect("removes");
        symlink("nowhere", model.path(SHARD)).expect("links");
    };
    check(dangling, &[SHARD, "which does not exist"]);
}

#[test]
fn abuse_16_links_in_a_circle_and_to_folders() {
    for file in [SHARD, INDEX, "config.json"] {
        let link_to = |target: &'static str| {
            move |model: &Model| {
                fs::remove_file(model.path(file)).expect("removes");
                fs::create_dir(model.path("folder")).expect("creates");
                symlink(target, model.path(file)).expect("links");
            }
        };
        check(link_to(file), &[file, "leads back to it"]);
        check(link_to("folder"), &[file, "is not a regular file"]);
        check(link_to("/"), &[file, "outside of the model directory"]);
        check(link_to("/dev/zero"), &[file, "outside of the model directory"]);
        check(link_to("../model-2/x"), &[file, "which does not exist"]);
    }
}

/// A file in a folder that is a link leads out as much as a file that is one.
#[test]
fn abuse_16_files_behind_linked_folders() {
    let model = Model::copy_of("mixtral_sharded");
    let outside = model.root.path().join("outside");
    fs::create_dir(&outside).expect("creates");
    fs::write(outside.join("secret.json"), "secret").expect("writes");
    symlink(&outside, model.path("sub")).expect("links");
    symlink("sub/secret.json", model.path("tokenizer.json")).expect("links");
    let source = model.open().expect("opens");
    let refused = ["is a link to", "outside of the model directory"];
    check_refused(source.read_file("sub/secret.json".as_ref(), 99), &refused);
    check_refused(source.read_file("tokenizer.json".as_ref(), 99), &refused);
    check_refused(source.read_file("../outside/secret.json".as_ref(), 99), &refused);
    check_refused(source.read_file(&outside.join("secret.json"), 99), &refused);
    assert_eq!(source.read_file("nothing".as_ref(), 99).expect("none"), None);
    let config = fs::read(model.path("config.json")).expect("reads");
    let most = config.len() as u64;
    check_refused(source.read_file("config.json".as_ref(), most - 1), &["is larger than"]);
    let read = source.read_file("config.json".as_ref(), most).expect("is there");
    assert_eq!(read, Some(config));
}

#[test]
fn abuse_16_the_generation_config_is_read_in_the_directory_only() {
    let model = Model::copy_of("mixtral_sharded");
    let file = "generation_config.json";
    model.open().expect("opens").eos_token_ids().expect("reads");
    fs::rename(model.path(file), model.root.path().join(file)).expect("moves");
    symlink(format!("../{file}"), model.path(file)).expect("links");
    check_refused(
        model.open().expect("opens").eos_token_ids(),
        &[file, "outside of the model directory"],
    );
}

#[test]
fn abuse_16_the_hugging_face_cache_is_no_abuse() {
    let model = Model::copy_of("mixtral_sharded");
    let cache = model.root.path().join("models--a--b");
    let (snapshot, blobs) = (cache.join("snapshots/0123"), cache.join("blobs"));
    fs::create_dir_all(&snapshot).expect("creates");
    fs::create_dir(&blobs).expect("creates");
    for (i, entry) in fs::read_dir(&model.dir).expect("lists").enumerate() {
        let entry = entry.expect("lists");
        fs::rename(entry.path(), blobs.join(i.to_string())).expect("moves");
        symlink(format!("../../blobs/{i}"), snapshot.join(entry.file_name())).expect("links");
    }
    let checkpoint = Checkpoint::open(&snapshot).expect("opens");
    assert_eq!(checkpoint.shard_files().count(), 5);
    let out = model.root.path().join("out");
    let directory =
        moeprune_checkpoint::OutputDirectory::create(&out, &checkpoint).expect("creates");
    let files = directory.copy_auxiliary(&checkpoint).expect("copies");
    assert_eq!(files.copied, [std::path::PathBuf::from("generation_config.json")]);
    let copied = directory.path().join("generation_config.json");
    assert!(copied.symlink_metadata().expect("is there").is_file());
}

#[test]
fn abuse_17_two_models_or_none() {
    check(
        |model| {
            let single = parity("mixtral").join("model.safetensors");
            fs::copy(single, model.path("model.safetensors")).expect("copies");
        },
        &["has both model.safetensors and model.safetensors.index.json"],
    );
    check(
        |model| {
            for file in contents(&model.dir).into_keys().filter(|file| file.contains("safetensors"))
            {
                fs::remove_file(model.path(&file)).expect("removes");
            }
        },
        &["has neither model.safetensors nor", "only safetensors and GGUF weights are read"],
    );
}

#[test]
fn abuse_18_no_directory() {
    let model = Model::copy_of("mixtral");
    let open = |name: &str| Checkpoint::open(&model.path(name));
    check_refused(open("nothing"), &["cannot open the model directory", "nothing"]);
    check_refused(open("model.safetensors"), &["model.safetensors", "is not a directory"]);
    check(
        |model| {
            fs::remove_file(model.path(SHARD)).expect("removes");
            fs::create_dir(model.path(SHARD)).expect("creates");
        },
        &[SHARD, "is not a regular file"],
    );
}

#[test]
fn a_file_of_nothing_is_no_model() {
    let model = Model::copy_of("mixtral");
    fs::write(model.path("model.safetensors"), raw_file(&[])).expect("writes");
    check_refused(model.open(), &["num_hidden_layers", "those of 0 decoder layers"]);
    assert!(matches!(model.open(), Err(Error::Config { .. })));
}

#[test]
fn a_pointer_of_git_lfs() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 7\n";
    check_bytes(pointer.as_bytes(), false, &[SHARD, "git-lfs pointer", "git lfs pull"]);
}
