//! One layer over all blocks, with one expert in memory at a time.

use std::ops::{ControlFlow, Range};

use candle_core::Tensor;
use moeprune_core::LinearId;
use moeprune_model::{ActivationSink, Expert, HiddenSum, LayerTrunk, NoSink, Routed, TrunkOutput};

use crate::{Error, LayerObserver, observer::forward_error};

/// Tokens of several blocks that go through an expert together: enough to keep a matrix product
/// busy, few enough that what they become on the way takes little memory.
const EXPERT_ROWS: usize = 512;

/// Is told how many more tokens went through a trunk or an expert, several times a layer, and
/// may ask to stop.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// A layer on its way over all blocks: first the trunk for every block, then expert after expert.
///
/// The results have the bits of running the layer block by block, and so have the observer's
/// sums: tokens are seen in the same order, and what becomes of one does not depend on others.
///
/// ```no_run
/// # use std::ops::ControlFlow;
/// # use candle_core::{DType, Device, Tensor};
/// # use moeprune_core::{ModelSpec, TensorSource};
/// # use moeprune_model::{Expert, LayerTrunk, for_each_expert};
/// # use moeprune_capture::{Error, LayerRun};
/// fn advance(
///     source: &dyn TensorSource,
///     spec: &ModelSpec,
///     layer: usize,
///     hidden: Vec<Tensor>,
/// ) -> Result<Vec<Tensor>, Error> {
///     let (device, dtype) = (Device::Cpu, DType::F32);
///     let mut watch = |_| ControlFlow::Continue(());
///     let trunk = LayerTrunk::load(source, spec, layer, &device, dtype)?;
///     let mut run = LayerRun::advance(&trunk, layer, hidden, None, &mut watch)?;
///     drop(trunk);
///     let experts: Vec<usize> = (0..spec.layers[layer].moe().map_or(0, |m| m.experts)).collect();
///     for_each_expert(source, layer, &experts, |stored| {
///         let expert = Expert::load(&stored, spec, layer, stored.expert, &device, dtype)?;
///         run.expert(stored.expert, &expert, None, &mut watch)
///     })?;
///     run.finish()
/// }
/// ```
#[derive(Debug)]
pub struct LayerRun {
    layer: usize,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// `None` if only statistics are wanted.
    sum: Option<HiddenSum>,
    routed: Option<Routed>,
}

impl LayerRun {
    /// Runs the trunk on hidden states that become the layer's outputs, one tensor
    /// `[1, tokens, hidden]` a block.
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
        Self::start(trunk, layer, hidden.into_iter(), true, observer, watch)
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
        Self::start(trunk, layer, hidden.iter().cloned(), false, Some(observer), watch)
    }

    fn start(
        trunk: &LayerTrunk,
        layer: usize,
        hidden: impl Iterator<Item = Tensor>,
        outputs: bool,
        mut observer: Option<&mut LayerObserver>,
        watch: Watch<'_>,
    ) -> Result<Self, Error> {
        let mut blocks = Vec::new();
        for (index, block) in hidden.enumerate() {
            let tokens = block.elem_count() / block.dims().last().copied().unwrap_or(1).max(1);
            let out = match &mut observer {
                None => trunk.forward(&block, &mut NoSink),
                Some(observer) => {
                    observer.at_block(index);
                    trunk.forward(&block, *observer)
                }
            };
            let TrunkOutput { sum, routed } = out.map_err(|e| forward_error(layer, e))?;
            blocks.push(Block { sum: outputs.then_some(sum), routed });
            go_on(watch, tokens)?;
        }
        Ok(Self { layer, blocks })
    }

    /// Tokens routed to an expert.
    #[must_use]
    pub fn tokens(&self, expert: usize) -> u64 {
        let of = |block: &Block| block.routed.as_ref().map_or(0, |r| r.tokens(expert).0.len());
        self.blocks.iter().map(|block| of(block) as u64).sum()
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
        for batch in self.batches(index) {
            self.batch(index, expert, &batch, &mut observer)
                .map_err(|error| forward_error(self.layer, error))?;
            go_on(watch, batch.iter().map(|part| part.rows.len()).sum())?;
        }
        Ok(())
    }

    /// The layer's outputs, one tensor `[1, tokens, hidden]` a block; none of a run that only
    /// watched.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn finish(self) -> Result<Vec<Tensor>, Error> {
        let tensor = |sum: HiddenSum| -> Result<Tensor, moeprune_model::Error> {
            Ok(sum.into_tensor()?.unsqueeze(0)?)
        };
        let sums = self.blocks.into_iter().filter_map(|block| block.sum);
        Ok(sums.map(tensor).collect::<Result<_, _>>()?)
    }

    /// An expert's tokens in pieces that are run together.
    fn batches(&self, expert: usize) -> Vec<Vec<Part>> {
        let mut batches = Vec::new();
        let (mut batch, mut room) = (Vec::new(), EXPERT_ROWS);
        for (block, state) in self.blocks.iter().enumerate() {
            let tokens = state.routed.as_ref().map_or(0, |r| r.tokens(expert).0.len());
            let mut start = 0;
            while start < tokens {
                let end = tokens.min(start + room);
                batch.push(Part { block, rows: start..end });
                room -= end - start;
                start = end;
                if room == 0 {
                    batches.push(std::mem::take(&mut batch));
                    room = EXPERT_ROWS;
                }
            }
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        batches
    }

    fn batch(
        &mut self,
        index: usize,
        expert: &Expert,
        batch: &[Part],
        observer: &mut Option<&mut LayerObserver>,
    ) -> Result<(), moeprune_model::Error> {
        let mut inputs = Vec::with_capacity(batch.len());
        for part in batch {
            if let Some(routed) = &self.blocks[part.block].routed {
                inputs.push(routed.input(&routed.tokens(index).0[part.rows.clone()])?);
            }
        }
        let input = match &inputs[..] {
            [one] => one.clone(),
            several => Tensor::cat(several, 0)?,
        };
        drop(inputs);
        let output = match observer {
            None => expert.forward(&input, &mut NoSink)?,
            Some(observer) => expert.forward(&input, &mut ByBlock { observer, batch })?,
        };
        let mut first = 0;
        for part in batch {
            let Block { sum, routed: Some(routed) } = &mut self.blocks[part.block] else {
                continue;
            };
            let own = output.narrow(0, first, part.rows.len())?;
            first += part.rows.len();
            let (rows, gates) = routed.tokens(index);
            let (rows, gates) = (&rows[part.rows.clone()], &gates[part.rows.clone()]);
            if let Some(observer) = observer {
                observer.expert_output(index, &own, gates)?;
            }
            if let Some(sum) = sum {
                sum.add(rows, gates, &own)?;
            }
        }
        Ok(())
    }
}

/// Some of the tokens that a block sends to an expert, counted within these.
#[derive(Debug)]
struct Part {
    block: usize,
    rows: Range<usize>,
}

/// Shows the rows of a batch to an observer, block by block.
struct ByBlock<'a> {
    observer: &'a mut LayerObserver,
    batch: &'a [Part],
}

impl ActivationSink for ByBlock<'_> {
    fn linear_input(
        &mut self,
        site: LinearId,
        input: &Tensor,
    ) -> Result<(), moeprune_model::Error> {
        let mut first = 0;
        for Part { block, rows } in self.batch {
            self.observer.at_block(*block);
            self.observer.linear_input(site, &input.narrow(0, first, rows.len())?)?;
            first += rows.len();
        }
        Ok(())
    }
}

fn go_on(watch: Watch<'_>, tokens: usize) -> Result<(), Error> {
    match watch(tokens as u64) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}
