//! Sums of one group over blocks, the same for any division of the blocks.

use std::ops::Range;

use super::{
    Shape, WideSum,
    statistic::{self, Kind, Statistic, Statistics, Values, ValuesMut},
};
use crate::Error;

/// A group of statistics whose sums are exact over blocks: a block's own sum is a double, added up in the order of
/// its tokens; the blocks' sums are added as [`WideSum`]s, in any order and any grouping.
///
/// What is accumulated goes into the [open](Self::open) group as if it were all there is, and a block's end
/// [closes](Self::close) it. Counts and maxima, which are exact anyway, stay there.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactSums<S> {
    open: S,
    /// Per row of the table, as many as its field has values if that is a sum of doubles, none if it is not.
    closed: Vec<Vec<WideSum>>,
}

/// Whether a row's doubles are added up.
fn is_summed<S>(row: &Statistic<S>) -> bool {
    matches!(row.kind, Kind::Sum | Kind::SignedSum)
}

impl<S: Statistics + Clone> ExactSums<S> {
    /// Of a group with all sums zero.
    #[must_use]
    pub fn new(zero: S) -> Self {
        let of_row = |row: &Statistic<S>| match row.of(&zero) {
            Values::Floats(values) if is_summed(row) => vec![WideSum::ZERO; values.len()],
            _ => Vec::new(),
        };
        let closed = S::ROWS.iter().map(of_row).collect();
        Self { open: zero, closed }
    }

    /// Counts, maxima, and the sums of what is not closed yet.
    #[must_use]
    pub fn open(&self) -> &S {
        &self.open
    }

    /// The same, to accumulate into.
    pub fn open_mut(&mut self) -> &mut S {
        &mut self.open
    }

    /// Ends a block: what was summed since the last end is added to the blocks' sums.
    ///
    /// A sum that is not finite, or too large for a [`WideSum`], stays in the [open](Self::open) group as an
    /// infinity or no number.
    pub fn close(&mut self) {
        self.close_rows(|row, len| is_summed(row).then_some(0..len));
    }

    /// As [`close`](Self::close), of one expert alone: its rows, and its features' rows.
    pub fn close_expert(&mut self, expert: usize) {
        let experts = self.open.experts().max(1);
        self.close_rows(|row, len| match row.shape {
            Shape::PerExpert if is_summed(row) => Some(expert..(expert + 1).min(len)),
            Shape::PerExpertFeature if is_summed(row) => {
                let width = len / experts;
                Some(expert * width..(expert + 1) * width)
            }
            _ => None,
        });
    }

    /// As [`close`](Self::close), of the rows that have one value per expert.
    pub fn close_values_of_experts(&mut self) {
        self.close_rows(|row, len| {
            (is_summed(row) && row.shape == Shape::PerExpert).then_some(0..len)
        });
    }

    fn close_rows(&mut self, range: impl Fn(&Statistic<S>, usize) -> Option<Range<usize>>) {
        for (row, closed) in S::ROWS.iter().zip(&mut self.closed) {
            let ValuesMut::Floats(open) = row.of_mut(&mut self.open) else { continue };
            let Some(range) = range(row, open.len()) else { continue };
            let (Some(open), Some(closed)) = (open.get_mut(range.clone()), closed.get_mut(range))
            else {
                continue;
            };
            for (open, closed) in open.iter_mut().zip(closed) {
                if *open == 0.0 {
                    continue;
                }
                match WideSum::of(*open).and_then(|more| closed.checked_add(more)) {
                    Some(sum) => (*closed, *open) = (sum, 0.0),
                    None if open.is_nan() => {}
                    None => *open = f64::INFINITY.copysign(*open),
                }
            }
        }
    }

    /// Adds the sums of other blocks.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if they are not of the same model, or a sum or a count would be too large.
    pub fn add(&mut self, other: &Self) -> Result<(), Error> {
        let mut other = other.clone();
        other.close();
        self.close();
        statistic::add(&mut self.open, &other.open)?;
        for ((row, sums), more) in S::ROWS.iter().zip(&mut self.closed).zip(&other.closed) {
            if sums.len() != more.len() {
                // As of doubles: a sum over a part of the tokens would be taken for one over all.
                sums.clear();
            }
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum = sum.checked_add(*more).ok_or_else(|| {
                    let problem = format!("`{}` is too large to be summed", row.name);
                    Error::ObservationMismatch(problem)
                })?;
            }
        }
        Ok(())
    }

    /// The sums in doubles, each rounded once.
    #[must_use]
    pub fn rounded(&self) -> S {
        let mut all = self.clone();
        all.close();
        let Self { mut open, closed } = all;
        for (row, closed) in S::ROWS.iter().zip(&closed) {
            let ValuesMut::Floats(values) = row.of_mut(&mut open) else { continue };
            for (value, closed) in values.iter_mut().zip(closed) {
                // What could not be closed stays visible.
                *value = if *value == 0.0 { closed.to_f64() } else { *value };
            }
        }
        open
    }

    /// The blocks' sums of a row of the table, by its place there; none of a row that is no sum of doubles.
    #[must_use]
    pub fn closed(&self, row: usize) -> &[WideSum] {
        self.closed.get(row).map_or(&[], Vec::as_slice)
    }

    /// Of counts and maxima, and the blocks' sums of each row of the table.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if there is not one list per row, empty of a row that is no sum of doubles.
    pub fn from_closed(open: S, closed: Vec<Vec<WideSum>>) -> Result<Self, Error> {
        let mut sums = Self { open, closed };
        let flawed = S::ROWS.len() != sums.closed.len()
            || S::ROWS
                .iter()
                .zip(&sums.closed)
                .any(|(row, sums)| !is_summed(row) && !sums.is_empty());
        if flawed {
            return Err(Error::ObservationMismatch("sums do not belong to the table".to_owned()));
        }
        for (row, closed) in S::ROWS.iter().zip(&sums.closed) {
            if let (true, ValuesMut::Floats(values)) = (is_summed(row), row.of_mut(&mut sums.open))
            {
                *values = vec![0.0; closed.len()];
            }
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{InputMoments, RoutingSums};

    fn inputs(blocks: &[(u64, f64)]) -> ExactSums<InputMoments> {
        let mut sums = ExactSums::new(InputMoments::new(1));
        for &(tokens, squares) in blocks {
            let open = sums.open_mut();
            open.tokens += tokens;
            open.calls += 1;
            open.sum_squares[0] += squares;
            sums.close();
        }
        sums
    }

    proptest! {
        #[test]
        fn any_division_gives_the_same_bits(
            blocks in prop::collection::vec((0_u64..9, 0.0_f64..1e9), 0..30),
            cuts in prop::collection::vec(0_usize..30, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(blocks.len())).collect();
            cuts.extend([0, blocks.len()]);
            cuts.sort_unstable();
            let mut parts: Vec<_> = cuts.windows(2).map(|cut| inputs(&blocks[cut[0]..cut[1]])).collect();
            let whole = inputs(&blocks);
            parts.reverse();
            let mut sum = inputs(&[]);
            parts.iter().try_for_each(|part| sum.add(part)).unwrap();
            prop_assert_eq!(&sum, &whole);
            prop_assert_eq!(sum.rounded(), whole.rounded());
        }
    }

    #[test]
    fn an_expert_is_closed_alone() {
        let mut sums = ExactSums::new(RoutingSums::with_outputs(2, 1, 2));
        sums.open_mut().output_sums = vec![1.0, 2.0, 3.0, 4.0];
        sums.open_mut().output_norms = vec![5.0, 6.0];
        sums.open_mut().output_peaks = vec![7.0, 8.0];
        sums.close_expert(1);
        assert_eq!(sums.open().output_sums, [1.0, 2.0, 0.0, 0.0]);
        assert_eq!(
            (&sums.open().output_norms[..], &sums.open().output_peaks[..]),
            (&[5.0, 0.0][..], &[7.0, 8.0][..])
        );
        sums.close_values_of_experts();
        assert_eq!(sums.open().output_norms, [0.0, 0.0]);
        let rounded = sums.rounded();
        assert_eq!(rounded.output_sums, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(
            (&rounded.output_norms[..], &rounded.output_peaks[..]),
            (&[5.0, 6.0][..], &[7.0, 8.0][..])
        );
    }

    #[test]
    fn what_cannot_be_summed_stays_visible() {
        let check = |value: f64, expected: fn(f64) -> bool| {
            let mut sums = inputs(&[(1, 1.0), (1, value)]);
            sums.open_mut().sum_squares[0] += 1.0;
            assert!(expected(sums.rounded().sum_squares[0]), "{value}: {sums:?}");
        };
        check(f64::NAN, f64::is_nan);
        check(f64::INFINITY, |sum| sum == f64::INFINITY);
        check(1e30, |sum| sum == f64::INFINITY);
        check(4.0, |sum| sum == 6.0);
        let mut large = inputs(&[(1, 5e23)]);
        let error = large.add(&large.clone()).unwrap_err().to_string();
        assert!(error.contains("`sum_squares` is too large"), "{error}");
    }

    #[test]
    fn closed_sums_come_back() {
        let whole = inputs(&[(2, 0.1), (3, 0.2)]);
        let closed = (0..InputMoments::ROWS.len()).map(|row| whole.closed(row).to_vec()).collect();
        let again = ExactSums::from_closed(whole.open().clone(), closed).unwrap();
        assert_eq!(again, whole);
        let none = ExactSums::from_closed(InputMoments::new(1), vec![vec![WideSum::ZERO]; 3]);
        assert!(none.is_err(), "a count is no sum of doubles");
    }
}
