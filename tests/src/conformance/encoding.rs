//! What [`Encoding`] promises.

use std::{fmt::Debug, ops::Range};

use moeprune_core::{
    Encoding, Error, StoredWeight, TensorBytes,
    encoding::{Comparison, Row, RowMut},
};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds an encoding without companions to its contract, as [`check_with`].
///
/// # Panics
/// If a promise is broken.
pub fn check(encoding: &'static dyn Encoding) {
    check_with(encoding, |rows, cols, byte| {
        let bytes: Vec<u8> = (0..rows * cols * encoding.bits() / 8).map(|_| byte()).collect();
        let main = TensorBytes::new(encoding.dtype(), [rows, cols], bytes)?;
        StoredWeight::new(encoding, main, Vec::new())
    });
}

/// Holds an encoding to its contract. `weight` makes a weight of so many rows and columns (a
/// multiple of eight) out of arbitrary bytes.
///
/// * a part of a row decodes as it does within the whole, each time, from any thread;
/// * what was decoded encodes to the bytes that it was decoded from, if the encoding encodes;
/// * an element that is zeroed is plus zero, and every other element keeps its bits;
/// * an element is zero exactly if it decodes to zero;
/// * the first element that is not finite is the first that decodes to such a number;
/// * bulk operations are those on single elements;
/// * what is not there is refused.
///
/// # Panics
/// If a promise is broken.
pub fn check_with(
    encoding: &'static dyn Encoding,
    weight: impl Fn(usize, usize, &mut dyn FnMut() -> u8) -> Result<StoredWeight<'static>, Error>,
) {
    // Zeros of either sign and numbers that are not finite come often.
    let byte = prop_oneof![Just(0_u8), Just(0x80), Just(0x7f), Just(0xff), any::<u8>()];
    let bytes = prop::collection::vec(byte, 1..200);
    let marks = prop::collection::vec(any::<bool>(), 1..20);
    for_all(&(1_usize..4, 1_usize..5, bytes, marks), |(rows, eights, bytes, marks)| {
        let mut stream = bytes.iter().cycle();
        let mut next = || stream.next().copied().unwrap_or_default();
        let weight = weight(rows, eights * 8, &mut next);
        let weight = weight.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(
            weight.encoding().name(),
            encoding.name(),
            "the weight has another encoding"
        );
        prop_assert_eq!(weight.shape(), [rows, eights * 8], "the shape is not as asked");
        let case = Case { weight: &weight, marks: &marks };
        case.decoding()?;
        case.encoding()?;
        case.zeroing()?;
        case.bulk()?;
        case.out_of_range()
    });
}

struct Case<'a> {
    weight: &'a StoredWeight<'static>,
    marks: &'a [bool],
}

impl Case<'_> {
    fn decoded(&self, row: Row<'_>, columns: Range<usize>) -> Vec<u32> {
        let mut values = vec![f32::NAN; columns.len()];
        self.weight.encoding().decode(row, columns.start, &mut values);
        values.into_iter().map(f32::to_bits).collect()
    }

    fn rows(&self) -> impl Iterator<Item = (Row<'_>, Vec<u32>)> {
        let rows = (0..self.weight.rows()).map(|row| self.weight.row(row));
        rows.map(|row| (row, self.decoded(row, 0..self.weight.cols())))
    }

    fn decoding(&self) -> Result<(), TestCaseError> {
        let cols = self.weight.cols();
        let whole =
            pure(|| self.weight.to_f32().into_iter().map(f32::to_bits).collect::<Vec<_>>())?;
        let mut rows = Vec::new();
        for (row, values) in self.rows() {
            for columns in [0..1, 1..cols, cols / 2..cols - 1, cols..cols] {
                let part = self.decoded(row, columns.clone());
                equal(part, values[columns].to_vec(), "a part of a row decodes to other values")?;
            }
            let first = values.iter().position(|&v| !f32::from_bits(v).is_finite());
            let found = self.weight.encoding().first_not_finite(row, cols);
            equal(found, first, "the first that is not finite is another")?;
            rows.extend(values);
        }
        equal(rows, whole, "rows decode to other values than the whole")
    }

    fn encoding(&self) -> Result<(), TestCaseError> {
        for (row, values) in self.rows() {
            let values: Vec<f32> = values.into_iter().map(f32::from_bits).collect();
            if values.iter().any(|value| value.is_nan()) {
                continue;
            }
            let mut main = row.main.to_vec();
            let at = values.len() / 2;
            let of = |main| RowMut { index: row.index, main, companions: row.companions };
            match self.weight.encoding().encode(&values[at..], of(&mut main), at) {
                Err(Error::NotEncodable(_)) => return Ok(()),
                other => other.map_err(|error| TestCaseError::fail(error.to_string()))?,
            }
            equal(&main[..], row.main, "what was decoded encodes to other bytes")?;
        }
        Ok(())
    }

    fn zeroing(&self) -> Result<(), TestCaseError> {
        let encoding = self.weight.encoding();
        for (row, before) in self.rows() {
            for (element, &value) in before.iter().enumerate() {
                let zero = f32::from_bits(value) == 0.0;
                equal(
                    encoding.is_zero(row.main, element),
                    zero,
                    "is_zero is not what it decodes to",
                )?;
                let mut main = row.main.to_vec();
                encoding.zero(&mut main, element);
                prop_assert!(encoding.is_zero(&main, element), "a zeroed element is not zero");
                let after = self.decoded(Row { main: &main, ..row }, 0..before.len());
                let mut expected = before.clone();
                expected[element] = 0;
                equal(after, expected, "after zeroing one element")?;
                for other in (0..before.len()).filter(|&other| other != element) {
                    let same = encoding.same(row.main, &main, other);
                    prop_assert!(same, "zeroing an element changes the bits of another");
                }
            }
        }
        Ok(())
    }

    fn bulk(&self) -> Result<(), TestCaseError> {
        let encoding = self.weight.encoding();
        for (row, before) in self.rows() {
            let cols = before.len();
            let mask: Vec<bool> = self.marks.iter().copied().cycle().take(cols).collect();
            let (mut at_once, mut by_one) = (row.main.to_vec(), row.main.to_vec());
            encoding.zero_where(&mut at_once, &mask);
            for element in (0..cols).filter(|&element| mask[element]) {
                encoding.zero(&mut by_one, element);
            }
            equal(&at_once, &by_one, "zero_where is not zero of each")?;
            let zeros = (0..cols).filter(|&element| encoding.is_zero(&by_one, element)).count();
            equal(encoding.count_zeros(&by_one, cols), zeros as u64, "count_zeros")?;
            let is_new = |&element: &usize| mask[element] && !encoding.is_zero(row.main, element);
            let count = (0..cols).filter(is_new).count() as u64;
            let found = encoding.compare(row.main, &by_one, cols);
            equal(found, Comparison::Zeroed { count }, "compare after zeroing")?;
            // The other way about, the first that came back is a change.
            let first = (0..cols).find(is_new);
            let found = encoding.compare(&by_one, row.main, cols);
            match first {
                Some(first) => equal(found, Comparison::Changed { first }, "compare")?,
                None => prop_assert!(matches!(found, Comparison::Zeroed { .. }), "compare"),
            }
        }
        Ok(())
    }

    fn out_of_range(&self) -> Result<(), TestCaseError> {
        let (weight, len) = (self.weight, self.weight.elements());
        for (start, count) in [(len, 1), (len - 1, 2), (usize::MAX, 1)] {
            let refused = weight.decode(start, &mut vec![0.0; count]).is_err();
            prop_assert!(refused, "{} weights from {} on of {} are decoded", count, start, len);
        }
        let (main, mut companions) = weight.clone().into_parts();
        companions.push(main.clone());
        let refused = StoredWeight::new(weight.encoding(), main, companions).is_err();
        prop_assert!(refused, "a companion too many is taken");
        Ok(())
    }
}

fn equal<T: PartialEq + Debug>(got: T, expected: T, what: &str) -> Result<(), TestCaseError> {
    prop_assert!(got == expected, "{}: {:?}, expected {:?}", what, got, expected);
    Ok(())
}
