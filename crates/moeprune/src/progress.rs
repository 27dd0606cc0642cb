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
