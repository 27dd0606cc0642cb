//! An observation file.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use moeprune_tests::hostile_files::{CountingAllocator, ObservationFile, Target};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

thread_local! {
    static TARGET: LazyCell<ObservationFile> = LazyCell::new(ObservationFile::new);
}

fuzz_target!(|bytes: &[u8]| {
    let _ = TARGET.with(|target| target.run(bytes));
});

// Most changes of the header change its length, and a wrong length hides everything behind it: so
// three times of four it is put right.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    let brace = data[..size].iter().rposition(|&byte| byte == b'}');
    if let Some(length) = brace.and_then(|at| at.checked_sub(7))
        && seed % 4 != 0
    {
        data[..8].copy_from_slice(&(length as u64).to_le_bytes());
    }
    size
});
