//! Progress of work that goes layer by layer.

use std::ops::ControlFlow;

use crate::Progress;

/// Counts tokens that went through all layers, or megabytes written, and asks whether to stop.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    progress: &'a mut dyn Progress,
    layers: usize,
    total: u64,
    layer: usize,
    /// Work of the layer at hand, in any unit.
    work: u64,
    done: u64,
}

impl<'a> Steps<'a> {
    /// `tokens` tokens that go through every layer.
    pub(crate) fn tokens(
        step: &str,
        layers: usize,
        tokens: u64,
        done: usize,
        progress: &'a mut dyn Progress,
    ) -> Self {
        Self::begin(step, layers, (tokens, "tokens"), done, progress)
    }

    /// Bytes that are written in about equal parts.
    pub(crate) fn megabytes(
        step: &str,
        layers: usize,
        bytes: u64,
        done: usize,
        progress: &'a mut dyn Progress,
    ) -> Self {
        Self::begin(step, layers, (bytes.div_ceil(1_000_000), "MB"), done, progress)
    }

    /// `done` layers were finished by an earlier process.
    fn begin(
        step: &str,
        layers: usize,
        (total, unit): (u64, &str),
        done: usize,
        progress: &'a mut dyn Progress,
    ) -> Self {
        if done > 0 {
            let rest = if done < layers { ", going on" } else { "" };
            progress.note(&format!("{step}: {done} of {layers} layers are done already{rest}"));
        }
        progress.begin(step, total, unit);
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
