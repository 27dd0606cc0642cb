//! A header that nothing was changed in is written back byte for byte.

use std::{fs, path::Path};

use moeprune_core::{Dtype, GgmlType};
use moeprune_files::{Access, Files as _, LocalFiles};
use moeprune_gguf::{Entries, Header, NewTensor, Value, ValueType};
use proptest::prelude::*;

use crate::made::{Long, read};

fn assets() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/gguf")
}

#[test]
fn files_of_other_programs() {
    let files = LocalFiles::open(&assets(), Access::MemoryMap).unwrap();
    let check = |name: &str, tensors: usize, dtype: &str, bytes: u64| {
        let file = files.open(Path::new(name)).unwrap().unwrap();
        let header = Header::read(&*file).unwrap();
        let written = header.to_bytes();
        assert_eq!(*written, *file.read_at(0..written.len() as u64).unwrap(), "{name}");
        assert_eq!((header.data_start(), header.data_end()), (written.len() as u64, file.len()));
        assert_eq!(header.tensors().len(), tensors);
        let down = header.tensor("blk.1.ffn_down_exps.weight").unwrap();
        assert_eq!((down.dtype.to_string().as_str(), &down.shape[..]), (dtype, &[8, 128, 128][..]));
        assert_eq!(down.range.end - down.range.start, bytes);
        assert_eq!(header.entries().text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(header.entries().number("llama.expert_count").unwrap(), Some(8));
        assert_eq!(header.entries().texts("tokenizer.ggml.tokens").unwrap().unwrap().len(), 256);
    };
    check("mix32-MX.gguf", 33, "MXFP4", 8 * 128 * 4 * 17);
    check("mix32-iq4.gguf", 33, "IQ4_NL", 8 * 128 * 4 * 18);
}

/// Headers alone, of files that are not kept.
#[test]
fn headers_of_other_programs() {
    let check = |name: &str, length: u64, dtype: &str| {
        let bytes = fs::read(assets().join("headers").join(name)).unwrap();
        let header = Header::read(&Long(bytes.clone(), length)).unwrap();
        assert_eq!(header.to_bytes(), bytes, "{name}");
        assert_eq!(header.data_end(), length);
        assert_eq!(header.tensor("blk.2.ffn_up_exps.weight").unwrap().dtype.to_string(), dtype);
    };
    check("mix32-F32.gguf", 5_592_960, "F32");
    check("mix32-Q8_0.gguf", 2_127_744, "Q8_0");
    check("mix32-Q4_0.gguf", 1_537_920, "Q4_0");
}

#[test]
fn tensors_laid_out_as_ggml_does() {
    let files = LocalFiles::open(&assets(), Access::MemoryMap).unwrap();
    for name in ["mix32-MX.gguf", "mix32-iq4.gguf"] {
        let file = files.open(Path::new(name)).unwrap().unwrap();
        let header = Header::read(&*file).unwrap();
        let tensors = header.tensors().iter().cloned();
        let tensors = tensors.map(|tensor| NewTensor {
            name: tensor.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
        });
        let made = Header::new(header.version(), header.entries().clone(), tensors.collect());
        assert_eq!(made.unwrap(), header, "{name}");
    }
}

#[test]
fn long_vocabularies() {
    let tokens: Vec<String> = (0..150_000).map(|token| format!("token {token}")).collect();
    let tokens: Vec<Value<'_>> = tokens.iter().map(|t| Value::String(t.as_bytes())).collect();
    let mut entries = Entries::new();
    entries.push_array("tokens", ValueType::String, &tokens).unwrap();
    let header = Header::new(3, entries, vec![]).unwrap();
    let read = read(&header.to_bytes()).unwrap();
    assert_eq!(read, header);
    assert_eq!(read.entries().texts("tokens").unwrap().unwrap()[149_999], "token 149999");
}

fn value() -> impl Strategy<Value = (u32, Vec<u8>)> {
    let fixed = prop::sample::select(vec![(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4)]);
    let wide = prop::sample::select(vec![(7, 1), (10, 8), (11, 8), (12, 8)]);
    let fixed = prop_oneof![fixed, wide]
        .prop_flat_map(|(kind, bytes)| (Just(kind), prop::collection::vec(any::<u8>(), bytes)));
    let text = prop::collection::vec(any::<u8>(), 0..9)
        .prop_map(|text| (8, [&(text.len() as u64).to_le_bytes()[..], &text].concat()));
    let leaf = prop_oneof![fixed, text].boxed();
    leaf.prop_recursive(3, 24, 4, |inner| {
        // Values of one type: one value, repeated.
        (inner, 0..4_u64).prop_map(|((kind, bytes), count): ((u32, Vec<u8>), u64)| {
            let start = [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
            (9, [start, bytes.repeat(count as usize)].concat())
        })
    })
}

fn tensors() -> impl Strategy<Value = Vec<NewTensor>> {
    let plain = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I8, Dtype::I64];
    let types: Vec<Dtype> = plain.into_iter().chain(GgmlType::all().map(Dtype::Ggml)).collect();
    let tensor = (prop::sample::select(types), prop::collection::vec(0..4_usize, 0..3), 0..3_usize);
    prop::collection::btree_map(".{0,6}", tensor, 0..6).prop_map(|tensors| {
        let tensor = |(name, (dtype, mut shape, blocks)): (_, (Dtype, Vec<usize>, _))| {
            let block = match dtype {
                Dtype::Ggml(known) => known.block_elements(),
                _ => 5,
            };
            shape.push(blocks * block);
            NewTensor { name, dtype, shape }
        };
        tensors.into_iter().map(tensor).collect()
    })
}

proptest! {
    #[test]
    fn made_headers(
        version in 2..4_u32,
        keys in prop::collection::btree_map(".{0,9}", value(), 0..8),
        tensors in tensors(),
        alignment in prop::option::of(prop::sample::select(vec![8_u32, 32, 64, 4096])),
    ) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        let count = keys.len() as u64 + u64::from(alignment.is_some());
        bytes.extend(count.to_le_bytes());
        let push = |bytes: &mut Vec<u8>, key: &str, kind: u32, value: &[u8]| {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        };
        for (key, (kind, value)) in &keys {
            push(&mut bytes, key, *kind, value);
        }
        if let Some(alignment) = alignment {
            push(&mut bytes, "general.alignment", 4, &alignment.to_le_bytes());
        }
        let bare = read(&bytes).unwrap();
        prop_assert_eq!(&bare.to_bytes()[..bytes.len()], &bytes[..]);
        prop_assert_eq!(bare.entries().iter().count() as u64, count);

        let header = Header::new(version, bare.entries().clone(), tensors.clone()).unwrap();
        let mut file = header.to_bytes();
        file.resize(header.data_end() as usize, 1);
        let again = read(&file).unwrap();
        prop_assert_eq!(&again, &header);
        prop_assert_eq!(&again.to_bytes()[..], &file[..header.data_start() as usize]);
        for (made, read) in tensors.iter().zip(again.tensors()) {
            prop_assert_eq!((&made.name, made.dtype, &made.shape), (&read.name, read.dtype, &read.shape));
            prop_assert!(read.range.start.is_multiple_of(header.alignment()));
        }
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>, version in 0..5_u32, counts: [u8; 2]) {
        let mut file = b"GGUF".to_vec();
        file.extend(version.to_le_bytes());
        file.extend(u64::from(counts[0] % 4).to_le_bytes());
        file.extend(u64::from(counts[1] % 4).to_le_bytes());
        file.extend(bytes);
        if let Ok(header) = read(&file) {
            let written = header.to_bytes();
            let common = written.len().min(file.len());
            let padding = written.iter().rev().take_while(|&&byte| byte == 0).count();
            let same = common.min(written.len() - padding);
            prop_assert_eq!(&written[..same], &file[..same]);
        }
    }
}
