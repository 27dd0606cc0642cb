//! Threads that read and pack weights while others multiply.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Threads at most: as many reads are on their way at a time.
const MOST: usize = 8;

/// Runs `work` on threads of its own, a quarter as many as there are for products. A thread that waits for a disk then
/// holds up no product, and a product no read.
pub(crate) fn on_own_threads<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    static THREADS: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let threads = THREADS.get_or_init(|| {
        let count = (rayon::current_num_threads() / 4).clamp(1, MOST);
        let builder = ThreadPoolBuilder::new().num_threads(count);
        builder.thread_name(|at| format!("read-{at}")).build().ok()
    });
    match threads {
        Some(threads) => threads.install(work),
        // Where no thread can be started, the caller's does.
        None => work(),
    }
}
