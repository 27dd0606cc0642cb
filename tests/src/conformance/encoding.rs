//! What [`Encoding`] promises.

use std::{fmt::Debug, ops::Range};

use moeprune_core::{
    Encoding, Error, StoredWeight, TensorBytes,
    encoding::{Comparison, Rows, RowsMut, Unzeroed},
};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure, requantising};

/// Holds an encoding of numbers by themselves to its contract, as [`check_with`].
///
/// # Panics
/// If a promise is broken.
pub fn check(encoding: &'static dyn Encoding) {
    check_with(encoding, [1, 8], |rows, cols, byte| {
        let bytes = encoding.row_bytes(cols).map(|row| (0..rows * row).map(|_| byte()).collect());
        let bytes: Vec<u8> = bytes.expect("rows of numbers follow each other");
        let main = TensorBytes::new(encoding.dtype(), [rows, cols], bytes)?;
        StoredWeight::new(encoding, main, Vec::new())
    });
}

/// Holds an encoding to its contract. `weight` makes a weight of so many rows and columns, which are
/// multiples of `unit`, out of arbitrary bytes.
///
/// * part of the rows and columns decodes as it does within the whole, each time, from any thread;
/// * what was decoded encodes to the bytes that it was decoded from, if the encoding encodes;
/// * an element that is zeroed is zero, plus zero if it is a number by itself, and every other
///   element keeps its value; an element that has no code that is zero changes nothing;
/// * an element is zero exactly if it decodes to zero;
/// * the first element that is not finite is the first that decodes to such a number;
/// * bulk operations are those on single elements;
/// * new values are encoded within the rounding that is promised, or refused by name;
/// * what is not there is refused.
///
/// # Panics
/// If a promise is broken.
pub fn check_with(
    encoding: &dyn Encoding,
    unit: [usize; 2],
    weight: impl Fn(usize, usize, &mut dyn FnMut() -> u8) -> Result<StoredWeight<'static>, Error>,
) {
    // Zeros of either sign and numbers that are not finite come often.
    let byte = prop_oneof![Just(0_u8), Just(0x80), Just(0x7f), Just(0xff), any::<u8>()];
    let bytes = prop::collection::vec(byte, 1..200);
    let marks = prop::collection::vec(any::<bool>(), 1..20);
    for_all(&(1_usize..20, 1_usize..9, bytes, marks), |(rows, cols, bytes, marks)| {
        let (rows, cols) = (rows.div_ceil(unit[0]) * unit[0], cols.div_ceil(unit[1] / 8) * unit[1]);
        let mut stream = bytes.iter().cycle();
        let mut next = || stream.next().copied().unwrap_or_default();
        let weight = weight(rows, cols, &mut next);
        let weight = weight.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let name = weight.encoding().name();
        prop_assert_eq!(name, encoding.name(), "the weight has another encoding");
        prop_assert_eq!(weight.shape(), [rows, cols], "the shape is not as asked");
        let whole = pure(|| bits(&weight.to_f32()))?;
        let case = Case { weight: &weight, marks: &marks, whole };
        case.decoding()?;
        case.encoding()?;
        case.zeroing()?;
        case.bulk()?;
        requantising::check(&weight, &marks)?;
        case.out_of_range()
    });
}

struct Case<'a> {
    weight: &'a StoredWeight<'static>,
    marks: &'a [bool],
    /// All elements, decoded.
    whole: Vec<u32>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn is_zero(bits: u32) -> bool {
    f32::from_bits(bits) == 0.0
}

impl Case<'_> {
    fn decoded(&self, rows: Rows<'_>, columns: Range<usize>) -> Vec<u32> {
        let mut values = vec![f32::NAN; rows.count * columns.len()];
        self.weight.encoding().decode(rows, columns, &mut values);
        bits(&values)
    }

    /// All rows of the weight with another main tensor.
    fn with<'b>(&'b self, main: &'b [u8]) -> Rows<'b> {
        Rows { main, ..self.weight.all() }
    }

    fn with_mut<'b>(&'b self, main: &'b mut [u8]) -> RowsMut<'b> {
        let Rows { first, count, shape, companions, .. } = self.weight.all();
        RowsMut { first, count, shape, main, companions }
    }

    fn main(&self) -> Vec<u8> {
        self.weight.main().bytes().to_vec()
    }

    fn decoding(&self) -> Result<(), TestCaseError> {
        let (rows, cols) = (self.weight.rows(), self.weight.cols());
        for some in [0..1, rows / 2..rows, 0..rows, rows - 1..rows] {
            for columns in [0..cols, 0..1, 1..cols, cols / 2..cols - 1, cols..cols] {
                let part = self.decoded(self.weight.some(some.start, some.len()), columns.clone());
                let of_row = |row| &self.whole[row * cols..][columns.clone()];
                let expected = some.clone().flat_map(of_row).copied().collect();
                equal(part, expected, "a part decodes to other values than within the whole")?;
            }
        }
        let (from, to) = (self.whole.len() / 3, self.whole.len() - 1);
        let mut values = vec![0.0; to - from];
        let decoded = self.weight.decode(from, &mut values);
        decoded.map_err(|error| TestCaseError::fail(error.to_string()))?;
        equal(&bits(&values)[..], &self.whole[from..to], "elements decode to other values")?;
        let first = self.whole.iter().position(|&value| !f32::from_bits(value).is_finite());
        equal(self.weight.first_not_finite(), first, "the first that is not finite is another")
    }

    fn encoding(&self) -> Result<(), TestCaseError> {
        let (cols, mut main) = (self.weight.cols(), self.main());
        let values: Vec<f32> = self.whole.iter().copied().map(f32::from_bits).collect();
        if values.iter().any(|value| value.is_nan()) {
            return Ok(());
        }
        let columns = cols / 2..cols;
        let some = values.chunks(cols).flat_map(|row| &row[columns.clone()]).copied();
        let some: Vec<f32> = some.collect();
        match self.weight.encoding().encode(&some, self.with_mut(&mut main), columns) {
            Err(Error::NotEncodable(_)) => return Ok(()),
            other => other.map_err(|error| TestCaseError::fail(error.to_string()))?,
        }
        equal(main, self.main(), "what was decoded encodes to other bytes")
    }

    /// Zeroes one element after the other, the zeroed ones among all others.
    fn zeroing(&self) -> Result<(), TestCaseError> {
        let (encoding, cols) = (self.weight.encoding(), self.weight.cols());
        let (mut main, mut expected) = (self.main(), self.whole.clone());
        // Not every element of a large weight.
        for at in (0..expected.len()).step_by(1 + expected.len() / 31) {
            let (row, col) = (at / cols, at % cols);
            let was = encoding.is_zero(self.with(&main), row, col);
            equal(was, is_zero(expected[at]), "is_zero is not what it decodes to")?;
            let before = main.clone();
            let zeroed = encoding.zero(&mut self.with_mut(&mut main), row, col);
            let after = self.decoded(self.with(&main), 0..cols);
            let refused = encoding.zeroes().is_err();
            prop_assert!(!(zeroed && refused), "an element is zeroed, and zeroing is refused");
            if zeroed {
                let now = encoding.is_zero(self.with(&main), row, col);
                prop_assert!(now && is_zero(after[at]), "a zeroed element is not zero");
                if encoding.float().is_some() {
                    equal(after[at], 0, "a zeroed number is not plus zero")?;
                }
                expected[at] = after[at];
            } else {
                equal(&main, &before, "an element that has no zero changes something")?;
            }
            if let Some(other) = (0..after.len()).find(|&other| after[other] != expected[other]) {
                prop_assert!(false, "zeroing element {} changes the bits of {}", at, other);
            }
        }
        Ok(())
    }

    fn bulk(&self) -> Result<(), TestCaseError> {
        let (encoding, cols) = (self.weight.encoding(), self.weight.cols());
        let mask: Vec<bool> = self.marks.iter().copied().cycle().take(self.whole.len()).collect();
        let (mut at_once, mut by_one) = (self.main(), self.main());
        let got = encoding.zero_where(&mut self.with_mut(&mut at_once), &mask);
        let mut unzeroed = Unzeroed::default();
        for at in (0..mask.len()).filter(|&at| mask[at]) {
            if !encoding.zero(&mut self.with_mut(&mut by_one), at / cols, at % cols) {
                unzeroed.count += 1;
                unzeroed.first.get_or_insert(at);
            }
        }
        equal(&at_once, &by_one, "zero_where is not zero of each")?;
        equal(got, unzeroed, "elements that have no zero")?;
        let after = self.decoded(self.with(&by_one), 0..cols);
        let zeros = after.iter().filter(|&&value| is_zero(value)).count();
        equal(encoding.count_zeros(self.with(&by_one)), zeros as u64, "count_zeros")?;
        let is_new = |&at: &usize| is_zero(after[at]) && !is_zero(self.whole[at]);
        let count = (0..after.len()).filter(is_new).count() as u64;
        let found = encoding.compare(self.weight.all(), &by_one);
        equal(found, Comparison::Zeroed { count }, "compare after zeroing")?;
        // The other way about, the first that came back is a change.
        let first = (0..after.len()).find(is_new);
        let main = self.main();
        let found = encoding.compare(self.with(&by_one), &main);
        match first {
            Some(first) => equal(found, Comparison::Changed { first }, "compare"),
            None => {
                prop_assert!(matches!(found, Comparison::Zeroed { .. }), "compare");
                Ok(())
            }
        }
    }

    fn out_of_range(&self) -> Result<(), TestCaseError> {
        let (weight, len) = (self.weight, self.weight.elements());
        for (start, count) in [(len, 1), (len - 1, 2), (usize::MAX, 1)] {
            let refused = weight.decode(start, &mut vec![0.0; count]).is_err();
            prop_assert!(refused, "{} weights from {} on of {} are decoded", count, start, len);
        }
        let (main, mut companions) = weight.clone().into_parts();
        companions.push(main.clone());
        let refused = StoredWeight::new(weight.encoding().clone(), main, companions).is_err();
        prop_assert!(refused, "a companion too many is taken");
        Ok(())
    }
}

fn equal<T: PartialEq + Debug>(got: T, expected: T, what: &str) -> Result<(), TestCaseError> {
    prop_assert!(got == expected, "{}: {:?}, expected {:?}", what, got, expected);
    Ok(())
}
