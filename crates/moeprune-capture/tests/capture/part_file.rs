//! Parts of an observation on disk, and what they add up to.

use std::{fs, path::PathBuf};

use moeprune_capture::{
    Error, ObservationPart, PartHead, merge_parts, read_observation, read_part, write_part,
};
use moeprune_core::{
    AttentionProjection, CorpusTag, InputMoments, LinearId, PartOf, RoutingSums,
    observation::{ExactLayer, ExactSums, Statistics as _},
};
use safetensors::SafeTensors;
use tempfile::TempDir;

const BLOCKS: u64 = 6;

fn query() -> LinearId {
    LinearId::Attention(AttentionProjection::Query)
}

/// Sums over one token per block, whose square and gate weight are the block's number.
fn part(index: usize, of: usize) -> ObservationPart {
    let part = PartOf::new(index, of).unwrap();
    let mut inputs = ExactSums::new(InputMoments::new(2));
    let mut routing = ExactSums::new(RoutingSums::with_outputs(2, 1, 1));
    for block in part.range(BLOCKS as usize) {
        let open = inputs.open_mut();
        (open.tokens, open.calls) = (open.tokens + 1, open.calls + 1);
        open.sum_squares[1] += block as f64;
        inputs.close();
        let open = routing.open_mut();
        open.tokens += 1;
        open.counts[block % 2] += 1;
        open.gate_sums[block % 2] += block as f64;
        open.output_sums[block % 2] -= block as f64;
        routing.close();
    }
    let layer = ExactLayer { routing: Some(routing), inputs: [(query(), inputs)].into() };
    let corpus = CorpusTag {
        name: "text".into(),
        sha256: "12".repeat(32),
        samples: BLOCKS,
        sequence_len: 1,
        seed: 3,
        repeated: 1,
        read: None,
    };
    let head = PartHead { model_fingerprint: "abc".into(), corpus, part, compute: "f32".into() };
    ObservationPart { head, layers: vec![layer] }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, part: &ObservationPart) -> PathBuf {
        let number = fs::read_dir(self.0.path()).unwrap().count();
        let path = self
            .0
            .path()
            .join(format!("{number}-{}", part.head.part.to_string().replace('/', "-of-")));
        write_part(part, &path).unwrap();
        path
    }

    fn merge(&self, parts: &[ObservationPart]) -> Result<moeprune_core::Observation, String> {
        let paths: Vec<PathBuf> = parts.iter().map(|part| self.write(part)).collect();
        merge_parts(&paths)
            .map_err(|error| error.to_string().replace(self.0.path().to_str().unwrap(), ""))
    }
}

#[test]
fn the_file_is_as_documented() {
    let folder = Folder::new();
    let path = folder.write(&part(2, 3));
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let wide = tensors.tensor(&format!("layer.0.input.{}.sum_squares", query())).unwrap();
    assert_eq!((wide.dtype(), wide.shape()), (safetensors::Dtype::U64, &[2, 3][..]));
    // 2 + 3 is 5 · 2^112 units.
    let words: Vec<u64> =
        wide.data().as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect();
    assert_eq!(words, [0, 0, 0, 0, 5 << 48, 0]);
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().clone().unwrap();
    let of = |key: &str| metadata[key].as_str();
    assert_eq!(
        (of("format"), of("part"), of("blocks")),
        ("moeprune-observation-part", "2/3", "[2,4]")
    );
    assert_eq!(read_part(&path).unwrap(), part(2, 3));
}

#[test]
fn parts_of_any_numbers_add_up() {
    let folder = Folder::new();
    let check = |parts: &[ObservationPart]| {
        let merged = folder.merge(parts).unwrap();
        let layer = &merged.layers[0];
        assert_eq!(merged.corpora, [part(1, 1).head.corpus]);
        assert_eq!(
            layer.inputs[&query()],
            InputMoments { tokens: 6, calls: 6, sum_squares: vec![0.0, 15.0] }
        );
        let routing = layer.routing.as_ref().unwrap();
        assert_eq!((routing.tokens, &routing.counts[..]), (6, &[3, 3][..]));
        assert_eq!(
            (&routing.gate_sums[..], &routing.output_sums[..]),
            (&[6.0, 9.0][..], &[-6.0, -9.0][..])
        );
    };
    check(&[part(1, 1)]);
    check(&[part(2, 2), part(1, 2)]);
    check(&[part(1, 2), part(5, 6), part(4, 6), part(6, 6)]);
    // Of 8 parts of 6 blocks two are empty, and may be there or not.
    let all: Vec<_> = (1..=8).map(|index| part(index, 8)).collect();
    check(&all);
    let some: Vec<_> = all.into_iter().filter(|part| !part.head.blocks().is_empty()).collect();
    assert_eq!(some.len(), 6);
    check(&some);
}

#[test]
fn what_does_not_make_a_whole_is_refused_by_name() {
    let folder = Folder::new();
    let check = |parts: &[ObservationPart], expected: &str| {
        let error = folder.merge(parts).unwrap_err();
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    };
    check(&[], "no part of an observation");
    check(&[part(1, 3)], "missing: part 2/3 (blocks 3 to 4), part 3/3 (blocks 5 to 6)");
    check(&[part(3, 3), part(1, 3)], "missing: part 2/3 (blocks 3 to 4);");
    check(&[part(1, 3), part(2, 2)], "missing: blocks 3 to 3;");
    check(&[part(1, 2), part(2, 2), part(2, 2)], "part 2/2, are both of blocks 4 to 6");
    check(&[part(1, 2), part(2, 3), part(3, 3)], "part 2/3, are both of blocks 3 to 3");
    let other = |change: fn(&mut ObservationPart)| {
        let mut other = part(2, 2);
        change(&mut other);
        [part(1, 2), other]
    };
    check(&other(|p| p.head.model_fingerprint = "abd".into()), "its model is abd, not abc");
    check(&other(|p| p.head.corpus.seed = 4), "its seed is 4, not 3");
    check(
        &other(|p| p.head.corpus.sha256 = "ab".repeat(32)),
        "its text is text with SHA-256 abababababab",
    );
    check(&other(|p| p.head.corpus.sequence_len = 2), "its length of blocks is 2, not 1");
    check(&other(|p| p.head.compute = "bf16".into()), "its type is bf16, not f32");
    check(&other(|p| p.layers.clear()), "its number of layers is 0, not 1");
    check(&other(|p| p.layers[0].routing = None), "layer 0 does not add up");
    let moments = ExactSums::new(InputMoments::new(3));
    let mut longer = part(2, 2);
    longer.layers[0].inputs.insert(query(), moments);
    check(&[part(1, 2), longer], "layer 0 does not add up");
}

/// A bit of a sum that has changed since makes a sum of another value.
#[test]
fn changed_bits_are_found() {
    let folder = Folder::new();
    let (path, other) = (folder.write(&part(1, 2)), folder.write(&part(2, 2)));
    let bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    for at in header..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        fs::write(&path, &changed).unwrap();
        let error = merge_parts(&[&path, &other]).unwrap_err().to_string();
        assert!(error.contains("are not those that were written"), "byte {at}: {error}");
    }
    fs::write(&path, &bytes).unwrap();
    let error = merge_parts(&[&path, &other, &path]).unwrap_err().to_string();
    assert!(error.contains("is given twice"), "{error}");
}

#[test]
fn a_part_is_no_observation_and_the_other_way_round() {
    let folder = Folder::new();
    let path = folder.write(&part(1, 2));
    let error = read_observation(&path).unwrap_err().to_string();
    assert!(
        error.contains("it is part 1/2 of an observation") && error.contains("moeprune merge"),
        "{error}"
    );
    let whole = folder.0.path().join("whole");
    moeprune_capture::write_observation(&super::observation_file::small(), &whole).unwrap();
    let error = read_part(&whole).unwrap_err().to_string();
    assert!(error.contains("a whole observation, not a part"), "{error}");
}

/// Each byte of the header and each length.
#[test]
fn broken_files_are_errors() {
    let folder = Folder::new();
    let path = folder.write(&part(1, 2));
    let bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    for length in (0..bytes.len()).step_by(7) {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(read_part(&path).is_err(), "cut to {length}");
    }
    for at in 0..header {
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        fs::write(&path, &broken).unwrap();
        // It may be another part, but is read without a panic.
        let _ = merge_parts(&[&path]);
    }
    let gate_sums = RoutingSums::ROWS.iter().position(|row| row.name == "gate_sums").unwrap();
    assert_eq!(part(1, 2).layers[0].routing.as_ref().unwrap().closed(gate_sums).len(), 2);
}

/// A sum that is negative where none can be.
#[test]
fn impossible_sums_are_refused() {
    let folder = Folder::new();
    let mut negative = part(1, 1);
    let moments = negative.layers[0].inputs.get_mut(&query()).unwrap();
    moments.open_mut().sum_squares[0] = -2.0;
    moments.close();
    let error = read_part(folder.write(&negative)).unwrap_err();
    assert!(matches!(error, Error::ObservationTensor { .. }), "{error}");
    let mut idle = part(1, 1);
    idle.layers[0].inputs.get_mut(&query()).unwrap().open_mut().tokens = 0;
    let error = read_part(folder.write(&idle)).unwrap_err();
    assert!(matches!(error, Error::ObservationTensor { .. }), "{error}");
}
