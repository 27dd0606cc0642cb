//! A count of what comparing, printing and iterating visit, which the engine's fuel does not count.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use minijinja::Value;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// What is thrown where the budget is used up.
struct Spent;

/// Runs something that may visit so many items; `None` if it would visit more.
///
/// Items are visited while the engine compares or prints a value, which can neither fail nor be
/// stopped. So the stack is unwound, without a panic's message, and ends here.
pub(crate) fn within<T>(visits: u64, run: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(visits);
    // What `run` had hold of is dropped with it.
    let result = catch_unwind(AssertUnwindSafe(run));
    LEFT.set(u64::MAX);
    match result {
        Ok(value) => Some(value),
        Err(thrown) if thrown.is::<Spent>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Takes from the budget.
pub(super) fn visit(items: usize) {
    let left = LEFT.get();
    if left == u64::MAX {
        return;
    }
    match left.checked_sub(1 + items as u64) {
        Some(left) => LEFT.set(left),
        None => resume_unwind(Box::new(Spent)),
    }
}

/// What an item counts for: more if it is long.
pub(super) fn weight(item: &Value) -> usize {
    1 + item.as_str().map_or(0, str::len) / 16
}
