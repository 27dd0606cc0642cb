//! A Parquet file.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use moeprune_tests::hostile_files::{CountingAllocator, Parquet, Target};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

thread_local! {
    static TARGET: LazyCell<Parquet> = LazyCell::new(Parquet::new);
}

fuzz_target!(|bytes: &[u8]| {
    let _ = TARGET.with(|target| target.run(bytes));
});
