//! Memory that a thread keeps from call to call.

use std::cell::RefCell;

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `use_it` with `len` numbers of any value.
///
/// They stay with the thread, so that a next call finds pages that are there already. Calls may nest: a thread
/// that waits for others may be given another product to compute.
pub(super) fn with_scratch<R>(len: usize, use_it: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut numbers = KEPT.with_borrow_mut(|kept| {
        let fits = kept.iter().position(|numbers| numbers.capacity() >= len);
        fits.map(|at| kept.swap_remove(at)).or_else(|| kept.pop()).unwrap_or_default()
    });
    if numbers.len() < len {
        if numbers.capacity() < len {
            numbers = Vec::new(); // nothing in it is worth copying
        }
        numbers.resize(len, 0.0);
    }
    let result = use_it(&mut numbers[..len]);
    KEPT.with_borrow_mut(|kept| kept.push(numbers));
    result
}
