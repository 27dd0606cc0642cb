//! cudarc on the emulated driver: kernels that are right, and each kind of mistake that it has to find.
//!
//! The loader reads `LD_LIBRARY_PATH` when a process starts, and a mistake ends the process. So each test starts this
//! program again, on the case of its name.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "kernels are launched")]

mod cases;

use std::process::{Command, Output};

use moeprune_cuda_on_cpu::{Build, build, default_folder, preload};

const CASE: &str = "CUDA_ON_CPU_CASE";

/// Runs a case in a separate process; `None` where there is no C++ compiler.
fn run(case: &str, sanitize: bool, environment: &[(&str, &str)]) -> Option<Output> {
    let kernels = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/sums.cu").into()];
    let libraries = build(&Build { kernels, sanitize, folder: default_folder() }).unwrap()?;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "case", "--include-ignored", "--nocapture"]).env(CASE, case);
    command.env("LD_LIBRARY_PATH", libraries).envs(environment.iter().copied());
    if sanitize {
        command.env("LD_PRELOAD", preload()?).env("ASAN_OPTIONS", "detect_leaks=0");
    }
    Some(command.output().unwrap())
}

#[test]
#[ignore = "what the other tests start"]
fn case() {
    if let Ok(name) = std::env::var(CASE) {
        cases::run(&name);
    }
}

fn passes(case: &str, environment: &[(&str, &str)]) {
    if let Some(output) = run(case, false, environment) {
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !errors.contains("cuda-on-cpu"), "{errors}");
    }
}

fn reports(case: &str, sanitize: bool, environment: &[(&str, &str)], expected: &[&str]) {
    if let Some(output) = run(case, sanitize, environment) {
        let errors = String::from_utf8_lossy(&output.stderr);
        for expected in expected {
            assert!(errors.contains(expected), "expected: {expected}\n     got: {errors}");
        }
    }
}

#[test]
fn kernels_compute() {
    passes("add_and_total", &[]);
}

#[test]
fn kernels_compute_in_any_order_of_threads() {
    passes("add_and_total", &[("CUDA_ON_CPU_ORDER", "backwards")]);
    passes("operations", &[("CUDA_ON_CPU_ORDER", "backwards")]);
}

#[test]
fn warp_and_block_operations() {
    passes("operations", &[]);
}

#[test]
fn copies_events_and_pinned_memory() {
    passes("copies", &[]);
}

#[test]
fn launch_limits_are_those_of_a_device() {
    passes("limits", &[]);
}

#[test]
fn device_memory_ends() {
    passes("out_of_memory", &[("CUDA_ON_CPU_MEMORY", "1000000")]);
}

#[test]
fn parameters_are_held_against_the_ptx() {
    reports(
        "stale_ptx",
        false,
        &[],
        &["kernel write_behind: the parameters of its PTX are not those of its source"],
    );
}

#[test]
fn a_write_behind_the_end_is_reported() {
    let report = ["write_behind: written just behind an allocation of 128 bytes"];
    reports("write_behind", false, &[], &report);
}

#[test]
fn a_read_behind_the_end_is_reported_by_the_sanitizer() {
    reports("read_behind", true, &[], &["heap-buffer-overflow", "in read_behind", "sums.cu:"]);
}

#[test]
fn a_pointer_of_the_host_is_reported() {
    reports(
        "host_pointer",
        false,
        &[],
        &["kernel write_behind, parameter 0", "is not device memory"],
    );
}

#[test]
fn a_missing_barrier_shows_in_the_result() {
    reports("without_barrier", false, &[], &["a thread read what was not yet written"]);
}

#[test]
fn a_barrier_that_some_never_reach_is_reported() {
    let report =
        ["threads 0 to 31: waits in __syncthreads", "sums.cu:", "threads 32 to 63: returned"];
    reports("half_return", false, &[], &report);
}

#[test]
fn different_barriers_are_reported() {
    reports("two_barriers", false, &[], &["wait at different barriers"]);
}

#[test]
fn a_shuffle_without_its_lanes_is_reported() {
    reports("shuffle_without_half", false, &[], &["waits in __shfl_xor_sync"]);
}

#[test]
fn a_copy_over_the_end_is_reported() {
    let report = ["cuMemcpyHtoD, destination: 256 bytes at offset 0 of an allocation of 128 bytes"];
    reports("copy_over_the_end", false, &[], &report);
}

#[test]
fn a_leak_is_reported() {
    reports("leak", false, &[], &["1 device allocations, 128 bytes, were never freed"]);
}
