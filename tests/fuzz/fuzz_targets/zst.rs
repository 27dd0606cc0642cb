//! A zstd archive.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use moeprune_tests::hostile_files::{CountingAllocator, Target, Zstd};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

thread_local! {
    static TARGET: LazyCell<Zstd> = LazyCell::new(Zstd::new);
}

fuzz_target!(|bytes: &[u8]| {
    let _ = TARGET.with(|target| target.run(bytes));
});
