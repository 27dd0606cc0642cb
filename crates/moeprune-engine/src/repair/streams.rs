//! A layer's tokens on their way to its experts, with those that were dropped and without them.

use std::ops::{ControlFlow, Range};

use candle_core::Tensor;
use moeprune_capture::{Watch, expert_rows};
use moeprune_core::{GateSide, LinearId, MlpProjection};
use moeprune_model::{
    ActivationSink, Error as ModelError, Expert, HiddenSum, LayerTrunk, Routed, Router, TrunkOutput,
};

use crate::{Error, on_host::on_host, router_input::RouterInput};

/// The layer between its trunk and its outputs, on all blocks.
pub(super) struct Streams {
    batches: Vec<Batch>,
    tokens: usize,
    /// Tokens that go through an expert together.
    expert_rows: usize,
}

/// Blocks of one length that went through the trunk together.
struct Batch {
    first_token: usize,
    shape: (usize, usize),
    sum: HiddenSum,
    /// With the experts that were dropped.
    dense: Routed,
    /// Without them.
    kept: Routed,
}

/// A token that an expert receives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
    batch: u32,
    row: u32,
    /// What its input is multiplied by.
    input: f32,
    /// What its output is multiplied by in the layer with all experts; 0 if it is not chosen there.
    dense: f32,
    /// The same in the layer without the dropped experts.
    kept: Option<f32>,
}

/// An expert in the two models.
#[derive(Debug, Clone, Copy)]
pub(super) struct Both {
    /// Its index before experts went; `None` of an average.
    pub(super) dense: Option<usize>,
    /// Its index after; `None` if it went.
    pub(super) kept: Option<usize>,
}

/// What an expert made of some of its tokens.
pub(super) struct Made<'m> {
    pub(super) entries: &'m [Entry],
    /// What the down projection read, `[entries, inner]`.
    pub(super) hidden: Vec<f32>,
    /// What it wrote, `[entries, width]`.
    pub(super) output: Vec<f32>,
}

impl Streams {
    /// Runs the trunk of the layer without the dropped experts on its inputs; `router` is that of the
    /// layer with them. Returns with it the mean square per token of what the layer's output would
    /// be without any routed expert.
    pub(super) fn new(
        trunk: &LayerTrunk,
        router: &Router,
        hidden: Vec<Tensor>,
        watch: Watch<'_>,
    ) -> Result<(Self, Vec<f64>), Error> {
        let rows = hidden.first().map_or(1, |batch| expert_rows(batch.device()));
        let mut streams = Self { batches: Vec::new(), tokens: 0, expert_rows: rows };
        let mut mean_squares = Vec::new();
        for batch in hidden {
            let (blocks, len, _) = batch.dims3()?;
            let mut read = RouterInput::default();
            let TrunkOutput { sum, routed } = trunk.forward(&batch, &mut read)?;
            drop(batch);
            let (Some(kept), Some(read)) = (routed, read.0) else {
                return Err(Error::Request("a layer without experts has none to repair".into()));
            };
            let dense = kept.under(router, &read)?;
            let without = sum.so_far()?;
            let width = without.dim(1)?.max(1);
            let square = |x: &f32| f64::from(*x) * f64::from(*x);
            let rows = on_host(&without)?;
            let rows = rows.chunks_exact(width);
            mean_squares.extend(rows.map(|row| row.iter().map(square).sum::<f64>() / width as f64));
            let (first_token, shape) = (streams.tokens, (blocks, len));
            streams.tokens += blocks * len;
            streams.batches.push(Batch { first_token, shape, sum, dense, kept });
            stop_if_asked(watch, blocks * len)?;
        }
        Ok((streams, mean_squares))
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// The token that an entry is of, among all.
    pub(super) fn token(&self, entry: &Entry) -> usize {
        self.batches[entry.batch as usize].first_token + entry.row as usize
    }

    /// The tokens that an expert receives in either model, ascending. A token whose weights differ stands
    /// there twice if they multiply what the expert reads.
    pub(super) fn entries(&self, expert: Both) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (batch, streams) in self.batches.iter().enumerate() {
            let of = |routed: &Routed, expert: Option<usize>| -> Vec<(u32, f32)> {
                let (rows, gates) = expert.map_or((&[][..], &[][..]), |e| routed.gates(e));
                rows.iter().copied().zip(gates.iter().copied()).collect()
            };
            let dense = of(&streams.dense, expert.dense);
            let kept = of(&streams.kept, expert.kept);
            let (mut d, mut k) = (dense.iter().peekable(), kept.iter().peekable());
            loop {
                let next = match (d.peek(), k.peek()) {
                    (None, None) => break,
                    (Some(one), None) | (None, Some(one)) => one.0,
                    (Some(one), Some(other)) => one.0.min(other.0),
                };
                let dense = d.next_if(|(row, _)| *row == next).map(|(_, gate)| *gate);
                let kept = k.next_if(|(row, _)| *row == next).map(|(_, gate)| *gate);
                let place = (batch as u32, next);
                push_entries(&mut entries, place, streams.kept.gate_side(), (dense, kept));
            }
        }
        entries
    }

    /// Runs an expert on its tokens, several together, adds what it writes to the layer's output as the
    /// layer with all experts weighs it, and hands it to `visit`.
    pub(super) fn run(
        &mut self,
        expert: &Expert,
        entries: &[Entry],
        watch: Watch<'_>,
        mut visit: impl FnMut(&Self, Made<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for call in entries.chunks(self.expert_rows) {
            let mut read = DownInput(None);
            let output = expert.forward(&self.input(call)?, &mut read)?;
            self.add(call, &output)?;
            let hidden = read.0.ok_or_else(|| no_hidden(expert.index()))?;
            let (hidden, output) = (on_host(&hidden)?, on_host(&output)?);
            visit(self, Made { entries: call, hidden, output })?;
            stop_if_asked(watch, call.len())?;
        }
        Ok(())
    }

    /// What the down projection of an expert reads for some of its tokens, `[entries, inner]`: the
    /// numbers that [`run`](Self::run) handed out.
    pub(super) fn hidden(&self, expert: &Expert, entries: &[Entry]) -> Result<Vec<f32>, Error> {
        let mut hidden = Vec::new();
        for call in entries.chunks(self.expert_rows) {
            hidden.append(&mut on_host(&expert.hidden(&self.input(call)?)?)?);
        }
        Ok(hidden)
    }

    /// What an expert reads for some tokens.
    fn input(&self, call: &[Entry]) -> Result<Tensor, Error> {
        let mut parts = Vec::new();
        for of_batch in call.chunk_by(|a, b| a.batch == b.batch) {
            let rows: Vec<u32> = of_batch.iter().map(|entry| entry.row).collect();
            parts.push(self.batches[of_batch[0].batch as usize].kept.normed(&rows)?);
        }
        let input = match &parts[..] {
            [one] => one.clone(),
            several => Tensor::cat(several, 0)?,
        };
        if call.iter().all(|entry| entry.input == 1.0) {
            return Ok(input);
        }
        let gates: Vec<f32> = call.iter().map(|entry| entry.input).collect();
        let gates = Tensor::from_slice(&gates, (gates.len(), 1), input.device())?;
        Ok(input.broadcast_mul(&gates.to_dtype(input.dtype())?)?)
    }

    /// Adds what an expert wrote to the sums of the tokens that chose it among all experts.
    fn add(&mut self, call: &[Entry], output: &Tensor) -> Result<(), Error> {
        let mut first = 0;
        for of_batch in call.chunk_by(|a, b| a.batch == b.batch) {
            let own = output.narrow(0, first, of_batch.len())?;
            first += of_batch.len();
            let chosen: Vec<usize> =
                (0..of_batch.len()).filter(|&i| of_batch[i].dense != 0.0).collect();
            if chosen.is_empty() {
                continue;
            }
            let own = if chosen.len() == of_batch.len() {
                own
            } else {
                let places: Vec<u32> = chosen.iter().map(|&i| i as u32).collect();
                own.index_select(&Tensor::new(places, output.device())?, 0)?
            };
            let rows: Vec<u32> = chosen.iter().map(|&i| of_batch[i].row).collect();
            let gates: Vec<f32> = chosen.iter().map(|&i| of_batch[i].dense).collect();
            self.batches[of_batch[0].batch as usize].sum.add(&rows, &gates, &own)?;
        }
        Ok(())
    }

    /// The layer's outputs: what it is with all experts, less what is missing without those that were
    /// dropped, `[tokens, width]`.
    pub(super) fn finish(self, residual: &[f32]) -> Result<Vec<Tensor>, Error> {
        let width = residual.len() / self.tokens.max(1);
        let finish = |batch: Batch| -> Result<Tensor, Error> {
            let Batch { first_token, shape: (blocks, len), mut sum, dense, .. } = batch;
            let tokens = blocks * len;
            let missing = &residual[first_token * width..][..tokens * width];
            let rows: Vec<u32> = (0..tokens as u32).collect();
            let like = dense.normed(&rows[..tokens.min(1)])?;
            let missing = Tensor::from_slice(missing, (tokens, width), like.device())?;
            sum.add(&rows, &vec![-1.0; tokens], &missing.to_dtype(like.dtype())?)?;
            let rows = sum.into_tensor()?;
            let hidden = rows.dim(1)?;
            Ok(rows.reshape((blocks, len, hidden))?)
        };
        self.batches.into_iter().map(finish).collect()
    }

    /// Numbers per token of what experts write.
    pub(super) fn width(&self) -> Result<usize, Error> {
        match self.batches.first() {
            Some(batch) => Ok(batch.dense.normed(&[0])?.dim(1)?),
            None => Ok(0),
        }
    }
}

impl Entry {
    /// By how much more its output counts with all experts than without those that were dropped.
    pub(super) fn missing(&self) -> f32 {
        self.dense - self.kept.unwrap_or(0.0)
    }

    /// What its output is multiplied by in the layer with all experts.
    pub(super) fn dense(&self) -> f32 {
        self.dense
    }

    /// What its output is multiplied by without the dropped experts; `None` if the expert is not chosen
    /// then.
    pub(super) fn kept(&self) -> Option<f32> {
        self.kept
    }
}

/// What becomes of a token that an expert has with these weights.
fn push_entries(
    entries: &mut Vec<Entry>,
    (batch, row): (u32, u32),
    side: GateSide,
    (dense, kept): (Option<f32>, Option<f32>),
) {
    let mut push = |input, dense, kept| entries.push(Entry { batch, row, input, dense, kept });
    match side {
        GateSide::Output => push(1.0, dense.unwrap_or(0.0), kept),
        GateSide::Input if dense == kept => push(dense.unwrap_or(1.0), 1.0, Some(1.0)),
        GateSide::Input => {
            if let Some(gate) = dense {
                push(gate, 1.0, None);
            }
            if let Some(gate) = kept {
                push(gate, 0.0, Some(1.0));
            }
        }
    }
}

/// The places of a part of an expert's tokens.
pub(super) fn slice(entries: &[Entry], rows: Range<usize>) -> Result<&[Entry], Error> {
    let got = entries.len();
    entries.get(rows.clone()).ok_or_else(|| {
        Error::Request(format!("rows {rows:?} were asked for of an expert with {got} tokens"))
    })
}

/// Keeps what a down projection reads.
struct DownInput(Option<Tensor>);

impl ActivationSink for DownInput {
    fn linear_input(&mut self, site: LinearId, input: &Tensor) -> Result<(), ModelError> {
        if matches!(site, LinearId::Expert(_, MlpProjection::Down)) {
            self.0 = Some(input.clone());
        }
        Ok(())
    }
}

fn no_hidden(expert: usize) -> Error {
    Error::Request(format!("expert {expert} did not say what its down projection reads"))
}

fn stop_if_asked(watch: Watch<'_>, tokens: usize) -> Result<(), Error> {
    match watch(tokens as u64) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}
