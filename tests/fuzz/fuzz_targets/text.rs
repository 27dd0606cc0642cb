//! A file of text.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use moeprune_tests::hostile_files::{CountingAllocator, Target, Text};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

thread_local! {
    static TARGET: LazyCell<Text> = LazyCell::new(Text::new);
}

fuzz_target!(|bytes: &[u8]| {
    let _ = TARGET.with(|target| target.run(bytes));
});
