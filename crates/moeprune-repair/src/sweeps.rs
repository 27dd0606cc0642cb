//! One sweep over a layer's experts after the other.

use moeprune_core::repair::{ExpertOutcome, HeldOutError, RepairedExpert};
use moeprune_linalg::Real;
use rayon::prelude::*;

use crate::{
    Error, Layer, Refit, Ridge,
    expert::Expert,
    residual,
    ridge::{Evidence, Ridges, Spread},
    rounding::Rounding,
    support::Rows,
    system,
};

/// Sweeps after which the ridge is estimated.
pub(crate) const ESTIMATES: usize = 2;

/// Codes of so many bits are so coarse that the error of a rounded column is carried to later ones.
const COARSE: u32 = 4;

/// What is known of a layer's experts between two sweeps.
pub(crate) struct Sweeps<'a, T> {
    refit: &'a Refit,
    ridges: Ridges,
    experts: Vec<State>,
    rounding: Rounding<T>,
}

/// Of one expert.
#[derive(Debug, Clone, Copy)]
struct State {
    spread: Spread,
    /// Effective parameters per output, in the last sweep.
    effective: f64,
    /// The squares of all changes so far.
    change: f64,
    /// The largest weight now over the largest before.
    growth: f64,
}

/// New weights of an expert, before they are stored.
struct Solved {
    change: Vec<f64>,
    /// Effective parameters per output.
    effective: f64,
    /// Where errors of rounded columns are carried, if codes are coarse.
    carry: Option<Vec<f32>>,
}

impl State {
    /// Whether any fitted token says something about the expert.
    fn is_fitted(&self) -> bool {
        self.spread.trace > 0.0
    }
}

impl<'a, T: Real> Sweeps<'a, T> {
    /// Before the first sweep: the Gram matrices are summed up.
    pub(crate) fn new(refit: &'a Refit, layer: &Layer<'_, T>) -> Result<Self, Error> {
        let mut experts = Vec::with_capacity(layer.experts.len());
        for index in 0..layer.experts.len() {
            let expert = Expert::new(layer, index);
            let (tokens, features) = (expert.fitted, expert.features);
            let empty = tokens == 0 || features == 0 || layer.width == 0;
            let trace = if empty { 0.0 } else { system::keep_gram(&expert, layer.token_weights)? };
            let coarse = expert.code_bits().is_some_and(|bits| bits <= COARSE);
            let spread = Spread { tokens, features, trace, coarse };
            experts.push(State { spread, effective: 0.0, change: 0.0, growth: 1.0 });
        }
        let spreads: Vec<Spread> = experts.iter().map(|state| state.spread).collect();
        let (ridges, rounding) = (Ridges::new(refit.ridge, &spreads), Rounding::new(layer));
        Ok(Self { refit, ridges, experts, rounding })
    }

    /// Refits each expert once; `sweep` counts from 0.
    pub(crate) fn run(&mut self, layer: &mut Layer<'_, T>, sweep: usize) -> Result<(), Error> {
        let settled = self.refit.ridge != Ridge::Automatic || sweep >= ESTIMATES;
        let keep = settled && sweep + 1 < self.refit.sweeps;
        self.rounding.clear();
        for index in 0..self.experts.len() {
            if self.experts[index].is_fitted() {
                self.refit_expert(layer, index, keep)?;
            }
        }
        Ok(())
    }

    fn refit_expert(
        &mut self,
        layer: &mut Layer<'_, T>,
        index: usize,
        keep: bool,
    ) -> Result<(), Error> {
        let expert = Expert::new(layer, index).hold()?;
        let (old, original) = (expert.weights()?, expert.original_weights()?);
        let missing = expert.missing(layer.residual, layer.token_weights)?;
        let Solved { change, effective, carry } = if self.refit.keep_zeros {
            self.solve_rows(layer, &expert, [&old, &original], &missing)?
        } else {
            self.solve(layer, &expert, [&old, &original], missing, keep)?
        };
        let wanted: Vec<T> =
            old.par_iter().zip(&change).map(|(w, x)| T::from_f64(w.to_f64() + x)).collect();
        drop(change);
        let new = if expert.code_bits().is_some() {
            let new = expert.replace_carrying(wanted.clone(), carry.as_deref())?;
            self.rounding.add(layer, &expert, [&wanted, &new])?;
            new
        } else {
            expert.replace(wanted)?
        };
        let delta: Vec<T> = new.par_iter().zip(&old).map(|(&new, &old)| new - old).collect();
        residual::subtract(layer.residual, &expert, &delta)?;

        let state = &mut self.experts[index];
        state.change = squared_distance(&new, &original);
        state.effective = effective;
        state.growth = growth(&new, &original);
        Ok(())
    }

    /// The change of all weights.
    fn solve(
        &mut self,
        layer: &Layer<'_, T>,
        expert: &Expert<'_, T>,
        [old, original]: [&[T]; 2],
        mut missing: Vec<f64>,
        keep: bool,
    ) -> Result<Solved, Error> {
        let inverse = system::inverse(expert, layer.token_weights, &mut self.ridges, keep)?;
        let ridge = self.ridges.now[expert.index];
        missing.par_iter_mut().zip(old).zip(original).for_each(|((x, w), original)| {
            *x -= ridge * (w.to_f64() - original.to_f64());
        });
        inverse.apply(&mut missing);
        let effective = expert.features as f64 - ridge * inverse.trace();
        let coarse = self.experts[expert.index].spread.coarse;
        let carry = coarse.then(|| inverse.packed().into_iter().map(|x| x as f32).collect());
        Ok(Solved { change: missing, effective, carry })
    }

    /// The same where zeros stay.
    fn solve_rows(
        &mut self,
        layer: &Layer<'_, T>,
        expert: &Expert<'_, T>,
        [weights, original]: [&[T]; 2],
        missing: &[f64],
    ) -> Result<Solved, Error> {
        let gram = system::gram(expert, layer.token_weights)?;
        let rows = Rows { gram: &gram, features: expert.features, original, weights, missing };
        let solved = system::with_ridge(expert, &mut self.ridges, |ridge| Ok(rows.solve(ridge)));
        let (change, effective) = solved?;
        Ok(Solved { change, effective: effective / expert.width as f64, carry: None })
    }

    /// Sets the ridge of the sweeps to come by what sweep `sweep` left missing, if it was one of the first.
    pub(crate) fn estimate_ridge(&mut self, layer: &Layer<'_, T>, sweep: usize, error: f64) {
        if self.refit.ridge != Ridge::Automatic || sweep >= ESTIMATES {
            return;
        }
        self.ridges.estimate(&Evidence {
            error,
            tokens: layer.fitted,
            width: layer.width,
            effective: self.experts.iter().map(|state| state.effective).sum(),
            change: self.experts.iter().map(|state| state.change).sum(),
        });
    }

    /// What rounding to codes costs after the last sweep; `None` if no weights are in codes.
    pub(crate) fn rounding(&self, layer: &Layer<'_, T>) -> Option<HeldOutError> {
        self.rounding.cost(layer)
    }

    /// What became of the experts, if nothing is taken back.
    pub(crate) fn outcomes(&self) -> Vec<RepairedExpert> {
        let experts = self.experts.iter().zip(&self.ridges.now).enumerate();
        experts
            .map(|(index, (state, &ridge))| {
                if state.is_fitted() {
                    RepairedExpert::refitted(index, ridge, state.growth)
                } else {
                    RepairedExpert::unchanged(index, ExpertOutcome::NoTokens)
                }
            })
            .collect()
    }
}

/// Weights whose sums are taken by one thread.
const WEIGHTS: usize = 1 << 16;

/// The squares of all differences, summed up piece by piece.
fn squared_distance<T: Real>(a: &[T], b: &[T]) -> f64 {
    let of_piece = |(a, b): (&[T], &[T])| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a.to_f64() - b.to_f64()).powi(2)).sum()
    };
    let pieces: Vec<f64> = a.par_chunks(WEIGHTS).zip(b.par_chunks(WEIGHTS)).map(of_piece).collect();
    pieces.into_iter().sum()
}

/// The largest of `new` over the largest of `old`.
fn growth<T: Real>(new: &[T], old: &[T]) -> f64 {
    let largest =
        |weights: &[T]| weights.par_iter().map(|w| w.to_f64().abs()).reduce(|| 0.0, f64::max);
    let (new, old) = (largest(new), largest(old));
    if new == old { 1.0 } else { new / old.max(f64::from(f32::MIN_POSITIVE)) }
}
