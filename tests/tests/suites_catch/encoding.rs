//! BF16 with one mistake each.

use std::ops::Range;

use moeprune_core::{
    Dtype, Encoding, Error, StoredWeight, TensorBytes,
    encoding::{
        Companion, Comparison, Float, NewRows, Requantised, Requantising, Rows, RowsMut, Unzeroed,
        int4::SYMMETRIC, plain::BF16,
    },
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

/// Codes of four bits whose new values are encoded with one mistake each.
#[derive(Debug, Clone, Copy, PartialEq)]
enum NewMistake {
    None,
    KeepsScales,
    KeepsCodes,
    RoundsAway,
    TakesAnyLength,
    CountsRowsFromTheFirst,
    PromisesTooMuch,
}

#[derive(Debug)]
struct BrokenCodes(NewMistake);

impl Encoding for BrokenCodes {
    fn name(&self) -> &'static str {
        "broken codes"
    }

    fn dtype(&self) -> Dtype {
        SYMMETRIC.dtype()
    }

    fn suffix(&self) -> &'static str {
        SYMMETRIC.suffix()
    }

    fn companions(&self) -> &'static [Companion] {
        SYMMETRIC.companions()
    }

    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        SYMMETRIC.shape(main, companions)
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        SYMMETRIC.row_bytes(cols)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        SYMMETRIC.decode(rows, columns, out);
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        SYMMETRIC.zero(rows, row, col)
    }

    fn requantising(&self, shape: &[usize]) -> Option<Requantising> {
        let sound = SYMMETRIC.requantising(shape)?;
        let rounding = if self.0 == NewMistake::PromisesTooMuch { 1e-3 } else { sound.rounding };
        Some(Requantising { rounding, ..sound })
    }

    fn requantise(&self, rows: Rows<'_>, new: NewRows<'_>) -> Result<Requantised, Error> {
        let scale = &rows.companions[0];
        let size = scale.bytes().len() / scale.shape()[0];
        let (first, count, codes) = (rows.first, rows.count, rows.main.to_vec());
        let stored = scale.bytes()[first * size..(first + count) * size].to_vec();
        match self.0 {
            NewMistake::TakesAnyLength if new.values.len() != count * new.stride => {
                return Ok(Requantised { codes, scales: stored });
            }
            NewMistake::RoundsAway => {
                let away = |value: &mut f32| *value += if *value == 0.0 { 1e-3 } else { 0.0 };
                new.values.iter_mut().for_each(away);
            }
            _ => {}
        }
        let first = if self.0 == NewMistake::CountsRowsFromTheFirst { 0 } else { first };
        let mut made = SYMMETRIC.requantise(Rows { first, ..rows }, new)?;
        match self.0 {
            NewMistake::KeepsScales => made.scales = stored,
            NewMistake::KeepsCodes => made.codes = codes,
            _ => {}
        }
        Ok(made)
    }
}

fn check_codes(broken: &'static BrokenCodes) {
    conformance::encoding::check_with(broken, [1, 8], |rows, cols, byte| {
        let codes = (0..rows * cols / 2).map(|_| byte()).collect::<Vec<u8>>();
        let main = TensorBytes::new(Dtype::I32, [rows, cols / 8], codes)?;
        let scales: Vec<f32> = (0..rows * cols / 8).map(|_| 1.0 + f32::from(byte())).collect();
        let scales = TensorBytes::encode(Dtype::F32, [rows, cols / 8], &scales)?;
        let shape = [rows, cols].map(|n| (n as u32).to_le_bytes()).concat();
        let shape = TensorBytes::new(Dtype::I32, [2], shape)?;
        StoredWeight::new(broken, main, vec![scales, shape])
    });
}

#[test]
fn encodings_that_round_new_values_wrong() {
    check_codes(&BrokenCodes(NewMistake::None));
    let caught = |broken: &'static BrokenCodes, message| {
        caught(move || check_codes(broken), message);
    };
    caught(&BrokenCodes(NewMistake::KeepsScales), "rounding takes");
    caught(&BrokenCodes(NewMistake::KeepsCodes), "zeros do not stay zero");
    caught(&BrokenCodes(NewMistake::RoundsAway), "zero");
    caught(&BrokenCodes(NewMistake::TakesAnyLength), "are taken");
    caught(&BrokenCodes(NewMistake::CountsRowsFromTheFirst), "what was decoded does not stay");
    caught(&BrokenCodes(NewMistake::PromisesTooMuch), "rounding takes");
}
