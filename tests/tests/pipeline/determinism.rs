//! The same bytes, however many threads there are.

use std::{fs, path::Path};

use crate::scratch::{asset, recipe, run, tokens};

fn weights(threads: usize, scratch: &Path) -> Vec<u8> {
    let out = scratch.join(format!("out-{threads}"));
    let calibration = tokens(scratch, 8, 64, 256);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let recipe = recipe(0.5, 0.25);
    pool.install(|| run(&asset("parity/arctic"), &out, &calibration, &recipe)).unwrap();
    fs::read(out.join("model.safetensors")).unwrap()
}

#[test]
fn one_two_and_eight_threads_write_the_same_weights() {
    let scratch = tempfile::tempdir().unwrap();
    let one = weights(1, scratch.path());
    assert!(one == weights(2, scratch.path()), "2 threads differ from 1");
    assert!(one == weights(8, scratch.path()), "8 threads differ from 1");
}
