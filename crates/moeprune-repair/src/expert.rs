//! One expert of a layer, and its activations in pieces.

use std::ops::Range;

use moeprune_core::StageError;
use moeprune_linalg::{Gram, Real, add_cross_products};
use rayon::prelude::*;

use crate::{Error, Layer, Store};

/// Rows of activations that are read, or multiplied, at a time.
const PIECE: usize = 4096;
/// Weights that one thread looks at at a time.
const WEIGHTS: usize = 1 << 16;
/// Bytes of one expert's activations that are held, to be read once and used twice.
pub(crate) const HELD: usize = 1 << 30;

/// An expert that is being worked on.
pub(crate) struct Expert<'a, T> {
    layer: usize,
    pub(crate) index: usize,
    pub(crate) width: usize,
    pub(crate) features: usize,
    pub(crate) tokens: &'a [u32],
    /// How many of its tokens are fitted.
    pub(crate) fitted: usize,
    store: &'a dyn Store<T>,
    /// All of its pieces, or none if they are too large.
    held: Vec<Vec<T>>,
}

impl<'a, T: Real> Expert<'a, T> {
    /// The expert in this place of `layer`; nothing is read yet.
    pub(crate) fn new(layer: &Layer<'a, T>, index: usize) -> Self {
        let survivor = &layer.experts[index];
        Self {
            layer: layer.layer,
            index,
            width: layer.width,
            features: survivor.features,
            tokens: &survivor.tokens,
            fitted: survivor.fitted_tokens(layer.fitted),
            store: layer.store,
            held: Vec::new(),
        }
    }

    /// Reads its activations to be used more than once, if they are not too many.
    pub(crate) fn hold(mut self) -> Result<Self, Error> {
        let bytes = self.tokens.len().saturating_mul(self.features).saturating_mul(size_of::<T>());
        if bytes <= HELD {
            let pieces = pieces(0..self.tokens.len());
            self.held = pieces.map(|rows| self.read(rows)).collect::<Result<_, _>>()?;
        }
        Ok(self)
    }

    /// Calls `work` with each piece of some rows, in their order: which rows, and their activations.
    pub(crate) fn for_each_piece(
        &self,
        rows: Range<usize>,
        mut work: impl FnMut(Range<usize>, &[T]),
    ) -> Result<(), Error> {
        for piece in pieces(rows) {
            match self.held.get(piece.start / PIECE) {
                Some(held) => {
                    let first = piece.start % PIECE * self.features;
                    work(piece.clone(), &held[first..first + piece.len() * self.features]);
                }
                None => work(piece.clone(), &self.read(piece)?),
            }
        }
        Ok(())
    }

    fn read(&self, rows: Range<usize>) -> Result<Vec<T>, Error> {
        let expected = rows.len() * self.features;
        let values = self.store.activations(self.index, rows);
        self.sized(values, "read its activations", "activations", expected)
    }

    /// Its weights now.
    pub(crate) fn weights(&self) -> Result<Vec<T>, Error> {
        let weights = self.store.weights(self.index);
        self.sized(weights, "read its weights", "weights", self.width * self.features)
    }

    /// Its weights before any was replaced.
    pub(crate) fn original_weights(&self) -> Result<Vec<T>, Error> {
        let weights = self.store.original_weights(self.index);
        self.sized(weights, "read its weights", "weights", self.width * self.features)
    }

    /// Stores new weights and returns what they have become.
    pub(crate) fn replace(&self, weights: Vec<T>) -> Result<Vec<T>, Error> {
        self.replace_carrying(weights, None)
    }

    /// The same, with a factor that says how later columns make up for the rounding of those before them.
    pub(crate) fn replace_carrying(
        &self,
        weights: Vec<T>,
        carry: Option<&[f32]>,
    ) -> Result<Vec<T>, Error> {
        self.check_finite(&weights)?;
        let stored = match carry {
            Some(carry) => self.store.replace_carrying(self.index, weights, carry),
            None => self.store.replace(self.index, weights),
        };
        let expected = self.width * self.features;
        let stored = self.sized(stored, "store its new weights", "weights", expected)?;
        self.check_finite(&stored)?;
        Ok(stored)
    }

    /// Bits per weight, if new ones are stored as codes with scales.
    pub(crate) fn code_bits(&self) -> Option<u32> {
        self.store.code_bits(self.index)
    }

    fn check_finite(&self, weights: &[T]) -> Result<(), Error> {
        // Whole pieces, gone through without leaving them early: most often none is found.
        let is_finite =
            |piece: &[T]| piece.iter().fold(true, |all, w| all & w.to_f64().is_finite());
        if weights.par_chunks(WEIGHTS).all(is_finite) {
            return Ok(());
        }
        match weights.iter().position(|w| !w.to_f64().is_finite()) {
            None => Ok(()),
            Some(at) => Err(Error::NotFinite {
                layer: self.layer,
                expert: self.index,
                row: at / self.features,
                col: at % self.features,
                value: weights[at].to_f64(),
            }),
        }
    }

    pub(crate) fn keep(&self, numbers: &[f64]) -> Result<(), Error> {
        self.stored(self.store.keep(self.index, numbers), "keep what was computed of it")
    }

    pub(crate) fn kept(&self) -> Result<Option<Vec<f64>>, Error> {
        self.stored(self.store.kept(self.index), "read what was kept of it")
    }

    fn stored<R>(&self, result: Result<R, StageError>, what: &'static str) -> Result<R, Error> {
        let (layer, expert) = (self.layer, self.index);
        result.map_err(|source| Error::Store { layer, expert, what, source })
    }

    fn sized(
        &self,
        values: Result<Vec<T>, StageError>,
        doing: &'static str,
        what: &'static str,
        expected: usize,
    ) -> Result<Vec<T>, Error> {
        let values = self.stored(values, doing)?;
        let got = values.len();
        if got == expected {
            return Ok(values);
        }
        let (layer, expert) = (self.layer, self.index);
        Err(Error::ExpertShape { layer, expert, what, expected, got })
    }

    /// `Σ ω a aᵀ` over its fitted tokens, `a` a row of its activations.
    pub(crate) fn gram(&self, token_weights: &[T]) -> Result<Gram, Error> {
        let mut gram = Gram::new(self.features);
        self.for_each_piece(0..self.fitted, |rows, values| {
            let mut weighted = values.to_vec();
            let rows = weighted.par_chunks_mut(self.features.max(1)).zip(&self.tokens[rows]);
            rows.for_each(|(row, &token)| {
                let weight = T::from_f64(token_weights[token as usize].to_f64().sqrt());
                row.iter_mut().for_each(|x| *x = *x * weight);
            });
            gram.add(&weighted);
        })?;
        Ok(gram)
    }

    /// `Σ ω r aᵀ` over its fitted tokens, `r` a row of the residual: `[width, features]`.
    pub(crate) fn missing(&self, residual: &[T], token_weights: &[T]) -> Result<Vec<f64>, Error> {
        let width = self.width;
        let mut sums = vec![0.0; width * self.features];
        self.for_each_piece(0..self.fitted, |rows, values| {
            let mut gathered = vec![T::ZERO; rows.len() * width];
            let rows = gathered.par_chunks_mut(width).zip(&self.tokens[rows]);
            rows.for_each(|(row, &token)| {
                let weight = token_weights[token as usize];
                let missing = &residual[token as usize * width..][..width];
                row.iter_mut().zip(missing).for_each(|(x, &missing)| *x = missing * weight);
            });
            add_cross_products(&mut sums, &gathered, values, [width, self.features]);
        })?;
        Ok(sums)
    }

    pub(crate) fn not_finite_sums(&self, value: f64) -> Error {
        Error::Activations { layer: self.layer, expert: self.index, value }
    }

    pub(crate) fn not_positive_definite(&self, ridge: f64) -> Error {
        Error::NotPositiveDefinite { layer: self.layer, expert: self.index, ridge }
    }
}

/// Rows cut at multiples of [`PIECE`].
fn pieces(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = rows.start / PIECE;
    (first..rows.end.div_ceil(PIECE))
        .map(move |piece| {
            let (start, end) = (piece * PIECE, (piece + 1) * PIECE);
            start.max(rows.start)..end.min(rows.end)
        })
        .filter(|piece| !piece.is_empty())
}
