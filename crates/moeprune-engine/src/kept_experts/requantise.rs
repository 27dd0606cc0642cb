//! New weights in the encoding that the old ones are stored in.

use moeprune_core::{
    Error, StoredWeight,
    encoding::{NewRows, Requantised, Rows},
};
use rayon::prelude::*;

/// Rows that one thread encodes at a time, where fewer do not share scales.
const ROWS: usize = 64;

/// New weights of an expert.
pub(crate) struct NewWeights<'a> {
    /// `[width, features]`.
    pub(crate) weights: Vec<f32>,
    pub(crate) features: usize,
    /// Where errors of rounded columns are carried.
    pub(crate) carry: Option<&'a [f32]>,
}

/// Encodes the first columns of new weights as `old` is, with new scales. What is carried from them to the
/// columns behind is added to these.
///
/// # Errors
/// [`Error::NotEncodable`] if the encoding is only read and zeroed.
pub(super) fn requantise(
    old: &StoredWeight<'_>,
    new: &mut NewWeights<'_>,
) -> Result<StoredWeight<'static>, Error> {
    let (encoding, stride, carry) = (old.encoding(), new.features.max(1), new.carry);
    let how = encoding.requantising(old.shape());
    let how = how.ok_or_else(|| Error::NotEncodable(encoding.name()))?;
    let largest = new.weights.par_chunks(stride).map(|row| {
        row[..old.cols()].iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()))
    });
    let companions = encoding.companions_for(largest.reduce(|| 0.0, f32::max), old.companions())?;
    let rows = how.band * (ROWS / how.band.max(1)).max(1);
    let pieces = new.weights.par_chunks_mut(rows * stride).enumerate();
    let pieces = pieces.map(|(piece, values)| {
        let stored = old.some(piece * rows, values.len() / stride);
        let stored = Rows { companions: &companions, ..stored };
        encoding.requantise(stored, NewRows { values, stride, carry })
    });
    let pieces: Vec<Requantised> = pieces.collect::<Result<_, Error>>()?;
    old.requantised(companions.clone(), &pieces)
}
