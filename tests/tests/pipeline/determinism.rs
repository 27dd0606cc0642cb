//! The same bytes, however many threads there are.

use std::{fs, path::Path};

use moeprune::{Execution, model::Compute};

use crate::scratch::{asset, recipe, run_on, tokens};

fn weights(threads: usize, micro_batch: usize, scratch: &Path) -> Vec<u8> {
    let out = scratch.join(format!("out-{threads}-{micro_batch}"));
    let calibration = tokens(scratch, 8, 64, 256);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let recipe = recipe(0.5, 0.25);
    let execution = Execution::on(Compute::cpu(), Some(micro_batch));
    pool.install(|| run_on(&execution, &asset("parity/arctic"), &out, &calibration, &recipe))
        .unwrap();
    fs::read(out.join("model.safetensors")).unwrap()
}

#[test]
fn one_two_and_eight_threads_write_the_same_weights() {
    let scratch = tempfile::tempdir().unwrap();
    let one = weights(1, 1, scratch.path());
    assert!(one == weights(2, 1, scratch.path()), "2 threads differ from 1");
    assert!(one == weights(8, 1, scratch.path()), "8 threads differ from 1");
}

#[test]
fn blocks_that_go_through_a_layer_together_do_not_matter() {
    let scratch = tempfile::tempdir().unwrap();
    let one = weights(2, 1, scratch.path());
    for micro_batch in [2, 3, 8, 100] {
        assert!(one == weights(2, micro_batch, scratch.path()), "{micro_batch} at a time");
    }
}
