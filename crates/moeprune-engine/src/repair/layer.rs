//! One layer: run with all experts and without those that go, and repaired.

use std::{iter, mem, ops::Range, path::Path};

use candle_core::Tensor;
use moeprune_capture::{StoredLayer, Watch, for_each_loaded_expert};
use moeprune_core::{
    ExpertRepair, LayerRepair, LayerToRepair, SurvivingExpert,
    repair::{HeldOutError, RepairedLayer},
};
use moeprune_model::{LayerTrunk, Router};
use rayon::prelude::*;

use super::{
    blocks::RepairTokens,
    cost::Holding,
    store::{LayerStore, RepairFiles, gated},
    streams::{Both, Entry, Made, Streams},
    supervised::{Shared, supervised},
};
use crate::{
    Error, Execution, KeptExperts, Model, Stage,
    finite::{Finite, first_not_finite},
    kept_experts::repaired_parts::After,
};

/// What layers are repaired with.
#[derive(Clone, Copy)]
pub(super) struct RepairTask<'a> {
    /// The model whose outputs are wanted.
    pub(super) wanted: &'a dyn Model,
    /// The model that is repaired.
    pub(super) kept: &'a KeptExperts<'a>,
    pub(super) repair: &'a Stage<dyn ExpertRepair>,
    pub(super) execution: &'a Execution,
    pub(super) tokens: &'a RepairTokens,
    pub(super) after: After,
    /// Where files are kept meanwhile.
    pub(super) folder: &'a Path,
}

/// A layer that was repaired.
pub(super) struct Repaired {
    pub(super) report: RepairedLayer,
    /// The experts whose weights were replaced.
    pub(super) replaced: Vec<usize>,
    /// The layer's outputs.
    pub(super) hidden: Vec<Tensor>,
}

impl RepairTask<'_> {
    /// Repairs a layer that lost experts, given its inputs.
    pub(super) fn repair(
        &self,
        layer: usize,
        (hidden, holding): (Vec<Tensor>, Holding),
        watch: Watch<'_>,
    ) -> Result<Repaired, Error> {
        let Self { kept, execution, .. } = *self;
        let (spec, compute) = (kept.spec(), execution.compute());
        let trunk = LayerTrunk::load(kept, spec, layer, compute)?;
        let source = &Finite(self.wanted);
        let router = Router::read(source, self.wanted.spec(), layer, compute)?;
        let (streams, squares) = Streams::new(&trunk, &router, hidden, watch)?;
        drop(trunk);
        let token_weights = token_weights(&squares, self.tokens.fitted, spec.norm_eps);
        let stored = StoredLayer { source: kept, spec, layer, compute };
        let experts = 0..spec.moe_of(layer).map_or(0, |moe| moe.experts);
        let tokens: Vec<usize> =
            experts.map(|e| streams.entries(Both { dense: None, kept: Some(e) }).len()).collect();
        let files = RepairFiles { folder: self.folder, after: self.after, holding };
        let store = LayerStore::new(kept, stored, &tokens, files)?;
        let written = Written::new(self.tokens, streams.width()?);
        let residual = vec![0.0; streams.tokens() * written.width];
        let mut pass = ExpertPass { task: *self, layer, streams, store, residual, written };
        pass.run(source, watch)?;
        pass.repair(&token_weights, watch)
    }
}

/// How much an error at a token counts: the next norm divides by the length of the stream, so what is
/// added to a short one weighs more. `1 / mean square`, over the mean of that over fitted tokens.
pub(super) fn token_weights(mean_squares: &[f64], fitted: usize, eps: f64) -> Vec<f32> {
    let inverse = |square: &f64| 1.0 / square.max(eps.max(f64::MIN_POSITIVE));
    let fitted = &mean_squares[..fitted.min(mean_squares.len())];
    let mean = fitted.iter().map(inverse).sum::<f64>() / fitted.len().max(1) as f64;
    mean_squares.iter().map(|square| (inverse(square) / mean) as f32).collect()
}

/// What all experts of the layer write at some of the tokens, for the size of an error.
struct Written {
    width: usize,
    /// Per token its row in `sums`.
    rows: Vec<Option<u32>>,
    sums: Vec<f32>,
}

impl Written {
    fn new(tokens: &RepairTokens, width: usize) -> Self {
        let mut next = 0;
        let rows = tokens.sampled().map(|sampled| {
            sampled.then(|| {
                next += 1;
                next - 1
            })
        });
        let rows: Vec<Option<u32>> = rows.collect();
        Self { width, rows, sums: vec![0.0; next as usize * width] }
    }

    fn add(&mut self, token: usize, factor: f32, output: &[f32]) {
        let Some(row) = self.rows[token] else { return };
        let sum = &mut self.sums[row as usize * self.width..][..self.width];
        sum.iter_mut().zip(output).for_each(|(s, o)| *s += factor * o);
    }

    /// The weighted square over some tokens, estimated from those of them that are kept.
    fn square(&self, tokens: Range<usize>, weights: &[f32]) -> f64 {
        let (mut squares, mut seen, mut all) = (0.0, 0.0, 0.0);
        for token in tokens {
            let weight = f64::from(weights[token]);
            all += weight;
            if let Some(row) = self.rows[token] {
                let sum = &self.sums[row as usize * self.width..][..self.width];
                seen += weight;
                squares += weight * sum.iter().map(|&s| f64::from(s) * f64::from(s)).sum::<f64>();
            }
        }
        if seen > 0.0 { squares * all / seen } else { 0.0 }
    }
}

/// The experts of a layer, one after the other, and what is missing without those that go.
struct ExpertPass<'p> {
    task: RepairTask<'p>,
    layer: usize,
    streams: Streams,
    store: LayerStore<'p>,
    residual: Vec<f32>,
    written: Written,
}

impl<'p> ExpertPass<'p> {
    /// Runs each expert on the tokens that it receives in either model.
    fn run(&mut self, source: &Finite<'_>, watch: Watch<'_>) -> Result<(), Error> {
        let RepairTask { kept, execution, .. } = self.task;
        let (layer, compute) = (self.layer, execution.compute());
        let spec = source.0.spec();
        let before = spec.moe_of(layer).map_or(0, |moe| moe.experts);
        let after = self.task.after;
        let changed = |survivor: usize| after == After::Masks || kept.is_average(layer, survivor);
        let unchanged = |e| kept.index_of(layer, e).filter(|&survivor| !changed(survivor));
        let all: Vec<Both> =
            (0..before).map(|e| Both { dense: Some(e), kept: unchanged(e) }).collect();
        let stored = StoredLayer { source, spec, layer, compute };
        self.run_each(stored, all, |both| both.dense, watch)?;
        let others = (0..self.store.experts.len()).filter(|&survivor| changed(survivor));
        let others = others.map(|i| Both { dense: None, kept: Some(i) }).collect();
        self.run_each(self.store.stored, others, |both| both.kept, watch)
    }

    fn run_each(
        &mut self,
        stored: StoredLayer<'_>,
        experts: Vec<Both>,
        index: impl Fn(&Both) -> Option<usize>,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let mut busy: Vec<(usize, Both, Vec<Entry>)> = Vec::new();
        for both in experts {
            let entries = self.streams.entries(both);
            if let (Some(index), false) = (index(&both), entries.is_empty()) {
                busy.push((index, both, entries));
            }
        }
        let order: Vec<usize> = busy.iter().map(|(index, ..)| *index).collect();
        let mut busy = busy.into_iter();
        for_each_loaded_expert(stored, &order, |expert| {
            let Some((_, both, entries)) = busy.next() else { return Ok(()) };
            let Self { streams, store, residual, written, layer, .. } = self;
            streams.run(&expert, &entries, watch, |streams, made| {
                check_finite(*layer, expert.index(), &made)?;
                take(streams, &made, residual, written);
                match both.kept {
                    Some(survivor) => keep(streams, &made, store, survivor),
                    None => Ok(()),
                }
            })
        })
    }

    /// Has the experts repaired, and makes the layer's outputs of what is then still missing.
    fn repair(self, token_weights: &[f32], watch: Watch<'_>) -> Result<Repaired, Error> {
        let Self { task, layer, streams, store, mut residual, written } = self;
        let tokens = task.tokens;
        let width = written.width;
        let errors = Errors::new(tokens, &written, token_weights);
        drop(written);
        let shared = &Shared::default();
        let on = store.with(&streams, shared);
        let mut to_repair = LayerToRepair {
            layer,
            width,
            residual: &mut residual,
            token_weights: &tokens.by_their_texts(token_weights),
            fitted: tokens.fitted,
            experts: &store.experts,
            store: &on,
        };
        let before = errors.of(to_repair.residual);
        let done = supervised(shared, watch, || task.repair.repair(&mut to_repair));
        let done = done.ok_or(Error::Stopped)?.map_err(Error::stage("repair", layer))?;
        let after = errors.of(to_repair.residual);
        check_report(layer, &done, &store.experts)?;
        if let Some(place) = residual.iter().position(|missing| !missing.is_finite()) {
            let problem =
                format!("what is missing of token {} is not finite", place / width.max(1));
            return Err(Error::Contract { stage: "repair", layer, problem });
        }
        let fitted: Vec<u64> =
            store.experts.iter().map(|e| e.fitted_tokens(tokens.fitted) as u64).collect();
        let columns: usize = store.experts.iter().map(|expert| expert.features).sum();
        let pairs = before.into_iter().zip(after).map(|(before, after)| match (before, after) {
            (Some(before), Some(after)) => Some(HeldOutError { before, after }),
            _ => None,
        });
        let mut pairs = pairs.collect::<Vec<_>>().into_iter();
        let of_fitted = pairs.next().flatten();
        let mut report = RepairedLayer {
            repair: done,
            output: errors.outputs[0],
            fitted: of_fitted.unwrap_or(HeldOutError { before: 0.0, after: 0.0 }),
            tokens_per_column: fitted.iter().sum::<u64>() as f64 / columns.max(1) as f64,
            tokens: fitted,
            held_out: pairs.collect(),
            parts: None,
        };
        let (replaced, parts) = store.finish()?;
        report.parts = Some(parts);
        Ok(Repaired { report, replaced, hidden: streams.finish(&residual)? })
    }
}

/// What is missing as a share of what experts wrote: at the fitted tokens, and at the held-out ones of each
/// text.
struct Errors<'e> {
    ranges: Vec<Range<usize>>,
    outputs: Vec<f64>,
    token_weights: &'e [f32],
    width: usize,
}

impl<'e> Errors<'e> {
    fn new(tokens: &RepairTokens, written: &Written, token_weights: &'e [f32]) -> Self {
        let fitted = iter::once(0..tokens.fitted);
        let ranges: Vec<Range<usize>> = fitted.chain(tokens.held_out.iter().cloned()).collect();
        let of = |range: &Range<usize>| written.square(range.clone(), token_weights);
        let outputs = ranges.iter().map(of).collect();
        Self { ranges, outputs, token_weights, width: written.width }
    }

    /// `None` of a text without tokens.
    fn of(&self, residual: &[f32]) -> Vec<Option<f64>> {
        let error = |range: &Range<usize>| -> f64 {
            let rows = &residual[range.start * self.width..range.end * self.width];
            let rows = rows.chunks_exact(self.width.max(1)).zip(&self.token_weights[range.clone()]);
            let square =
                |row: &[f32]| row.iter().map(|&r| f64::from(r) * f64::from(r)).sum::<f64>();
            rows.map(|(row, &weight)| f64::from(weight) * square(row)).sum()
        };
        let shares = self.ranges.iter().zip(&self.outputs).map(|(range, &output)| {
            let share = if output > 0.0 { error(range) / output } else { 0.0 };
            (!range.is_empty()).then_some(share)
        });
        shares.collect()
    }
}

/// Adds what an expert wrote to what is missing, and to what all wrote.
fn take(streams: &Streams, made: &Made<'_>, residual: &mut [f32], written: &mut Written) {
    let width = written.width;
    add_missing(streams, made, residual, width);
    for (entry, output) in made.entries.iter().zip(made.output.chunks_exact(width.max(1))) {
        if entry.dense() != 0.0 {
            written.add(streams.token(entry), entry.dense(), output);
        }
    }
}

/// Entries whose outputs one thread adds.
const ENTRIES: usize = 64;

/// Adds what an expert wrote to what is missing, on all threads: tokens ascend, so each thread has a stretch
/// of the residual.
fn add_missing(streams: &Streams, made: &Made<'_>, residual: &mut [f32], width: usize) {
    let (mut rest, mut passed) = (residual, 0);
    let mut work = Vec::new();
    let mut entries = made.entries;
    let mut outputs = &made.output[..];
    while let Some(first) = entries.first().map(|entry| streams.token(entry)) {
        let mut count = entries.len().min(ENTRIES);
        let last = streams.token(&entries[count - 1]);
        // A token whose weights differ can have two entries.
        count += entries[count..].iter().take_while(|e| streams.token(e) == last).count();
        let (own, others) = entries.split_at(count);
        let (output, others_output) = outputs.split_at(count * width);
        let (_, after) = mem::take(&mut rest).split_at_mut((first - passed) * width);
        let (stretch, after) = after.split_at_mut((last + 1 - first) * width);
        work.push((first, own, output, stretch));
        (entries, outputs, rest, passed) = (others, others_output, after, last + 1);
    }
    work.into_par_iter().for_each(|(first, entries, output, residual)| {
        for (entry, output) in entries.iter().zip(output.chunks_exact(width.max(1))) {
            let missing = entry.missing();
            if missing != 0.0 {
                let row = &mut residual[(streams.token(entry) - first) * width..][..width];
                row.iter_mut().zip(output).for_each(|(r, o)| *r += missing * o);
            }
        }
    });
}

/// Keeps what the down projection of a survivor read.
fn keep(
    streams: &Streams,
    made: &Made<'_>,
    store: &mut LayerStore<'_>,
    survivor: usize,
) -> Result<(), Error> {
    let own = made.entries.iter().filter(|entry| entry.kept().is_some());
    let tokens: Vec<u32> = own.map(|entry| streams.token(entry) as u32).collect();
    let features = store.experts[survivor].features;
    store.add(survivor, &tokens, &gated(made.entries, &made.hidden, features))
}

fn check_finite(layer: usize, expert: usize, made: &Made<'_>) -> Result<(), Error> {
    if [&made.hidden, &made.output].into_iter().any(|of| first_not_finite(of).is_some()) {
        return Err(Error::Request(format!(
            "layer {layer}: what expert {expert} makes of a calibration token is not finite, so the \
             layer cannot be repaired; leave the repair out"
        )));
    }
    Ok(())
}

/// Refuses a report that does not name each expert once.
fn check_report(
    layer: usize,
    done: &LayerRepair,
    experts: &[SurvivingExpert],
) -> Result<(), Error> {
    let named: Vec<usize> = done.experts.iter().map(|expert| expert.expert).collect();
    if named.iter().copied().eq(0..experts.len()) {
        return Ok(());
    }
    let problem = format!("it reports on experts {named:?}, of {} that there are", experts.len());
    Err(Error::Contract { stage: "repair", layer, problem })
}

#[cfg(test)]
mod tests;
