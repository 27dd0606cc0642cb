//! A weight as it is stored.

use std::ops::Range;

use super::{Encoding, Row, of};
use crate::{Error, TensorBytes};

/// A weight as it is stored: the bytes, the companions that they need, and the encoding that reads
/// both.
#[derive(Debug, Clone)]
pub struct StoredWeight<'a> {
    encoding: &'static dyn Encoding,
    shape: Vec<usize>,
    main: TensorBytes<'a>,
    companions: Vec<TensorBytes<'a>>,
}

impl<'a> StoredWeight<'a> {
    /// A weight in a given encoding.
    ///
    /// # Errors
    /// [`Error::Encoding`] if the main tensor or a companion is not what the encoding asks for.
    pub fn new(
        encoding: &'static dyn Encoding,
        main: TensorBytes<'a>,
        companions: Vec<TensorBytes<'a>>,
    ) -> Result<Self, Error> {
        let bad = |reason| Error::Encoding { encoding: encoding.name(), reason };
        if main.dtype() != encoding.dtype() {
            let (expected, got) = (encoding.dtype(), main.dtype());
            return Err(bad(format!("its main tensor is {expected}, not {got}")));
        }
        let needed = encoding.companions();
        if needed.len() != companions.len() {
            let (expected, got) = (needed.len(), companions.len());
            return Err(bad(format!("it has {expected} companions, not {got}")));
        }
        for (needed, got) in needed.iter().zip(&companions) {
            if needed.dtype != got.dtype() {
                let (suffix, expected, got) = (needed.suffix, needed.dtype, got.dtype());
                return Err(bad(format!("its companion `{suffix}` is {expected}, not {got}")));
            }
        }
        let shape = encoding.shape(main.shape());
        let (rows, cols) = rows_and_cols(&shape);
        let row_bits = cols.checked_mul(encoding.bits()).filter(|bits| bits % 8 == 0);
        let bytes = row_bits.and_then(|bits| rows.checked_mul(bits / 8));
        if bytes != Some(main.bytes().len()) {
            let got = main.bytes().len();
            return Err(bad(format!("{got} bytes are not rows of {shape:?}")));
        }
        encoding.check(&shape, &companions)?;
        Ok(Self { encoding, shape, main, companions })
    }

    /// A tensor that is a weight by itself.
    ///
    /// # Errors
    /// [`Error::NotFloat`] if no built-in encoding without companions reads it.
    pub fn alone(main: TensorBytes<'a>) -> Result<Self, Error> {
        Self::new(of(main.dtype())?, main, Vec::new())
    }

    /// How it is stored.
    #[must_use]
    pub fn encoding(&self) -> &'static dyn Encoding {
        self.encoding
    }

    /// Dimensions of the weight, outermost first; not of the main tensor, if the two differ.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of weights.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The main tensor.
    #[must_use]
    pub fn main(&self) -> &TensorBytes<'a> {
        &self.main
    }

    /// What is needed beside it, in the encoding's order.
    #[must_use]
    pub fn companions(&self) -> &[TensorBytes<'a>] {
        &self.companions
    }

    /// The main tensor of a weight whose elements are numbers by themselves.
    ///
    /// # Errors
    /// [`Error::NotPlain`] if they are not.
    pub fn into_plain(self) -> Result<TensorBytes<'a>, Error> {
        match self.encoding.float() {
            Some(_) => Ok(self.main),
            None => Err(Error::NotPlain(self.encoding.name())),
        }
    }

    /// Takes the main tensor and the companions.
    #[must_use]
    pub fn into_parts(self) -> (TensorBytes<'a>, Vec<TensorBytes<'a>>) {
        (self.main, self.companions)
    }

    /// Rows: the product of all dimensions but the last.
    #[must_use]
    pub fn rows(&self) -> usize {
        rows_and_cols(&self.shape).0
    }

    /// Elements of a row: the last dimension.
    #[must_use]
    pub fn cols(&self) -> usize {
        rows_and_cols(&self.shape).1
    }

    /// A row.
    ///
    /// # Panics
    /// If `index` is not below [`rows`](Self::rows).
    #[must_use]
    pub fn row(&self, index: usize) -> Row<'_> {
        let size = self.cols() * self.encoding.bits() / 8;
        let main = &self.main.bytes()[index * size..(index + 1) * size];
        Row { index, main, companions: &self.companions }
    }

    /// All elements.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.elements()];
        self.runs(0..values.len(), |row, first, range| {
            self.encoding.decode(row, first, &mut values[range]);
        });
        values
    }

    /// Decodes `out.len()` elements from element `start` on, row after row.
    ///
    /// # Errors
    /// [`Error::Length`] if the range is outside the weight.
    pub fn decode(&self, start: usize, out: &mut [f32]) -> Result<(), Error> {
        let (got, expected) = (self.elements(), start.saturating_add(out.len()));
        if expected > got {
            return Err(Error::Length { what: "tensor range", expected, got });
        }
        self.runs(start..expected, |row, first, range| {
            self.encoding.decode(row, first, &mut out[range]);
        });
        Ok(())
    }

    /// How many weights are zero, of either sign.
    #[must_use]
    pub fn count_zeros(&self) -> u64 {
        self.encoding.count_zeros(self.main.bytes(), self.elements())
    }

    /// The first weight that is NaN or infinite, counted over the whole.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<usize> {
        let mut found = None;
        self.runs(0..self.elements(), |row, _, range| {
            if found.is_none() {
                let at = self.encoding.first_not_finite(row, range.len());
                found = at.map(|at| range.start + at);
            }
        });
        found
    }

    /// Calls `each` for every run of elements that can be read together: its row, where it begins
    /// in the row, and where it is in `elements`.
    fn runs(&self, elements: Range<usize>, mut each: impl FnMut(Row<'_>, usize, Range<usize>)) {
        if self.encoding.float().is_some() {
            // Rows mean nothing to numbers that follow each other.
            let whole = Row { index: 0, main: self.main.bytes(), companions: &[] };
            each(whole, elements.start, 0..elements.len());
            return;
        }
        let (cols, mut at) = (self.cols(), elements.start);
        while at < elements.end {
            let (row, first) = (at / cols, at % cols);
            let end = elements.end.min((row + 1) * cols);
            each(self.row(row), first, at - elements.start..end - elements.start);
            at = end;
        }
    }
}

fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    match shape.split_last() {
        Some((cols, rows)) => (rows.iter().product(), *cols),
        None => (1, 1),
    }
}
