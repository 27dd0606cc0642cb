//! One display of the progress of several parts.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use crate::Progress;

/// What a worker says.
#[derive(Debug)]
pub(super) enum Said {
    /// So many tokens of its part are through; where it is.
    Done { worker: usize, tokens: u64, what: String },
    /// A part was begun, or the one before ended: what is done counts from `before` on.
    Part { worker: usize },
    /// A line.
    Note(String),
}

/// The progress of one part, handed on to the display of all.
pub(super) struct PartProgress<'a> {
    pub(super) worker: usize,
    /// What the part is called.
    pub(super) name: String,
    pub(super) said: Sender<Said>,
    pub(super) stop: &'a AtomicBool,
}

impl fmt::Debug for PartProgress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartProgress").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Progress for PartProgress<'_> {
    fn advance(&mut self, tokens: u64, what: &str) {
        let what = format!("part {} {what}", self.name);
        // The receiver is gone only once all is over.
        let _ = self.said.send(Said::Done { worker: self.worker, tokens, what });
    }

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn note(&mut self, line: &str) {
        // What is done of a part is worth a line for each; what it takes is the same of all.
        let line = match line.split_once(": ") {
            Some((_, done)) if line.contains("done already") => {
                format!("observing part {}: {done}", self.name)
            }
            _ => line.to_owned(),
        };
        let _ = self.said.send(Said::Note(line));
    }
}

/// Shows what the workers say, until all of them are through, and hands on a request to stop.
pub(super) fn show(
    heard: &Receiver<Said>,
    stop: &AtomicBool,
    progress: &mut dyn Progress,
    mut before: u64,
) {
    const LOOK_AGAIN: Duration = Duration::from_millis(100);
    let mut current: Vec<u64> = Vec::new();
    let mut notes = BTreeSet::new();
    loop {
        if progress.should_stop() {
            stop.store(true, Ordering::Relaxed);
        }
        match heard.recv_timeout(LOOK_AGAIN) {
            Ok(Said::Note(line)) => {
                // The memory that is left differs from part to part.
                let but_numbers = |line: &str| line.replace(|c: char| c.is_ascii_digit(), "");
                let is_new = line.contains("done already") || notes.insert(but_numbers(&line));
                if is_new {
                    progress.note(&line);
                }
            }
            Ok(Said::Part { worker }) => {
                before += current.get_mut(worker).map(std::mem::take).unwrap_or_default();
            }
            Ok(Said::Done { worker, tokens, what }) => {
                if current.len() <= worker {
                    current.resize(worker + 1, 0);
                }
                current[worker] = tokens;
                progress.advance(before + current.iter().sum::<u64>(), &what);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
