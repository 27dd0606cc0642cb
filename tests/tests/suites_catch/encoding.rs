//! BF16 with one mistake each.

use moeprune_core::{
    Dtype, Encoding, Error,
    encoding::{Comparison, Row, RowMut, plain::BF16},
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

    fn bits(&self) -> usize {
        16
    }

    fn decode(&self, row: Row<'_>, first: usize, out: &mut [f32]) {
        BF16.decode(row, if self.0 == DecodesFromTheStart { 0 } else { first }, out);
    }

    fn encode(&self, values: &[f32], row: RowMut<'_>, first: usize) -> Result<(), Error> {
        let unsigned: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        BF16.encode(if self.0 == EncodesWithoutSigns { &unsigned } else { values }, row, first)
    }

    fn zero(&self, main: &mut [u8], element: usize) {
        BF16.zero(main, element);
        if self.0 == ZeroesToMinusZero {
            main[2 * element + 1] = 0x80;
        }
        if self.0 == ZeroesTheNeighbour && element > 0 {
            BF16.zero(main, element - 1);
        }
    }

    fn is_zero(&self, main: &[u8], element: usize) -> bool {
        match self.0 {
            MinusZeroIsNoZero => main[2 * element..2 * element + 2] == [0, 0],
            _ => BF16.is_zero(main, element),
        }
    }

    fn first_not_finite(&self, row: Row<'_>, elements: usize) -> Option<usize> {
        let mut values = vec![0.0; elements];
        self.decode(row, 0, &mut values);
        let finite = |value: &f32| match self.0 {
            InfinityIsFinite => !value.is_nan(),
            _ => value.is_finite(),
        };
        values.iter().position(|value| !finite(value))
    }

    fn zero_where(&self, main: &mut [u8], mask: &[bool]) {
        for (element, &gone) in mask.iter().enumerate() {
            if gone || self.0 == ZeroesAll {
                self.zero(main, element);
            }
        }
    }

    fn count_zeros(&self, main: &[u8], elements: usize) -> u64 {
        match self.0 {
            CountsNone => 0,
            _ => (0..elements).map(|element| u64::from(self.is_zero(main, element))).sum(),
        }
    }

    fn compare(&self, was: &[u8], now: &[u8], elements: usize) -> Comparison {
        match self.0 {
            ComparesNothing => Comparison::Zeroed { count: 0 },
            _ => BF16.compare(was, now, elements),
        }
    }
}

#[test]
fn encodings_that_break_their_contract() {
    conformance::encoding::check(&Broken(Sound));
    let caught = |broken: &'static Broken, message| {
        caught(move || conformance::encoding::check(broken), message);
    };
    caught(&Broken(DecodesFromTheStart), "a part of a row decodes to other values");
    caught(&Broken(EncodesWithoutSigns), "encodes to other bytes");
    caught(&Broken(ZeroesToMinusZero), "after zeroing one element");
    caught(&Broken(ZeroesTheNeighbour), "after zeroing one element");
    caught(&Broken(MinusZeroIsNoZero), "is_zero is not what it decodes to");
    caught(&Broken(InfinityIsFinite), "the first that is not finite is another");
    caught(&Broken(ZeroesAll), "zero_where is not zero of each");
    caught(&Broken(CountsNone), "count_zeros");
    caught(&Broken(ComparesNothing), "compare after zeroing");
}
