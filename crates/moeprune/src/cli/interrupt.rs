//! Ctrl-C.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};

/// What a shell reports of a process that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on the first Ctrl-C asks the run to stop and the second ends the process. Either way,
/// what the run has finished can be resumed.
pub fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        // Where no handler can be installed, Ctrl-C ends the process as it always did.
        let _ = ctrlc::set_handler(|| {
            if ASKED.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
            super::terminal::say("stopping at the next safe point; Ctrl-C again stops at once");
        });
    });
}

pub(super) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
