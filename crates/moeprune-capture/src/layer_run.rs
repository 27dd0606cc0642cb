//! One layer over all blocks, with one expert in memory at a time.

use std::ops::{ControlFlow, Range};

use candle_core::{Device, Tensor};
use moeprune_core::LinearId;
use moeprune_model::{ActivationSink, Expert, HiddenSum, LayerTrunk, NoSink, Routed, TrunkOutput};

use crate::{Error, LayerObserver, observer::forward_error};

/// Tokens of several blocks that go through an expert together at most.
#[must_use]
pub fn expert_rows(device: &Device) -> usize {
    if device.is_cpu() { EXPERT_ROWS } else { DEVICE_EXPERT_ROWS }
}

/// On the CPU: enough to keep a matrix
/// product busy, few enough that what they become on the way takes little memory.
const EXPERT_ROWS: usize = 512;

/// Tokens that go through an expert together on a device, which is kept busy by more than the CPU.
pub const DEVICE_EXPERT_ROWS: usize = 8192;

/// Called with how many more tokens went through a trunk or an expert, several times per layer; may ask
/// to stop.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// A layer on its way over all blocks: first the trunk for every micro-batch of blocks, then expert
/// after expert.
///
/// On the CPU the results have the bits of running the layer block by block, and so have the
/// observer's sums, for any micro-batches and any choice of blocks: what becomes of a token does not depend on
/// others, and blocks are summed each on its own.
///
/// ```no_run
/// # use std::ops::ControlFlow;
/// # use candle_core::Tensor;
/// # use moeprune_core::{ModelSpec, TensorSource};
/// # use moeprune_model::{Compute, Expert, LayerTrunk, for_each_expert};
/// # use moeprune_capture::{Error, LayerRun};
/// fn advance(
///     source: &dyn TensorSource,
///     spec: &ModelSpec,
///     layer: usize,
///     hidden: Vec<Tensor>,
/// ) -> Result<Vec<Tensor>, Error> {
///     let compute = Compute::cpu();
///     let mut watch = |_| ControlFlow::Continue(());
///     let trunk = LayerTrunk::load(source, spec, layer, &compute)?;
///     let mut run = LayerRun::advance(&trunk, layer, hidden, None, &mut watch)?;
///     drop(trunk);
///     let experts: Vec<usize> = (0..spec.layers[layer].moe().map_or(0, |m| m.experts)).collect();
///     for_each_expert(source, spec, layer, &experts, |stored| {
///         let expert = Expert::load(&stored, spec, layer, stored.expert, &compute)?;
///         run.expert(stored.expert, &expert, None, &mut watch)
///     })?;
///     run.finish()
/// }
/// ```
#[derive(Debug)]
pub struct LayerRun {
    layer: usize,
    /// Whether the layer's outputs are wanted, or statistics alone.
    outputs: bool,
    expert_rows: usize,
    batches: Vec<MicroBatch>,
}

/// Blocks of one length that went through the trunk together.
#[derive(Debug)]
struct MicroBatch {
    first_block: usize,
    blocks: usize,
    sequence_len: usize,
    /// `None` if only statistics are wanted, and its own would be none.
    sum: Option<HiddenSum>,
    routed: Option<Routed>,
}

impl LayerRun {
    /// Runs the trunk on hidden states that become the layer's outputs, one tensor
    /// `[blocks, tokens, hidden]` for each micro-batch.
    ///
    /// # Errors
    /// If a forward pass or the observer fails, or `watch` asks to stop ([`Error::Stopped`]).
    pub fn advance(
        trunk: &LayerTrunk,
        layer: usize,
        hidden: Vec<Tensor>,
        observer: Option<&mut LayerObserver>,
        watch: Watch<'_>,
    ) -> Result<Self, Error> {
        let mut run = Self::new(layer, true);
        run.through_trunk(trunk, hidden.into_iter(), observer, watch)?;
        Ok(run)
    }

    /// As [`advance`](Self::advance), with any sink for the trunk's activations, which come micro-batch after
    /// micro-batch.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn advance_into(
        trunk: &LayerTrunk,
        layer: usize,
        hidden: Vec<Tensor>,
        sink: &mut dyn ActivationSink,
        watch: Watch<'_>,
    ) -> Result<Self, Error> {
        let mut run = Self::new(layer, true);
        for batch in hidden {
            run.batch(batch, watch, |_, batch| trunk.forward(batch, sink))?;
        }
        Ok(run)
    }

    /// Runs the trunk on hidden states for the observer's sake alone: outputs are not kept.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn watch_only(
        trunk: &LayerTrunk,
        layer: usize,
        hidden: &[Tensor],
        observer: &mut LayerObserver,
        watch: Watch<'_>,
    ) -> Result<Self, Error> {
        let mut run = Self::new(layer, false);
        run.through_trunk(trunk, hidden.iter().cloned(), Some(observer), watch)?;
        Ok(run)
    }

    fn new(layer: usize, outputs: bool) -> Self {
        Self { layer, outputs, expert_rows: EXPERT_ROWS, batches: Vec::new() }
    }

    fn through_trunk(
        &mut self,
        trunk: &LayerTrunk,
        hidden: impl Iterator<Item = Tensor>,
        mut observer: Option<&mut LayerObserver>,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        for batch in hidden {
            let len = batch.dims().get(1).copied().unwrap_or_default();
            self.batch(batch, watch, |blocks, batch| match &mut observer {
                None => trunk.forward(batch, &mut NoSink),
                Some(observer) => {
                    observer.at_rows(blocks.map(|block| (block, len)));
                    trunk.forward(batch, *observer)
                }
            })?;
        }
        Ok(())
    }

    /// Takes in one more micro-batch, which `forward`, called with its blocks, runs through the trunk.
    fn batch(
        &mut self,
        batch: Tensor,
        watch: Watch<'_>,
        forward: impl FnOnce(Range<usize>, &Tensor) -> Result<TrunkOutput, moeprune_model::Error>,
    ) -> Result<(), Error> {
        let layer = self.layer;
        self.expert_rows = expert_rows(batch.device());
        let (blocks, sequence_len, _) = batch
            .dims3()
            .map_err(|error| forward_error(layer, moeprune_model::Error::from(error)))?;
        let first_block = self.batches.last().map_or(0, |last| last.first_block + last.blocks);
        let out = forward(first_block..first_block + blocks, &batch);
        let TrunkOutput { sum, routed } = out.map_err(|e| forward_error(layer, e))?;
        let sum = if self.outputs { Some(sum) } else { sum.statistics_alone() };
        self.batches.push(MicroBatch { first_block, blocks, sequence_len, sum, routed });
        stop_if_asked(watch, blocks * sequence_len)
    }

    /// What experts read of some rows (tokens) of each micro-batch, before any gate, `[rows, width]`; `None`
    /// without experts or rows.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn read_by_experts(&self, rows: &[Vec<u32>]) -> Result<Option<Tensor>, Error> {
        let mut read = Vec::with_capacity(rows.len());
        for (batch, rows) in self.batches.iter().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
            if let Some(routed) = &batch.routed {
                let normed = routed.normed(rows);
                read.push(normed.map_err(|error| forward_error(self.layer, error))?);
            }
        }
        if read.is_empty() {
            return Ok(None);
        }
        let joined = Tensor::cat(&read, 0);
        let joined = joined.map_err(|e| forward_error(self.layer, moeprune_model::Error::from(e)));
        joined.map(Some)
    }

    /// Tokens routed to an expert.
    #[must_use]
    pub fn tokens(&self, expert: usize) -> u64 {
        self.batches.iter().map(|batch| batch.tokens(expert) as u64).sum()
    }

    /// Runs an expert on the tokens routed to it. Experts must come in ascending order.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub fn expert(
        &mut self,
        index: usize,
        expert: &Expert,
        mut observer: Option<&mut LayerObserver>,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        for call in self.calls(index) {
            self.call(index, expert, &call, &mut observer)
                .map_err(|error| forward_error(self.layer, error))?;
            stop_if_asked(watch, call.iter().map(|part| part.rows.len()).sum())?;
        }
        Ok(())
    }

    /// Shows an observer what the sums of the experts' outputs go through, in layers whose experts have a
    /// latent width. All experts must have run.
    ///
    /// # Errors
    /// If the observer fails.
    pub fn show_sums(&self, observer: &mut LayerObserver) -> Result<(), Error> {
        for MicroBatch { first_block, blocks, sequence_len, sum, .. } in &self.batches {
            let Some(sum) = sum else { continue };
            let blocks = *first_block..first_block + blocks;
            observer.at_rows(blocks.map(|block| (block, *sequence_len)));
            sum.show(observer).map_err(|error| forward_error(self.layer, error))?;
        }
        Ok(())
    }

    /// Has these sums leave the latent width by another version of the layer's trunk than the one that
    /// ran.
    pub fn take_over(&mut self, trunk: &LayerTrunk) {
        for sum in self.batches.iter_mut().filter_map(|batch| batch.sum.as_mut()) {
            trunk.take_over(sum);
        }
    }

    /// The layer's outputs, one tensor `[blocks, tokens, hidden]` for each micro-batch; none of a
    /// run that only watched.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn finish(self) -> Result<Vec<Tensor>, Error> {
        let tensor = |sum: HiddenSum, len: usize| -> Result<Tensor, moeprune_model::Error> {
            let rows = sum.into_tensor()?;
            let (tokens, width) = rows.dims2()?;
            Ok(rows.reshape((tokens / len.max(1), len, width))?)
        };
        if !self.outputs {
            return Ok(Vec::new());
        }
        let batches = self.batches.into_iter();
        let sums = batches.filter_map(|batch| Some((batch.sum?, batch.sequence_len)));
        Ok(sums.map(|(sum, len)| tensor(sum, len)).collect::<Result<_, _>>()?)
    }

    /// An expert's tokens in pieces that are run together.
    fn calls(&self, expert: usize) -> Vec<Vec<Part>> {
        let mut calls = Vec::new();
        let (mut call, mut room) = (Vec::new(), self.expert_rows);
        for (batch, state) in self.batches.iter().enumerate() {
            let tokens = state.tokens(expert);
            let mut start = 0;
            while start < tokens {
                let end = tokens.min(start + room);
                call.push(Part { batch, rows: start..end });
                room -= end - start;
                start = end;
                if room == 0 {
                    calls.push(std::mem::take(&mut call));
                    room = self.expert_rows;
                }
            }
        }
        if !call.is_empty() {
            calls.push(call);
        }
        calls
    }

    fn blocks_of(&self, expert: usize, part: &Part) -> Vec<(usize, usize)> {
        self.batches[part.batch].blocks_of(expert, part.rows.clone())
    }

    fn call(
        &mut self,
        index: usize,
        expert: &Expert,
        call: &[Part],
        observer: &mut Option<&mut LayerObserver>,
    ) -> Result<(), moeprune_model::Error> {
        let mut inputs = Vec::with_capacity(call.len());
        for part in call {
            if let Some(routed) = &self.batches[part.batch].routed {
                inputs.push(routed.input(index, part.rows.clone())?);
            }
        }
        let input = match &inputs[..] {
            [one] => one.clone(),
            several => Tensor::cat(several, 0)?,
        };
        drop(inputs);
        let output = match observer {
            None => expert.forward(&input, &mut NoSink)?,
            Some(observer) => {
                observer.at_rows(call.iter().flat_map(|part| self.blocks_of(index, part)));
                expert.forward(&input, &mut Inputs(observer))?
            }
        };
        let mut first = 0;
        for part in call {
            let blocks = observer.as_ref().map(|_| self.blocks_of(index, part)).unwrap_or_default();
            let MicroBatch { sum, routed: Some(routed), .. } = &mut self.batches[part.batch] else {
                continue;
            };
            let own = output.narrow(0, first, part.rows.len())?;
            first += part.rows.len();
            let (rows, gates) = routed.tokens(index);
            let (rows, gates) = (&rows[part.rows.clone()], &gates[part.rows.clone()]);
            if let Some(observer) = observer {
                observer.at_rows(blocks);
                observer.expert_output(index, &own, gates)?;
            }
            if let Some(sum) = sum {
                sum.add(rows, gates, &own)?;
            }
        }
        Ok(())
    }
}

impl MicroBatch {
    /// Tokens routed to an expert.
    fn tokens(&self, expert: usize) -> usize {
        self.routed.as_ref().map_or(0, |routed| routed.tokens(expert).0.len())
    }

    /// The blocks that some of an expert's tokens are of, ascending, and how many are of each.
    fn blocks_of(&self, expert: usize, rows: Range<usize>) -> Vec<(usize, usize)> {
        let Some(routed) = &self.routed else { return Vec::new() };
        let block = |&row: &u32| self.first_block + row as usize / self.sequence_len.max(1);
        let rows = &routed.tokens(expert).0[rows];
        rows.chunk_by(|a, b| block(a) == block(b))
            .map(|same| (block(&same[0]), same.len()))
            .collect()
    }
}

/// Some of the tokens that a micro-batch sends to an expert, counted within these.
#[derive(Debug)]
struct Part {
    batch: usize,
    rows: Range<usize>,
}

/// Shows an observer what an expert's Linears read, and nothing else.
struct Inputs<'a>(&'a mut LayerObserver);

impl ActivationSink for Inputs<'_> {
    fn linear_input(
        &mut self,
        site: LinearId,
        input: &Tensor,
    ) -> Result<(), moeprune_model::Error> {
        self.0.linear_input(site, input)
    }
}

fn stop_if_asked(watch: Watch<'_>, tokens: usize) -> Result<(), Error> {
    match watch(tokens as u64) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}
