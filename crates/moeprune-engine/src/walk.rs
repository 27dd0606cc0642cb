//! The walk over a model's layers: the one loop of everything that runs a model.

use std::ops::{ControlFlow, Range};

use candle_core::Tensor;
use moeprune_capture::{TokenBlocks, embed_blocks};
use moeprune_core::{ModelSpec, TensorSource};
use moeprune_model::Embedding;

use crate::{
    Error, Execution, Progress,
    session::{HiddenShape, Pass, Record, Session},
    steps::{Step, Steps},
};

/// Which layers are walked over, and what is observed on the way.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a source of tensors is no text")]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Route<'a> {
    /// The weights of the embedding.
    pub source: &'a dyn TensorSource,
    /// The model that is walked over.
    pub spec: &'a ModelSpec,
    /// The blocks that are run; `None` if layers are visited without running anything.
    pub blocks: Option<&'a TokenBlocks>,
    /// Blocks that go through a trunk together.
    pub micro_batch: usize,
    /// Where they are run.
    pub execution: &'a Execution,
    /// What the work is called.
    pub step: &'a str,
    /// Per layer, what its calls of the watch add up to, in any unit. Without blocks, in bytes.
    pub work: &'a [u64],
}

/// A layer that is visited.
#[expect(missing_debug_implementations, reason = "the watch is a function")]
#[non_exhaustive]
pub struct AtLayer<'a> {
    /// Which layer.
    pub layer: usize,
    /// The layer's inputs, to be replaced by its outputs: one tensor `[blocks, tokens, hidden]` for
    /// each micro-batch. `None` if nothing is run.
    pub hidden: &'a mut Option<Vec<Tensor>>,
    /// Receives how much more of the layer's work is done; says whether to stop.
    pub watch: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    pub(crate) session: &'a Session,
}

impl AtLayer<'_> {
    /// The layer's inputs; none of a walk that runs nothing.
    #[must_use]
    pub fn take_hidden(&mut self) -> Vec<Tensor> {
        self.hidden.take().unwrap_or_default()
    }

    /// More of the layer is done.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the run was asked to stop.
    pub fn done(&mut self, more: u64) -> Result<(), Error> {
        match (self.watch)(more) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped),
        }
    }
}

/// A walk that can be resumed: which of a session's passes it is, and how many layers of it an earlier
/// process has finished.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resumed {
    pub(crate) pass: Pass,
    pub(crate) done: usize,
}

/// Runs the blocks through the layers from the first to the last: `visit` takes a layer's inputs and
/// leaves its outputs. Returns the outputs of the last layer.
///
/// # Errors
/// If the embedding cannot be read, or what `visit` returns.
pub fn walk(
    route: &Route<'_>,
    progress: &mut dyn Progress,
    mut visit: impl FnMut(AtLayer<'_>) -> Result<(), Error>,
) -> Result<Vec<Tensor>, Error> {
    let mut walker = Walker { session: &mut Session::in_memory(), progress };
    let hidden = walker.walk(route, None, |at| visit(at).map(|()| None))?;
    Ok(hidden.unwrap_or_default())
}

/// What the walks of one run share: the journal that says what is done, and what receives their
/// progress.
#[derive(Debug)]
pub(crate) struct Walker<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) progress: &'a mut dyn Progress,
}

impl Walker<'_> {
    /// [`walk`](self::walk) within a run: starts after the layers that are done, and notes in the
    /// session's journal what `visit` says of a layer, with the hidden states that the next one reads.
    pub(crate) fn walk(
        &mut self,
        route: &Route<'_>,
        resumed: Option<Resumed>,
        visit: impl FnMut(AtLayer<'_>) -> Result<Option<Record>, Error>,
    ) -> Result<Option<Vec<Tensor>>, Error> {
        self.walk_layers(route, 0..route.spec.layers.len(), resumed, visit)
    }

    /// As [`walk`](Self::walk), over some of the layers. Blocks are run through all layers only. `visit` may say what it
    /// says of several layers at the last of them.
    pub(crate) fn walk_layers<R: IntoIterator<Item = Record>>(
        &mut self,
        route: &Route<'_>,
        range: Range<usize>,
        resumed: Option<Resumed>,
        mut visit: impl FnMut(AtLayer<'_>) -> Result<R, Error>,
    ) -> Result<Option<Vec<Tensor>>, Error> {
        let Walker { session, progress } = self;
        let layers = range.end;
        let done = resumed.map_or(0, |resumed| resumed.done);
        let mut hidden = start(route, resumed, session)?;
        let work = |layer| route.work.get(layer).copied().unwrap_or(0);
        let step = match route.blocks {
            Some(blocks) => Step::tokens(route.step, range.len(), blocks.tokens()),
            None => Step::megabytes(route.step, range.len(), range.clone().map(work).sum()),
        };
        let mut steps = Steps::begin(step, done, *progress);
        for layer in range.start + done..layers {
            steps.begin_layer(layer - range.start, work(layer));
            let watch = &mut |more| steps.watch(more);
            let records = visit(AtLayer { layer, hidden: &mut hidden, watch, session })?;
            let mut records = records.into_iter().peekable();
            if let (Some(Resumed { pass, .. }), true) = (resumed, records.peek().is_some()) {
                let next = hidden.as_deref().filter(|_| layer + 1 < layers);
                session.layer_done(pass, layer, next, records)?;
            }
            steps.end_layer();
        }
        steps.end();
        Ok(hidden)
    }
}

/// The inputs of the first layer that is visited.
fn start(
    route: &Route<'_>,
    resumed: Option<Resumed>,
    session: &Session,
) -> Result<Option<Vec<Tensor>>, Error> {
    let Route { source, spec, micro_batch, execution, .. } = *route;
    let Some(blocks) = route.blocks else { return Ok(None) };
    let last = resumed.and_then(|Resumed { pass, done }| Some((pass, done.checked_sub(1)?)));
    match last {
        // Nothing is left to walk through.
        Some((_, layer)) if layer + 1 >= spec.layers.len() => Ok(Some(Vec::new())),
        Some((pass, layer)) => {
            let shape = HiddenShape {
                blocks,
                width: spec.hidden,
                micro_batch,
                compute: execution.compute(),
            };
            session.hidden_after(pass, layer, &shape).map(Some)
        }
        None => {
            let embedding = Embedding::load(source, spec, execution.compute())?;
            Ok(Some(embed_blocks(&embedding, blocks, micro_batch)?))
        }
    }
}
