//! A model that is run over blocks of text with one layer in memory at a time.

mod divergence;
mod likelihood;

use candle_core::{Device, Tensor};
use moeprune_capture::{ObserverOptions, StoredLayer, TokenBlocks, passes};
use moeprune_core::{ModelSpec, TensorSource};
use moeprune_engine::{Execution, Progress, Route, walk};
use moeprune_model::Head;

pub(crate) use divergence::{LOGIT_BYTES, divergence};
pub(crate) use likelihood::{Likelihood, likelihood, likelihood_after};

use crate::Error;

/// A model, the text that it is run over, and where.
#[derive(Clone, Copy)]
pub(crate) struct Streamed<'a> {
    /// The model's weights.
    pub(crate) source: &'a dyn TensorSource,
    pub(crate) spec: &'a ModelSpec,
    pub(crate) blocks: &'a TokenBlocks,
    /// Where the model runs.
    pub(crate) execution: &'a Execution,
    /// What the work is called.
    pub(crate) step: &'a str,
}

impl Streamed<'_> {
    /// Runs all blocks through the model, layer after layer. Returns the last layer's outputs, `[tokens, hidden]` for each
    /// block.
    ///
    /// # Errors
    /// If a tensor cannot be read, a forward pass fails, or `progress` asks to stop.
    pub(crate) fn hidden(&self, progress: &mut dyn Progress) -> Result<Vec<Tensor>, Error> {
        let Streamed { source, spec, blocks, execution, step } = *self;
        let (compute, micro_batch) = (execution.compute(), execution.micro_batch());
        let tokens = blocks.tokens();
        let work: Vec<u64> =
            (0..spec.layers.len()).map(|layer| passes(spec, layer, tokens)).collect();
        let route =
            Route { source, spec, blocks: Some(blocks), micro_batch, execution, step, work: &work };
        let nothing = ObserverOptions { routing: false, inputs: false, hessians: false };
        let batches = walk(&route, progress, |mut at| {
            let (layer, hidden) = (at.layer, at.take_hidden());
            let stored = StoredLayer { source, spec, layer, compute };
            let (_, outputs) = stored.observe_and_advance(hidden, nothing, at.watch)?;
            *at.hidden = Some(outputs);
            Ok(())
        })?;
        let mut hidden = Vec::with_capacity(blocks.blocks().len());
        for batch in batches {
            for row in 0..batch.dim(0)? {
                hidden.push(batch.get(row)?);
            }
        }
        Ok(hidden)
    }

    /// As [`hidden`](Self::hidden), in the host's memory.
    ///
    /// # Errors
    /// As [`hidden`](Self::hidden).
    pub(crate) fn hidden_on_host(&self, progress: &mut dyn Progress) -> Result<Vec<Tensor>, Error> {
        let hidden = self.hidden(progress)?;
        Ok(hidden.iter().map(|block| block.to_device(&Device::Cpu)).collect::<Result<_, _>>()?)
    }

    /// Reads what makes predictions of these outputs.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn head(&self) -> Result<Head, Error> {
        Ok(Head::load(self.source, self.spec, self.execution.compute())?)
    }
}
