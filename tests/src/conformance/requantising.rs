//! What an [`Encoding`](moeprune_core::Encoding) promises of weights that are given new values.

use moeprune_core::{
    Error, StoredWeight,
    encoding::{NewRows, Requantised, Rows},
};
use proptest::{prelude::*, test_runner::TestCaseError};

/// Holds the encoding of `weight` to its promises:
///
/// * one that is given no new values refuses them by name;
/// * what was decoded stays as it is, and zero stays zero;
/// * what new values become differs from them by no more than the
///   [rounding](moeprune_core::encoding::Requantising::rounding) that is promised;
/// * bands of rows do not depend on each other;
/// * values, or numbers of the factor to carry errors with, that are not as many as the rows need are
///   refused.
pub(super) fn check(weight: &StoredWeight<'_>, marks: &[bool]) -> Result<(), TestCaseError> {
    let Some(promised) = weight.encoding().requantising(weight.shape()) else {
        let none = NewRows { values: &mut [], stride: 0, carry: None };
        let refused = weight.encoding().requantise(weight.all(), none);
        let named = matches!(refused, Err(Error::NotEncodable(_)));
        prop_assert!(named, "new values are not refused by an encoding that has none");
        return Ok(());
    };
    what_was_decoded(weight, promised.band)?;
    let mut value = uniform();
    for size in [1e-3_f32, 1.0, 300.0] {
        let mut values: Vec<f32> = (0..weight.elements()).map(|_| value() * size).collect();
        values.iter_mut().zip(marks.iter().cycle()).filter(|(_, zero)| **zero).for_each(
            |(value, _)| {
                *value = 0.0;
            },
        );
        rounding(weight, &values, (promised.band, promised.rounding))?;
    }
    lengths(weight)
}

/// Numbers between −1 and 1.
fn uniform() -> impl FnMut() -> f32 {
    let mut state = 1_u64;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The weight with new values, encoded in pieces of `rows`.
fn with(
    weight: &StoredWeight<'_>,
    values: &[f32],
    rows: usize,
) -> Result<StoredWeight<'static>, Error> {
    let (encoding, cols) = (weight.encoding(), weight.cols());
    let companions = encoding.companions_for(largest(values), weight.companions())?;
    let all = Rows { companions: &companions, ..weight.all() };
    let pieces = (0..weight.rows()).step_by(rows).map(|first| {
        let count = rows.min(weight.rows() - first);
        let mut values = values[first * cols..(first + count) * cols].to_vec();
        let new = NewRows { values: &mut values, stride: cols, carry: None };
        encoding.requantise(all.some(first, count, encoding.row_bytes(cols)), new)
    });
    let pieces: Vec<Requantised> = pieces.collect::<Result<_, _>>()?;
    weight.requantised(companions.clone(), &pieces)
}

fn failed(error: Error) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

fn what_was_decoded(weight: &StoredWeight<'_>, band: usize) -> Result<(), TestCaseError> {
    let values = weight.to_f32();
    if values.iter().all(|value| value.is_finite()) {
        let again = with(weight, &values, band).map_err(failed)?.to_f32();
        let changed = (0..values.len()).find(|&at| again[at] != values[at]);
        prop_assert!(changed.is_none(), "what was decoded does not stay: {:?}", changed);
    }
    let zeros = with(weight, &vec![0.0; values.len()], weight.rows()).map_err(failed)?;
    prop_assert_eq!(zeros.count_zeros() as usize, values.len(), "zeros do not stay zero");
    Ok(())
}

fn rounding(
    weight: &StoredWeight<'_>,
    values: &[f32],
    (band, promised): (usize, f32),
) -> Result<(), TestCaseError> {
    let new = with(weight, values, weight.rows()).map_err(failed)?;
    let by_band = with(weight, values, band).map_err(failed)?;
    let same = new.main().bytes() == by_band.main().bytes();
    prop_assert!(same, "a band of rows depends on others");
    let new = new.to_f32();
    let zero = (0..new.len()).find(|&at| values[at] == 0.0 && new[at] != 0.0);
    prop_assert!(zero.is_none(), "a zero does not stay zero: {:?}", zero);
    // What a scale for the whole weight adds in small groups.
    let least = largest(values) / 65536.0;
    let elements = band * weight.cols();
    for (new, values) in new.chunks(elements).zip(values.chunks(elements)) {
        let square = |(new, value): (&f32, &f32)| f64::from(new - value).powi(2);
        let lost = new.iter().zip(values).map(square).sum::<f64>() / values.len() as f64;
        let most = f64::from(promised * largest(values) + least);
        prop_assert!(lost.sqrt() <= most, "rounding takes {} and not {}", lost.sqrt(), most);
    }
    Ok(())
}

fn lengths(weight: &StoredWeight<'_>) -> Result<(), TestCaseError> {
    let (encoding, cols) = (weight.encoding(), weight.cols());
    let triangle = vec![1.0; cols * (cols + 1) / 2];
    for (count, stride, carried) in [
        (weight.elements() - 1, cols, None),
        (weight.elements() + cols, cols, None),
        (weight.elements() - weight.rows(), cols - 1, None),
        (weight.elements(), cols, Some(&triangle[1..])),
    ] {
        let mut values = vec![1.0; count];
        let new = NewRows { values: &mut values, stride, carry: carried };
        let refused = matches!(encoding.requantise(weight.all(), new), Err(Error::Length { .. }));
        prop_assert!(refused, "{} new values in rows of {} are taken", count, stride);
    }
    Ok(())
}
