//! The same bytes with any number of threads.

use std::{path::Path, process::Command};

use crate::{
    command::{CALIBRATION, Scratch},
    resume::contents,
};

/// Prunes the embedded model, which is large enough for its products and masks to be divided
/// among threads.
fn prune(scratch: &Scratch, threads: usize, out: &str) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano");
    let output = Command::new(env!("CARGO_BIN_EXE_moeprune"))
        .arg("prune")
        .arg(model)
        .arg(out)
        .args(CALIBRATION.split_whitespace())
        .env("RAYON_NUM_THREADS", threads.to_string())
        .current_dir(scratch.path("."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn threads_and_repetition_change_no_byte() {
    let scratch = Scratch::new("arctic");
    prune(&scratch, 1, "one");
    let one = contents(&scratch.path("one"));
    for (threads, out) in [(1, "again"), (2, "two"), (8, "eight")] {
        prune(&scratch, threads, out);
        assert!(contents(&scratch.path(out)) == one, "{threads} threads");
    }
}
