//! A chat template.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use moeprune_tests::hostile_files::{CountingAllocator, Target, Template};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

thread_local! {
    static TARGET: LazyCell<Template> = LazyCell::new(Template::new);
}

fuzz_target!(|bytes: &[u8]| {
    let _ = TARGET.with(|target| target.run(bytes));
});
