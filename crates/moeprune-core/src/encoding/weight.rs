//! A weight as it is stored.

use super::{
    Requantised, Rows, SharedEncoding, of_tensor, rows::rows_and_cols, scales::Scales, tiles,
};
use crate::{Error, TensorBytes};

/// A weight as it is stored: the bytes, the companions that they need, and the encoding that reads
/// both.
#[derive(Debug, Clone)]
pub struct StoredWeight<'a> {
    encoding: SharedEncoding,
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
        encoding: impl Into<SharedEncoding>,
        main: TensorBytes<'a>,
        companions: Vec<TensorBytes<'a>>,
    ) -> Result<Self, Error> {
        let encoding = encoding.into();
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
            if !needed.dtypes.contains(&got.dtype()) {
                let (suffix, expected, got) = (needed.suffix, needed.types(), got.dtype());
                return Err(bad(format!("its companion `{suffix}` is {expected}, not {got}")));
            }
        }
        let shape = encoding.shape(main.shape(), &companions)?;
        let (rows, cols) = rows_and_cols(&shape);
        if let Some(row) = encoding.row_bytes(cols)
            && rows.checked_mul(row) != Some(main.bytes().len())
        {
            let got = main.bytes().len();
            return Err(bad(format!("{got} bytes are not rows of {shape:?}")));
        }
        let settled = encoding.settled(&companions)?;
        let weight = Self { encoding: settled.unwrap_or(encoding), shape, main, companions };
        weight.check_zero_scales()?;
        Ok(weight)
    }

    /// Refuses a scale of zero over codes that say something else: what they stood for is lost.
    fn check_zero_scales(&self) -> Result<(), Error> {
        let Some(at) = self.encoding.zero_scales() else { return Ok(()) };
        let scales = Scales::of(&self.companions[at]);
        let Some((scale, place)) = scales.first_zero() else { return Ok(()) };
        let mut companions: Vec<TensorBytes<'_>> =
            self.companions.iter().map(TensorBytes::view).collect();
        companions[at] = scales.without_zeros()?;
        let (rows, with_ones) = (self.all(), Rows { companions: &companions, ..self.all() });
        let (mut was, mut codes, size) =
            (tiles::ZEROS, tiles::ZEROS, self.encoding.row_bytes(rows.cols()));
        let lost = tiles::first(&rows, size, |tile| {
            let (was, codes) = (&mut was[..tile.len()], &mut codes[..tile.len()]);
            self.encoding.decode(rows.some(tile.row, tile.rows, size), tile.columns.clone(), was);
            self.encoding.decode(
                with_ones.some(tile.row, tile.rows, size),
                tile.columns.clone(),
                codes,
            );
            let mut pairs = was.iter().zip(codes.iter());
            let first = pairs.position(|(was, code)| *was == 0.0 && *code != 0.0)?;
            Some(tile.position(first, rows.cols()))
        });
        let Some(lost) = lost else { return Ok(()) };
        let (suffix, cols) = (self.encoding.companions()[at].suffix, self.cols().max(1));
        let reason = format!(
            "scale {scale} of its companion `{suffix}` is 0{place}, and codes under scales of 0 say other \
             weights than zero, the first at row {}, column {}; download it again; whole experts can still \
             be removed, by router distance or a keep-list",
            lost / cols,
            lost % cols
        );
        Err(Error::Encoding { encoding: self.encoding.name(), reason })
    }

    /// A tensor that is a weight by itself.
    ///
    /// # Errors
    /// [`Error::NotFloat`] if its elements are neither numbers by themselves nor blocks of ggml;
    /// [`Error::NotDecoded`] of blocks that are not decoded.
    pub fn alone(main: TensorBytes<'a>) -> Result<Self, Error> {
        Self::new(of_tensor(main.dtype())?, main, Vec::new())
    }

    /// How it is stored.
    #[must_use]
    pub fn encoding(&self) -> &SharedEncoding {
        &self.encoding
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

    /// The same weight, borrowed.
    #[must_use]
    pub fn view(&self) -> StoredWeight<'_> {
        StoredWeight {
            encoding: self.encoding.clone(),
            shape: self.shape.clone(),
            main: self.main.view(),
            companions: self.companions.iter().map(TensorBytes::view).collect(),
        }
    }

    /// A weight with these codes instead, and the same companions.
    ///
    /// # Errors
    /// [`Error::Encoding`] if the tensor is of another type or shape.
    pub fn with_main<'b>(self, main: TensorBytes<'b>) -> Result<StoredWeight<'b>, Error>
    where
        'a: 'b,
    {
        if main.dtype() != self.main.dtype() || main.shape() != self.main.shape() {
            let (expected, of) = (self.main.dtype(), self.main.shape());
            let (got, got_of) = (main.dtype(), main.shape());
            let reason = format!("its main tensor is {expected} {of:?}, not {got} {got_of:?}");
            return Err(Error::Encoding { encoding: self.encoding.name(), reason });
        }
        let Self { encoding, shape, companions, .. } = self;
        Ok(StoredWeight { encoding, shape, main, companions })
    }

    /// A weight of the same shape in new codes and scales: those of all rows, piece by piece, beside the
    /// `companions` that they were [made with](super::Encoding::companions_for).
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Encoding`] if they are not of the sizes that the weight has.
    pub fn requantised(
        &self,
        mut companions: Vec<TensorBytes<'static>>,
        pieces: &[Requantised],
    ) -> Result<StoredWeight<'static>, Error> {
        let codes = pieces.iter().flat_map(|piece| &piece.codes).copied().collect::<Vec<u8>>();
        let main = TensorBytes::new(self.main.dtype(), self.main.shape(), codes)?;
        if let Some(first) = companions.first_mut() {
            let scales =
                pieces.iter().flat_map(|piece| &piece.scales).copied().collect::<Vec<u8>>();
            *first = TensorBytes::new(first.dtype(), first.shape(), scales)?;
        }
        StoredWeight::new(self.encoding.clone(), main, companions)
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

    /// How many rows are best decoded together: of an encoding that holds the transpose, in which rows
    /// share words, a band of them.
    #[must_use]
    pub fn rows_together(&self) -> usize {
        self.encoding.row_bytes(self.cols()).map_or(tiles::TRANSPOSED.rows, |_| 1)
    }

    /// Elements of a row: the last dimension.
    #[must_use]
    pub fn cols(&self) -> usize {
        rows_and_cols(&self.shape).1
    }

    /// All rows.
    #[must_use]
    pub fn all(&self) -> Rows<'_> {
        let (main, companions) = (self.main.bytes(), &self.companions);
        Rows { first: 0, count: self.rows(), shape: &self.shape, main, companions }
    }

    /// Rows `first` to `first + count`.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn some(&self, first: usize, count: usize) -> Rows<'_> {
        self.all().some(first, count, self.encoding.row_bytes(self.cols()))
    }

    /// All elements.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.elements()];
        self.encoding.decode(self.all(), 0..self.cols(), &mut values);
        values
    }

    /// Decodes `out.len()` elements from element `start` on, row after row. Whole rows are decoded
    /// at a time.
    ///
    /// # Errors
    /// [`Error::Length`] if the range is outside the weight.
    pub fn decode(&self, start: usize, out: &mut [f32]) -> Result<(), Error> {
        let (got, end) = (self.elements(), start.saturating_add(out.len()));
        if end > got {
            return Err(Error::Length { what: "tensor range", expected: end, got });
        }
        if self.encoding.float().is_some() {
            // Rows mean nothing to numbers that follow each other.
            let whole = Rows::of_numbers(&got, self.main.bytes());
            self.encoding.decode(whole, start..end, out);
            return Ok(());
        }
        let (cols, mut at, mut out) = (self.cols(), start, out);
        while at < end {
            let (row, first) = (at / cols, at % cols);
            let (rows, columns) = match first == 0 && end - at >= cols {
                true => ((end - at) / cols, 0..cols),
                false => (1, first..cols.min(first + end - at)),
            };
            let (decoded, rest) = out.split_at_mut(rows * columns.len());
            at += decoded.len();
            self.encoding.decode(self.some(row, rows), columns, decoded);
            out = rest;
        }
        Ok(())
    }

    /// How many weights are zero, of either sign.
    #[must_use]
    pub fn count_zeros(&self) -> u64 {
        self.encoding.count_zeros(self.all())
    }

    /// The first weight that is NaN or infinite, counted over the whole.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<usize> {
        self.encoding.first_not_finite(self.all())
    }
}
