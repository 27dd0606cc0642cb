//! Files of the public converter, cut: the bytes that it makes of the model without these experts.

use std::{fs, path::PathBuf};

use moeprune::checkpoint::{Checkpoint, verify};
use sha2::{Digest, Sha256};

use crate::cut::keep;

pub(crate) fn assets() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../assets/gguf")
}

/// A model of three layers of eight experts, two of which go in each layer.
pub(crate) const KEPT: [(usize, &[usize]); 3] =
    [(0, &[0, 2, 3, 5, 6, 7]), (1, &[0, 1, 2, 3, 4, 5]), (2, &[0, 1, 2, 3, 5, 6])];

#[track_caller]
fn check(file: &str, expected: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let (source, out) = (assets().join(file), scratch.path().join("out.gguf"));
    keep(&source, &out, &KEPT).unwrap();
    let hash = Sha256::digest(fs::read(&out).unwrap());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, expected, "{file}");
    let report = verify(&out, &Checkpoint::open(&source).unwrap(), None).unwrap();
    assert!(report.passed(), "{:?}", report.failures().collect::<Vec<_>>());
}

#[test]
fn equal_what_the_converter_makes() {
    check("mix32-MX.gguf", "81dbffff3428476af4c4bcc6949640c6566933d018c7231ff27cdb6b29810bd3");
    check("mix32-iq4.gguf", "cec06994ddb8f33fa3247f27ccbad5015825cf8e3ed06e341ca16100e085532c");
}
