//! Imatrix files: what llama-imatrix wrote, and what it would not write.

use std::{collections::BTreeMap, fs, path::Path};

use moeprune_core::Dtype;
use moeprune_files::{Files as _, MemoryFiles};
use moeprune_gguf::{
    Entries, Header, NewTensor, Value,
    imatrix::{ExpertCut, Imatrix, Tally, cut_experts},
};
use proptest::prelude::*;

fn asset(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf/imatrix");
    fs::read(folder.join(name)).unwrap()
}

fn read(bytes: &[u8]) -> Result<Imatrix, String> {
    let mut files = MemoryFiles::new("test");
    files.insert("file", bytes);
    let file = files.open(Path::new("file")).unwrap().unwrap();
    Imatrix::read(&*file).map_err(|error| error.to_string())
}

fn cut(bytes: &[u8], cuts: &[(usize, usize, &[usize])]) -> Result<Vec<u8>, String> {
    let mut files = MemoryFiles::new("test");
    files.insert("file", bytes);
    let file = files.open(Path::new("file")).unwrap().unwrap();
    let cuts: BTreeMap<usize, ExpertCut> = cuts
        .iter()
        .map(|&(layer, experts, kept)| (layer, ExpertCut { experts, kept: kept.to_vec() }))
        .collect();
    let mut out = Vec::new();
    cut_experts(&*file, &cuts, &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

#[test]
fn what_llama_imatrix_wrote() {
    let imatrix = read(&asset("im.gguf")).unwrap();
    assert_eq!(imatrix.datasets, ["im.txt"]);
    assert_eq!((imatrix.chunk_count, imatrix.chunk_size), (Some(64), Some(128)));
    assert_eq!(imatrix.entries.len(), 24);
    let query = &imatrix.entries["blk.0.attn_q.weight"];
    assert_eq!((query.matrices, query.inputs, query.sums.len()), (1, 128, 128));
    assert_eq!(query.tally, Tally::Tokens(vec![8192]));
    let down = &imatrix.entries["blk.0.ffn_down_exps.weight"];
    assert_eq!((down.matrices, down.inputs, down.sums.len()), (8, 128, 1024));
    let counts = vec![597, 279, 5327, 372, 626, 2060, 4333, 2790];
    assert_eq!(down.tally, Tally::Tokens(counts));
}

#[test]
fn what_it_wrote_in_the_older_form() {
    let (old, new) = (read(&asset("im.dat")).unwrap(), read(&asset("im.gguf")).unwrap());
    assert_eq!((old.datasets.as_slice(), old.chunk_count), (&["im.txt".to_owned()][..], Some(64)));
    assert!(!old.counts_tokens() && new.counts_tokens());
    assert!(old.entries.keys().eq(new.entries.keys()));
    let down = &old.entries["blk.0.ffn_down_exps.weight"];
    assert_eq!((down.matrices, down.inputs), (1, 1024));
    // 5327 tokens of the busiest expert, in chunks of 128.
    assert_eq!(down.tally, Tally::Calls(42));
}

/// A file of the older form: entries of a name, calls and values, then what follows.
fn dat(entries: &[(&[u8], i32, &[f32])], rest: &[u8]) -> Vec<u8> {
    let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, calls, values) in entries {
        bytes.extend((name.len() as i32).to_le_bytes());
        bytes.extend(*name);
        bytes.extend(calls.to_le_bytes());
        bytes.extend((values.len() as i32).to_le_bytes());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    bytes.extend(rest);
    bytes
}

#[test]
fn damage_to_the_older_form_is_named() {
    let check = |bytes: &[u8], expected: &str| {
        let error = read(bytes).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    };
    let good = dat(&[(b"a", 2, &[1.0, 4.0])], b"");
    assert_eq!(read(&good).unwrap().entries["a"].sums, [1.0, 4.0]);
    check(b"", "it has 0 bytes");
    check(b"abc", "it has 3 bytes");
    check(&dat(&[], b""), "neither `GGUF` nor a number of entries (0)");
    check(&(-1_i32).to_le_bytes(), "neither `GGUF` nor a number of entries (-1)");
    check(&i32::MAX.to_le_bytes(), "entry 0: expected 4 bytes, got 0");
    check(&good[..good.len() - 1], "a: expected 8 bytes, got 7");
    check(&good[..9], "a: expected 4 bytes, got 0");
    check(&dat(&[(b"", 1, &[1.0])], b""), "entry 0: expected the name of a tensor, got an empty");
    check(&dat(&[(b"\xff", 1, &[1.0])], b""), "entry 0: expected a name in UTF-8");
    check(&dat(&[(&[b'a'; 1025], 1, &[1.0])], b""), "expected a name of at most 1024 bytes");
    check(&dat(&[(b"a", 0, &[1.0])], b""), "`a`: expected at least one call, got 0");
    check(&dat(&[(b"a", 1, &[])], b""), "`a`: expected at least one value, got 0");
    check(&dat(&[(b"a", 1, &[f32::NAN])], b""), "none negative, got NaN at 0");
    check(&dat(&[(b"a", 1, &[0.0, -1.0])], b""), "none negative, got -1 at 1");
    check(&dat(&[(b"a", 1, &[0.0]), (b"a", 1, &[0.0])], b""), "`a`: expected one entry, got two");
    check(&dat(&[(b"a", 1, &[0.0])], b"\x01\0\0\0\x01\0\0\0xy"), "expected the end, got 1 bytes");
    check(&dat(&[(b"a", 1, &[0.0])], b"\x01\0"), "the number of chunks: expected 4 bytes, got 2");
    // A number of values that is far beyond the file takes no memory.
    let mut many = dat(&[(b"a", 1, &[0.0])], b"");
    many[13..17].copy_from_slice(&i32::MAX.to_le_bytes());
    check(&many, "a: expected 8589934588 bytes, got 4");
}

/// A file of the GGUF form, with tensors of F32 values.
fn gguf(kind: Option<&str>, tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let mut entries = Entries::new();
    if let Some(kind) = kind {
        entries.push("general.type", Value::String(kind.as_bytes())).unwrap();
    }
    let new = |&(name, shape, _): &(&str, &[usize], _)| NewTensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let header = Header::new(3, entries, tensors.iter().map(new).collect()).unwrap();
    let mut bytes = header.to_bytes();
    for (tensor, (_, _, values)) in header.tensors().iter().zip(tensors) {
        bytes.resize(tensor.range.start as usize, 0);
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    bytes.resize(header.data_end() as usize, 0);
    bytes
}

#[test]
fn damage_to_the_gguf_form_is_named() {
    let check = |tensors: &[(&str, &[usize], &[f32])], expected: &str| {
        let error = read(&gguf(Some("imatrix"), tensors)).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    };
    let sums: (&str, &[usize], &[f32]) = ("a.in_sum2", &[2, 1], &[1.0, 2.0]);
    let counts: (&str, &[usize], &[f32]) = ("a.counts", &[2, 1], &[3.0, 0.0]);
    let good = read(&gguf(Some("imatrix"), &[sums, counts])).unwrap();
    assert_eq!(good.entries["a"].tally, Tally::Tokens(vec![3, 0]));
    for (kind, expected) in [(Some("model"), "`general.type` is `model`"), (None, "without")] {
        let error = read(&gguf(kind, &[sums, counts])).unwrap_err();
        assert!(error.starts_with("it is no imatrix") && error.contains(expected), "{error}");
    }
    check(&[], "no tensor's name ends in `.in_sum2`");
    check(&[sums], "`a.counts`: expected a tensor, got none");
    check(&[counts], "`a.in_sum2`: expected a tensor, got none");
    check(
        &[sums, ("a.counts", &[1], &[3.0])],
        "expected 2 counts, one per row of `a.in_sum2`, got 1",
    );
    check(&[sums, ("a.counts", &[2], &[3.0, 3.0])], "expected shape [2, 1], a count per matrix");
    check(&[sums, ("a.counts", &[2, 1], &[3.5, 0.0])], "expected whole numbers of tokens, got 3.5");
    check(&[sums, ("a.counts", &[2, 1], &[-1.0, 0.0])], "whole numbers of tokens, got -1");
    check(&[sums, ("a.counts", &[2, 1], &[f32::INFINITY, 0.0])], "tokens, got inf");
    check(&[("a.in_sum2", &[2, 1], &[1.0, f32::NAN]), counts], "none negative, got NaN at 1");
    check(&[("a.in_sum2", &[1, 1, 1], &[1.0]), counts], "got shape [1, 1, 1]");
    let cut_short = &gguf(Some("imatrix"), &[sums, counts])[..150];
    assert!(read(cut_short).is_err());
}

proptest! {
    /// A changed byte or a cut is an error or another imatrix, never a panic.
    #[test]
    fn damage_never_panics(at: prop::sample::Index, to: u8, cut in prop::option::of(any::<prop::sample::Index>())) {
        let sums: (&str, &[usize], &[f32]) = ("blk.0.a_exps.weight.in_sum2", &[2, 1], &[1.0, 2.0]);
        let counts: (&str, &[usize], &[f32]) = ("blk.0.a_exps.weight.counts", &[2, 1], &[3.0, 0.0]);
        let old = dat(&[(b"a", 2, &[1.0, 4.0]), (b"b", 1, &[0.5])], b"\x01\0\0\0\x01\0\0\0x");
        for mut bytes in [old, gguf(Some("imatrix"), &[sums, counts])] {
            let place = at.index(bytes.len());
            bytes[place] = to;
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _ = read(&bytes);
            let _ = self::cut(&bytes, &[(0, 2, &[1])]);
        }
    }
}

#[test]
fn nothing_cut_is_the_same_file() {
    assert!(cut(&asset("im.gguf"), &[]).unwrap() == asset("im.gguf"));
}

#[test]
fn a_cut_imatrix_has_the_kept_experts() {
    let kept: [&[usize]; 3] = [&[0, 2, 3, 5, 6, 7], &[0, 1, 2, 3, 4, 5], &[7, 1]];
    let cuts: Vec<(usize, usize, &[usize])> =
        kept.iter().enumerate().map(|(layer, kept)| (layer, 8, *kept)).collect();
    let (whole, bytes) = (read(&asset("im.gguf")).unwrap(), cut(&asset("im.gguf"), &cuts).unwrap());
    let cut = read(&bytes).unwrap();
    assert_eq!(cut.datasets, whole.datasets);
    assert_eq!(cut.entries.len(), whole.entries.len());
    for (name, entry) in &cut.entries {
        let before = &whole.entries[name];
        let layer: usize = name.split('.').nth(1).unwrap().parse().unwrap();
        let all = [0];
        let rows = if name.contains("_exps.") { kept[layer] } else { &all[..] };
        let expected: Vec<f32> = rows
            .iter()
            .flat_map(|&row| &before.sums[row * before.inputs..(row + 1) * before.inputs])
            .copied()
            .collect();
        assert_eq!(entry.sums, expected, "{name}");
        let (Tally::Tokens(after), Tally::Tokens(before)) = (&entry.tally, &before.tally) else {
            panic!("{name} has no tokens")
        };
        let expected: Vec<u64> = rows.iter().map(|&row| before[row]).collect();
        assert_eq!(after, &expected, "{name}");
    }
    // Sums that are not read here are cut too, and what is of all experts is left out.
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(has(b"blk.0.ffn_down_exps.weight.in_sum") && has(b"blk.0.attn_q.weight.stats"));
    assert!(!has(b"blk.0.ffn_down_exps.weight.stats"));
}

#[test]
fn cuts_that_do_not_fit_are_named() {
    let check = |cuts: &[(usize, usize, &[usize])], expected: &str| {
        let error = cut(&asset("im.gguf"), cuts).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    };
    check(&[(1, 16, &[0])], "blk.1.ffn_down_exps.weight.in_sum2`: expected a row for each of 16");
    check(&[(1, 8, &[8])], "expected experts below 8 to keep, got 8");
    check(&[(1, 8, &[])], "expected an expert that stays, got none");
    let error = cut(&asset("im.dat"), &[]).unwrap_err();
    assert!(error.contains("older form"), "{error}");
}
