//! A repair that can be stopped, and says how far it is.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use moeprune_capture::Watch;

/// How often the watch is called.
const POLL: Duration = Duration::from_millis(100);

/// What the thread that repairs and the one that watches it share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Rows of activations that were read and not yet told.
    rows: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    /// More rows were read.
    pub(super) fn read(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Whether the run is to stop.
    pub(super) fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Does `work` on another thread and tells `watch` meanwhile how many rows were read. `None` if it was asked
/// to stop.
pub(super) fn supervised<R: Send>(
    shared: &Shared,
    watch: Watch<'_>,
    work: impl FnOnce() -> R + Send,
) -> Option<R> {
    thread::scope(|scope| {
        let watching = thread::current();
        let worker = scope.spawn(move || {
            let wakes = Wakes(watching);
            let done = work();
            drop(wakes);
            done
        });
        while !worker.is_finished() {
            if watch(shared.rows.swap(0, Ordering::Relaxed)).is_break() {
                shared.stop.store(true, Ordering::Relaxed);
            }
            // The worker ends this when it is done.
            thread::park_timeout(POLL);
        }
        let done = match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let stops = watch(shared.rows.swap(0, Ordering::Relaxed)).is_break() || shared.stops();
        (!stops).then_some(done)
    })
}

/// Wakes a thread when it is dropped.
struct Wakes(thread::Thread);

impl Drop for Wakes {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    #[test]
    fn rows_are_told_once_and_a_stop_ends_the_work() {
        let shared = Shared::default();
        let mut told = 0;
        let mut watch = |more| {
            told += more;
            ControlFlow::Continue(())
        };
        let done = supervised(&shared, &mut watch, || {
            shared.read(3);
            shared.read(4);
            "done"
        });
        assert_eq!((done, told), (Some("done"), 7));

        let shared = Shared::default();
        let mut watch = |_| ControlFlow::Break(());
        let done = supervised(&shared, &mut watch, || {
            while !shared.stops() {
                thread::yield_now();
            }
        });
        assert_eq!(done, None);
    }
}
