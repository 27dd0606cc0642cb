//! Progress of work that goes layer by layer.

use std::ops::ControlFlow;

use crate::Progress;
use moeprune_core::plural;

/// Counts tokens that went through all layers, or megabytes written, and asks whether to stop.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    progress: &'a mut dyn Progress,
    layers: usize,
    total: u64,
    layer: usize,
    /// Work of the current layer, in any unit.
    work: u64,
    done: u64,
}

/// What goes through all layers, or is written of them in about equal parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    name: &'a str,
    layers: usize,
    total: u64,
    unit: &'static str,
}

impl<'a> Step<'a> {
    /// `tokens` tokens go through each of `layers` layers.
    pub(crate) fn tokens(name: &'a str, layers: usize, tokens: u64) -> Self {
        Self { name, layers, total: tokens, unit: "tokens" }
    }

    /// `bytes` bytes of `layers` layers are written.
    pub(crate) fn megabytes(name: &'a str, layers: usize, bytes: u64) -> Self {
        Self { name, layers, total: bytes.div_ceil(1_000_000), unit: "MB" }
    }
}

impl<'a> Steps<'a> {
    /// `done` layers were finished by an earlier process.
    pub(crate) fn begin(step: Step<'_>, done: usize, progress: &'a mut dyn Progress) -> Self {
        let Step { name, layers, total, unit } = step;
        if done > 0 {
            let rest = if done < layers { ", resuming" } else { "" };
            progress
                .note(&format!("{name}: {done} of {} done already{rest}", plural(layers, "layer")));
        }
        progress.begin(name, total, unit);
        let mut steps = Self { progress, layers, total, layer: done, work: 1, done: 0 };
        if done > 0 && done < layers {
            steps.show();
        }
        steps
    }

    /// `work` is what the layer's [`watch`](Self::watch) calls will add up to.
    pub(crate) fn begin_layer(&mut self, layer: usize, work: u64) {
        (self.layer, self.work, self.done) = (layer, work.max(1), 0);
    }

    /// More of the layer is done.
    pub(crate) fn watch(&mut self, more: u64) -> ControlFlow<()> {
        self.done = (self.done + more).min(self.work);
        self.show();
        if self.progress.should_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The layer is done.
    pub(crate) fn end_layer(&mut self) {
        self.done = self.work;
        self.show();
    }

    /// The step is done.
    pub(crate) fn end(self) {
        self.progress.end();
    }

    fn show(&mut self) {
        let layers = (self.layers as u128).max(1);
        let through = self.layer as u128 * u128::from(self.work) + u128::from(self.done);
        let done = u128::from(self.total) * through / (layers * u128::from(self.work));
        let what = format!("layer {}/{}", self.layer + 1, self.layers);
        self.progress.advance(done as u64, &what);
    }
}
