//! The rows of the tables that sums stand in.

use crate::Error;

/// A group of statistics that are taken together, as a table of its fields.
///
/// The order of the rows is the order of the tensors in an observation file.
pub trait Statistics: Default + 'static {
    /// One row per field.
    const ROWS: &'static [Statistic<Self>];

    /// Experts that the group is about; 0 if it is about none.
    fn experts(&self) -> usize {
        0
    }
}

/// One row: what a field of `S` is called on disk, how long it is, and what adding it means.
pub struct Statistic<S> {
    /// The last part of the tensor's name in an observation file.
    pub name: &'static str,
    /// What the field has a value for.
    pub shape: Shape,
    /// What becomes of it when observations are added or repeated.
    pub kind: Kind,
    /// The revision of the table that brought the row, from 1. Rows of revision 1 are in every
    /// observation; a later row may be missing, because the observation is older or the statistic
    /// was not taken, and is then empty.
    pub since: u32,
    /// Whether taking it takes running the model: an observation from elsewhere may lack it, and it is
    /// then empty.
    pub of_runs: bool,
    get: fn(&S) -> Values<'_>,
    get_mut: fn(&mut S) -> ValuesMut<'_>,
}

/// What a statistic has a value for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "readers and writers handle every shape")]
pub enum Shape {
    /// One value.
    Scalar,
    /// One per expert.
    PerExpert,
    /// One per ordered pair of experts, row-major.
    PerPair,
    /// One per expert and feature of its output, row-major.
    PerExpertFeature,
    /// One per input feature.
    PerInputFeature,
}

/// What a statistic is over tokens, which decides how it adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "readers and writers handle every kind")]
pub enum Kind {
    /// A number of the model, the same in every observation of it; neither added nor repeated.
    Constant,
    /// A number of tokens, pairs or calls. Added and repeated exactly; an overflow is an error.
    Count,
    /// A sum of values that are not negative. Added and repeated.
    Sum,
    /// A sum of values of either sign. Added and repeated.
    SignedSum,
    /// The largest of values that are not negative. The larger stays; repeating changes nothing.
    Max,
}

/// The values of a statistic, row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "readers and writers handle every type")]
pub enum Values<'a> {
    /// A size, which fits the machine's addresses.
    Size(usize),
    /// One count.
    Count(u64),
    /// Several counts.
    Counts(&'a [u64]),
    /// Floating-point values.
    Floats(&'a [f64]),
}

/// The values of a statistic, to be changed.
#[derive(Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "readers and writers handle every type")]
pub enum ValuesMut<'a> {
    /// A size, which fits the machine's addresses.
    Size(&'a mut usize),
    /// One count.
    Count(&'a mut u64),
    /// Several counts.
    Counts(&'a mut Vec<u64>),
    /// Floating-point values.
    Floats(&'a mut Vec<f64>),
}

impl<S> Statistic<S> {
    /// A row of the field that `get` and `get_mut` return; in every observation.
    #[must_use]
    pub const fn new(
        name: &'static str,
        (kind, shape): (Kind, Shape),
        get: fn(&S) -> Values<'_>,
        get_mut: fn(&mut S) -> ValuesMut<'_>,
    ) -> Self {
        Self { name, shape, kind, since: 1, of_runs: false, get, get_mut }
    }

    /// The same row, brought by a later revision of the table.
    #[must_use]
    pub const fn since(mut self, revision: u32) -> Self {
        self.since = revision;
        self
    }

    /// The same row, of what is taken only by running the model.
    #[must_use]
    pub const fn of_runs(mut self) -> Self {
        self.of_runs = true;
        self
    }

    /// Whether an observation may lack the row.
    #[must_use]
    pub const fn may_be_missing(&self) -> bool {
        self.since > 1 || self.of_runs
    }

    /// The values in `group`.
    #[must_use]
    pub fn of<'a>(&self, group: &'a S) -> Values<'a> {
        (self.get)(group)
    }

    /// The values in `group`, to be changed.
    #[must_use]
    pub fn of_mut<'a>(&self, group: &'a mut S) -> ValuesMut<'a> {
        (self.get_mut)(group)
    }
}

impl<S> std::fmt::Debug for Statistic<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, shape, kind, since, of_runs, get: _, get_mut: _ } = self;
        f.debug_struct("Statistic")
            .field("name", name)
            .field("shape", shape)
            .field("kind", kind)
            .field("since", since)
            .field("of_runs", of_runs)
            .finish()
    }
}

impl Shape {
    /// Dimensions, outermost first, of `len` values over `experts` experts. Their product is `len`
    /// exactly if that is a length the shape can have.
    #[must_use]
    pub fn dims(self, experts: usize, len: usize) -> Vec<usize> {
        match self {
            Self::Scalar => Vec::new(),
            Self::PerExpert => vec![experts],
            Self::PerPair => vec![experts, experts],
            Self::PerExpertFeature => vec![experts, len / experts.max(1)],
            Self::PerInputFeature => vec![len],
        }
    }
}

impl Values<'_> {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Size(_) | Self::Count(_) => 1,
            Self::Counts(counts) => counts.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// Whether there are none, because the statistic was not taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Row by row, what the kinds say.
pub(super) fn add<S: Statistics>(sums: &mut S, more: &S) -> Result<(), Error> {
    // First what must agree, so that the message is about the cause.
    for row in S::ROWS {
        let (mine, theirs) = (row.of(sums), row.of(more));
        if row.kind == Kind::Constant && mine != theirs {
            return differ(row, mine, theirs);
        }
        if mine.len() != theirs.len() && !row.may_be_missing() {
            return differ(row, mine, theirs);
        }
    }
    S::ROWS.iter().try_for_each(|row| add_row(row, sums, more))
}

fn add_row<S>(row: &Statistic<S>, sums: &mut S, more: &S) -> Result<(), Error> {
    match (row.of_mut(sums), row.of(more)) {
        (ValuesMut::Size(_), _) => {}
        (ValuesMut::Count(sum), Values::Count(more)) => *sum = added(*sum, more)?,
        (ValuesMut::Counts(sums), Values::Counts(more)) if sums.len() != more.len() => {
            // As of the floats below.
            sums.clear();
        }
        (ValuesMut::Counts(sums), Values::Counts(more)) => {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum = added(*sum, *more)?;
            }
        }
        (ValuesMut::Floats(sums), Values::Floats(more)) if sums.len() != more.len() => {
            // A sum over a part of the tokens would be taken for one over all.
            sums.clear();
        }
        (ValuesMut::Floats(sums), Values::Floats(more)) => {
            for (sum, more) in sums.iter_mut().zip(more) {
                match row.kind {
                    Kind::Max => *sum = sum.max(*more),
                    Kind::Sum | Kind::SignedSum | Kind::Count => *sum += *more,
                    Kind::Constant => {}
                }
            }
        }
        // A row has the same type in every group.
        (_, theirs) => return differ(row, theirs, theirs),
    }
    Ok(())
}

/// As if every token had come `times` times.
pub(super) fn repeat<S: Statistics>(sums: &mut S, times: u64) -> Result<(), Error> {
    for row in S::ROWS {
        if matches!(row.kind, Kind::Constant | Kind::Max) {
            continue;
        }
        match row.of_mut(sums) {
            ValuesMut::Size(_) => {}
            ValuesMut::Count(count) => *count = counted(*count, times)?,
            ValuesMut::Counts(counts) => {
                for count in counts {
                    *count = counted(*count, times)?;
                }
            }
            ValuesMut::Floats(sums) => sums.iter_mut().for_each(|sum| *sum *= times as f64),
        }
    }
    Ok(())
}

/// Gives every row with several values as many zeros as `len` says for its shape.
pub(super) fn resize_all<S: Statistics>(group: &mut S, len: impl Fn(Shape) -> usize) {
    for row in S::ROWS {
        match row.of_mut(group) {
            ValuesMut::Size(_) | ValuesMut::Count(_) => {}
            ValuesMut::Counts(counts) => counts.resize(len(row.shape), 0),
            ValuesMut::Floats(values) => values.resize(len(row.shape), 0.0),
        }
    }
}

pub(super) fn counted(count: u64, times: u64) -> Result<u64, Error> {
    count.checked_mul(times).ok_or_else(|| {
        Error::ObservationMismatch(format!("{count} tokens cannot be counted {times} times"))
    })
}

fn added(count: u64, more: u64) -> Result<u64, Error> {
    count.checked_add(more).ok_or_else(|| {
        Error::ObservationMismatch(format!("{count} and {more} tokens cannot be counted together"))
    })
}

fn differ<S>(row: &Statistic<S>, mine: Values<'_>, theirs: Values<'_>) -> Result<(), Error> {
    let shown = |values: Values<'_>| match values {
        Values::Size(size) => size.to_string(),
        Values::Count(count) => count.to_string(),
        Values::Counts(_) | Values::Floats(_) => format!("{} long", values.len()),
    };
    let (name, mine, theirs) = (row.name, shown(mine), shown(theirs));
    Err(Error::ObservationMismatch(format!("`{name}` is {mine} in one and {theirs} in the other")))
}

/// Fields that a row can be of.
pub(super) trait Field {
    fn values(&self) -> Values<'_>;
    fn values_mut(&mut self) -> ValuesMut<'_>;
}

macro_rules! field {
    ($type:ty, $value:ident => $get:expr, $variant:ident) => {
        impl Field for $type {
            fn values(&self) -> Values<'_> {
                let $value = self;
                $get
            }

            fn values_mut(&mut self) -> ValuesMut<'_> {
                ValuesMut::$variant(self)
            }
        }
    };
}
field!(usize, size => Values::Size(*size), Size);
field!(u64, count => Values::Count(*count), Count);
field!(Vec<u64>, counts => Values::Counts(counts), Counts);
field!(Vec<f64>, values => Values::Floats(values), Floats);

/// `row!(field: Kind, Shape, since revision)`, named as the field is.
macro_rules! row {
    ($field:ident: $kind:ident, $shape:ident, since $since:literal) => {
        $crate::observation::statistic::Statistic::new(
            stringify!($field),
            (
                $crate::observation::statistic::Kind::$kind,
                $crate::observation::statistic::Shape::$shape,
            ),
            |group: &Self| $crate::observation::statistic::Field::values(&group.$field),
            |group: &mut Self| $crate::observation::statistic::Field::values_mut(&mut group.$field),
        )
        .since($since)
    };
}
pub(super) use row;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InputMoments, RoutingSums};

    fn sums(tokens: u64) -> RoutingSums {
        RoutingSums {
            tokens,
            counts: vec![tokens],
            coactivation: vec![0],
            gate_sums: vec![0.5],
            gated_output_norms: vec![1.0],
            output_norms: vec![2.0],
            output_peaks: vec![tokens as f64],
            output_sums: vec![-1.0, 1.0],
            ..RoutingSums::new(1, 1)
        }
    }

    #[test]
    fn the_kind_decides() {
        let mut both = sums(2);
        add(&mut both, &sums(3)).expect("they match");
        assert_eq!((both.tokens, both.top_k, &both.counts[..]), (5, 1, &[5][..]));
        assert_eq!((both.gate_sums[0], both.output_peaks[0]), (1.0, 3.0));
        assert_eq!(both.output_sums, [-2.0, 2.0]);
        repeat(&mut both, 3).expect("fits");
        assert_eq!((both.tokens, both.top_k, &both.counts[..]), (15, 1, &[15][..]));
        assert_eq!((both.gate_sums[0], both.output_peaks[0]), (3.0, 3.0));
        assert_eq!(both.output_sums, [-6.0, 6.0]);
    }

    #[test]
    fn what_one_lacks_the_sum_lacks() {
        for (mine, theirs) in [(true, false), (false, true), (false, false)] {
            let old = |has: bool| match has {
                true => sums(1),
                false => RoutingSums { output_peaks: vec![], output_sums: vec![], ..sums(1) },
            };
            let mut both = old(mine);
            add(&mut both, &old(theirs)).expect("they match");
            assert_eq!((both.output_peaks.len(), both.output_sums.len()), (0, 0));
            assert_eq!(both.counts, [2]);
        }
    }

    #[test]
    fn what_only_a_run_shows_is_not_in_a_sum_with_less() {
        let counted = || RoutingSums { tokens: 3, counts: vec![3], top_k: 1, ..Default::default() };
        for (mut mine, theirs) in [(sums(2), counted()), (counted(), sums(2))] {
            add(&mut mine, &theirs).expect("they match");
            let expected = RoutingSums { tokens: 5, counts: vec![5], ..counted() };
            assert_eq!(mine, expected);
        }
    }

    #[test]
    fn what_does_not_match_is_refused() {
        fn check<S: Statistics + Clone>(mut mine: S, theirs: S, expected: &str) {
            let error = add(&mut mine, &theirs).expect_err("differ").to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        check(
            sums(1),
            RoutingSums { top_k: 2, ..sums(1) },
            "`top_k` is 1 in one and 2 in the other",
        );
        check(sums(1), RoutingSums::new(2, 1), "`counts` is 1 long in one and 2 long in the other");
        check(
            InputMoments::new(3),
            InputMoments::new(4),
            "is 3 long in one and 4 long in the other",
        );
        let full = RoutingSums { tokens: u64::MAX, ..sums(1) };
        check(full.clone(), sums(1), "1 tokens cannot be counted together");
        assert!(repeat(&mut full.clone(), 2).is_err());
    }

    #[test]
    fn names_are_those_of_the_fields() {
        let names: Vec<_> = RoutingSums::ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names[..3], ["tokens", "top_k", "counts"]);
        assert!(InputMoments::ROWS.iter().all(|row| !row.may_be_missing()));
        assert_eq!(
            format!("{:?}", RoutingSums::ROWS[7]),
            "Statistic { name: \"output_peaks\", shape: PerExpert, kind: Max, since: 2, of_runs: true }"
        );
    }
}
