//! BF16 with one mistake each.

use std::ops::Range;

use moeprune_core::{
    Dtype, Encoding, Error, TensorBytes,
    encoding::{Comparison, Float, Rows, RowsMut, Unzeroed, plain::BF16},
};
use moeprune_tests::conformance;

use super::caught;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mistake {
    Sound,
    DecodesFromTheStart,
    EncodesWithoutSigns,
    ZeroesToMinusZero,
    ZeroesTheNeighbour,
    HasNoZero,
    MinusZeroIsNoZero,
    InfinityIsFinite,
    ZeroesAll,
    CountsNone,
    ComparesNothing,
}

use Mistake::*;

#[derive(Debug)]
struct Broken(Mistake);

impl Encoding for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self, main: &[usize], _: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        Ok(main.to_vec())
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        BF16.row_bytes(cols)
    }

    fn float(&self) -> Option<Float> {
        BF16.float()
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let from_the_start = 0..columns.len();
        BF16.decode(
            rows,
            if self.0 == DecodesFromTheStart { from_the_start } else { columns },
            out,
        );
    }

    fn encode(
        &self,
        values: &[f32],
        rows: RowsMut<'_>,
        columns: Range<usize>,
    ) -> Result<(), Error> {
        let unsigned: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        let values = if self.0 == EncodesWithoutSigns { &unsigned } else { values };
        BF16.encode(values, rows, columns)
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        let at = row * rows.cols() + col;
        let _ = BF16.zero(rows, row, col);
        if self.0 == ZeroesToMinusZero {
            rows.main[2 * at + 1] = 0x80;
        }
        if self.0 == ZeroesTheNeighbour && at > 0 {
            rows.main[2 * at - 2..2 * at].fill(0);
        }
        self.0 != HasNoZero
    }

    fn is_zero(&self, rows: Rows<'_>, row: usize, col: usize) -> bool {
        let at = row * rows.cols() + col;
        match self.0 {
            MinusZeroIsNoZero => rows.main[2 * at..2 * at + 2] == [0, 0],
            _ => BF16.is_zero(rows, row, col),
        }
    }

    fn first_not_finite(&self, rows: Rows<'_>) -> Option<usize> {
        let mut values = vec![0.0; rows.elements()];
        self.decode(rows, 0..rows.cols(), &mut values);
        let finite = |value: &f32| match self.0 {
            InfinityIsFinite => !value.is_nan(),
            _ => value.is_finite(),
        };
        values.iter().position(|value| !finite(value))
    }

    fn zero_where(&self, rows: &mut RowsMut<'_>, mask: &[bool]) -> Unzeroed {
        let (mut unzeroed, cols) = (Unzeroed::default(), rows.cols());
        for (at, &gone) in mask.iter().enumerate() {
            if (gone || self.0 == ZeroesAll) && !self.zero(rows, at / cols, at % cols) {
                unzeroed.count += 1;
                unzeroed.first.get_or_insert(at);
            }
        }
        unzeroed
    }

    fn count_zeros(&self, rows: Rows<'_>) -> u64 {
        match self.0 {
            CountsNone => 0,
            _ => BF16.count_zeros(rows),
        }
    }

    fn compare(&self, was: Rows<'_>, now: &[u8]) -> Comparison {
        match self.0 {
            ComparesNothing => Comparison::Zeroed { count: 0 },
            _ => BF16.compare(was, now),
        }
    }
}

#[test]
fn encodings_that_break_their_contract() {
    conformance::encoding::check(&Broken(Sound));
    let caught = |broken: &'static Broken, message| {
        caught(move || conformance::encoding::check(broken), message);
    };
    caught(&Broken(DecodesFromTheStart), "a part decodes to other values");
    caught(&Broken(EncodesWithoutSigns), "encodes to other bytes");
    caught(&Broken(ZeroesToMinusZero), "is not plus zero");
    caught(&Broken(ZeroesTheNeighbour), "changes the bits of");
    caught(&Broken(HasNoZero), "an element that has no zero changes something");
    caught(&Broken(MinusZeroIsNoZero), "is_zero is not what it decodes to");
    caught(&Broken(InfinityIsFinite), "the first that is not finite is another");
    caught(&Broken(ZeroesAll), "zero_where is not zero of each");
    caught(&Broken(CountsNone), "count_zeros");
    caught(&Broken(ComparesNothing), "compare after zeroing");
}
