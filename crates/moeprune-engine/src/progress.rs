//! How a run tells what it is doing, without printing.

/// Receives what a run is doing. The library calls it; the command line draws bars with it.
///
/// All methods do nothing by default.
pub trait Progress: std::fmt::Debug {
    /// A step began. `total` counts `unit`s, for example tokens.
    fn begin(&mut self, step: &str, total: u64, unit: &str) {
        let _ = (step, total, unit);
    }

    /// `done` units of the step are done; `what` says where it is, for example `layer 3/35`.
    fn advance(&mut self, done: u64, what: &str) {
        let _ = (done, what);
    }

    /// The step ended.
    fn end(&mut self) {}

    /// Whether to stop at the next safe point. The run then ends with an error
    /// ([`Error::is_stop`](crate::Error::is_stop)); what it has finished can be resumed.
    fn should_stop(&self) -> bool {
        false
    }

    /// Something worth a line.
    fn note(&mut self, line: &str) {
        let _ = line;
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "a unit")]
pub struct Silent;

impl Progress for Silent {}
