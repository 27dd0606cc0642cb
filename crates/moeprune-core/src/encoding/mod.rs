/*!
How weights are stored in bytes.

An [`Encoding`] reads and zeroes weights in the bytes they are stored in, and some are given new values in
the same encoding ([`Encoding::requantise`]), so that pruning needs no other place that knows a number
format. A weight in an encoding is a [`StoredWeight`]: its main
tensor, the companions that some encodings need beside it (scales per block, for example), and the
encoding that reads both.

| file | encodings |
|---|---|
| [`plain`] | one number per element: BF16, F16, F32 |
| [`fp8`] | F8_E4M3 with a scale per tensor, per channel or per block |
| [`int4`] | compressed-tensors' pack-quantized of four bits, symmetric or not |
| [`mxfp4`] | E2M1 with a power of two per 32, as gpt-oss and as compressed-tensors store it |
| [`nvfp4`] | E2M1 with a scale per 16 and one for all, as Model-Optimizer and as compressed-tensors store it |
| [`gptq`] | GPTQ of four bits, versions 1 and 2, with inputs in any order |
| [`awq`] | AWQ of four bits in its GEMM packing |
| [`ggml`] | blocks of GGUF files: Q4_0 to Q8_0, the k-quants, MXFP4; read, not zeroed |

Which of them reads a module is decided by the module's tensors: [`detect`]. A config supplies only
what tensors cannot say ([`QuantConfig`]).

# Adding an encoding

One file here with a type that implements [`Encoding`] and a `Format`, which recognises it by a
module's tensors, and a line in `detect::FORMATS`. A [`StoredWeight`] of it is then read, compared,
counted and zeroed as it is, without being encoded again. The suite `conformance::encoding` of the
workspace's tests says whether the implementation keeps the promises.

Bulk operations ([`Encoding::zero_where`], [`Encoding::count_zeros`], [`Encoding::compare`]) have
default implementations over [`Encoding::decode`] and [`Encoding::zero`]. They are compiled per
encoding, so that a call through `dyn Encoding` costs once per call and not once per element.
*/

mod affine;
pub mod awq;
mod config;
mod detect;
mod e2m1;
mod e4m3;
mod form;
mod fp4;
pub mod fp8;
pub mod ggml;
pub mod gptq;
pub mod int4;
mod labels;
mod module;
pub mod mxfp4;
mod nibbles;
pub mod nvfp4;
pub mod plain;
mod requantise;
mod rows;
mod scales;
mod shared;
mod tensor;
mod tiles;
mod undecoded;
mod weight;

use std::{fmt, ops::Range};

pub use self::{
    config::{GptqLabel, QuantConfig},
    detect::{codes_of, detect, detect_held, form_of, shape_of},
    form::{Misfit, StoredForm},
    labels::contradictions,
    module::ModuleTensors,
    plain::Float,
    requantise::{NewRows, Requantised, Requantising},
    rows::{Rows, RowsMut},
    shared::SharedEncoding,
    weight::StoredWeight,
};
use crate::{Dtype, Error, TensorBytes};

/// The encoding of a tensor whose elements are numbers by themselves.
///
/// # Errors
/// [`Error::NotFloat`] if they are not.
pub fn of(dtype: Dtype) -> Result<&'static dyn Encoding, Error> {
    match dtype {
        Dtype::BF16 => Ok(&plain::BF16),
        Dtype::F16 => Ok(&plain::F16),
        Dtype::F32 => Ok(&plain::F32),
        _ => Err(Error::NotFloat(dtype)),
    }
}

/// The encoding of a tensor that is a weight by itself: one of numbers, or of [blocks](ggml) that GGUF
/// files have.
///
/// # Errors
/// [`Error::NotFloat`] of any other type; [`Error::NotDecoded`] of blocks that are not decoded.
pub fn of_tensor(dtype: Dtype) -> Result<SharedEncoding, Error> {
    match dtype {
        Dtype::Ggml(kind) => ggml::of(kind),
        _ => of(dtype).map(SharedEncoding::from),
    }
}

/// A way to store weights.
///
/// Methods receive [`Rows`] of a weight. Rows and elements are counted from 0 within them; what
/// depends on a row's place in the whole weight adds [`Rows::first`].
///
/// Called from several threads, and must give the same result each time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an encoding",
    note = "see `moeprune_core::encoding` for what an encoding is and where to add one"
)]
pub trait Encoding: fmt::Debug + Send + Sync {
    /// Name for people, for example `bf16`.
    fn name(&self) -> &'static str;

    /// Type of the main tensor.
    fn dtype(&self) -> Dtype;

    /// What the name of the main tensor has after that of the module, for example `.qweight` or
    /// `_blocks`. Numbers that stand by themselves may have any.
    fn suffix(&self) -> &'static str {
        ".weight"
    }

    /// The tensors that are needed beside the main one, in the order in which [`Rows::companions`]
    /// has them.
    fn companions(&self) -> &'static [Companion] {
        &[]
    }

    /// Shape of the weight whose main tensor is of shape `main`; called once per weight, with
    /// companions of the right number and types. Checks that all fit each other, and that no scale
    /// makes weights that are no numbers.
    ///
    /// # Errors
    /// [`Error::Encoding`] or [`Error::Length`] if a tensor does not fit.
    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error>;

    /// Bytes of a row of `cols` elements, if rows follow each other in the main tensor. `None` if
    /// they do not, as where it holds the transpose: then methods receive the whole main tensor,
    /// whichever rows they are called for.
    fn row_bytes(&self, cols: usize) -> Option<usize>;

    /// The encoding to read a weight with, where the values of its companions decide that; called
    /// once per weight, after [`shape`](Self::shape).
    ///
    /// # Errors
    /// If they contradict what is known otherwise.
    fn settled(&self, _companions: &[TensorBytes<'_>]) -> Result<Option<SharedEncoding>, Error> {
        Ok(None)
    }

    /// What the config says otherwise than the values of the companions, which count; to be read after
    /// "config.json says that".
    fn mislabelled(&self, companions: &[TensorBytes<'_>]) -> Option<String> {
        let _ = companions;
        None
    }

    /// Which companion has scales that may be zero where all codes under them say zero anyway; `None` if
    /// the encoding needs no such check.
    fn zero_scales(&self) -> Option<usize> {
        None
    }

    /// The number type, if each element is a number by itself and they follow each other. Kernels
    /// with code per number type go by it, and treat every other encoding through this trait.
    fn float(&self) -> Option<Float> {
        None
    }

    /// Decodes `columns` of all `rows` to `out`, row by row. The value of an element is the
    /// format's formula in f32, operation by operation.
    ///
    /// # Panics
    /// May panic if there are no such columns, or `out` is not of `rows.count · columns.len()`.
    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]);

    /// Encodes `values` as `columns` of all `rows`, each as the nearest that the companions allow,
    /// ties to even. Of what [`decode`](Self::decode) gave, the bytes that were decoded.
    ///
    /// # Errors
    /// [`Error::NotEncodable`] if the encoding is only read and zeroed.
    ///
    /// # Panics
    /// As [`decode`](Self::decode).
    fn encode(
        &self,
        values: &[f32],
        rows: RowsMut<'_>,
        columns: Range<usize>,
    ) -> Result<(), Error> {
        let _ = (values, rows, columns);
        Err(Error::NotEncodable(self.name()))
    }

    /// How a weight of this shape is given new values by [`requantise`](Self::requantise); `None` if its
    /// codes are only read and zeroed.
    fn requantising(&self, shape: &[usize]) -> Option<Requantising> {
        let _ = shape;
        None
    }

    /// The companions to [`requantise`](Self::requantise) rows with, of the same types and shapes as those
    /// that the weight has: what is for the whole weight may be another, `largest` being the largest
    /// magnitude of its new values.
    ///
    /// # Errors
    /// If they cannot be made.
    fn companions_for(
        &self,
        largest: f32,
        companions: &[TensorBytes<'_>],
    ) -> Result<Vec<TensorBytes<'static>>, Error> {
        let _ = largest;
        companions.iter().map(TensorBytes::to_owned_bytes).collect()
    }

    /// Encodes new values of whole bands of rows ([`Requantising::band`]) with new scales, each of which is
    /// the one that was there or one made for the new values, whichever loses less. Zero stays zero where
    /// nothing is carried, and what [`decode`](Self::decode) gave stays as it is.
    ///
    /// `rows` are the rows as they are, with the companions of [`companions_for`](Self::companions_for).
    ///
    /// # Errors
    /// [`Error::NotEncodable`] if the encoding is only read and zeroed. [`Error::Length`] if there are not as
    /// many values as `rows` and `new.stride` say, or not the factor's numbers.
    ///
    /// # Panics
    /// May panic if the bands are not whole.
    fn requantise(&self, rows: Rows<'_>, new: NewRows<'_>) -> Result<Requantised, Error> {
        let _ = (rows, new);
        Err(Error::NotEncodable(self.name()))
    }

    /// Refuses an encoding whose weights are read and never zeroed: [`zero`](Self::zero) returns `false`
    /// for each.
    ///
    /// # Errors
    /// [`Error::NotZeroed`] with what can be done instead.
    fn zeroes(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Makes an element zero (plus zero, where the encoding has both and no scale is negative), and
    /// leaves the bits of all others as they are. `false`, and nothing is changed, if the element
    /// has no code that is zero.
    ///
    /// # Panics
    /// May panic if there is no such element.
    #[must_use]
    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool;

    /// Marks in `marks`, one per column, which elements of the first of `rows` have no code that is zero,
    /// and returns how many. Such elements are left out where weights are chosen to become zero.
    fn mark_without_zero(&self, rows: Rows<'_>, marks: &mut [bool]) -> u64 {
        let _ = rows;
        marks.fill(false);
        0
    }

    /// Whether an element is zero, of either sign.
    ///
    /// # Panics
    /// May panic if there is no such element.
    fn is_zero(&self, rows: Rows<'_>, row: usize, col: usize) -> bool {
        let (row, mut value) = (rows.some(row, 1, self.row_bytes(rows.cols())), [f32::NAN]);
        self.decode(row, col..col + 1, &mut value);
        value == [0.0]
    }

    /// The first element that is NaN or infinite, counted row by row over all `rows`.
    fn first_not_finite(&self, rows: Rows<'_>) -> Option<usize> {
        let (mut values, size) = (tiles::ZEROS, self.row_bytes(rows.cols()));
        tiles::first(&rows, size, |tile| {
            let values = &mut values[..tile.len()];
            self.decode(rows.some(tile.row, tile.rows, size), tile.columns.clone(), values);
            let bad = values.iter().position(|value| !value.is_finite())?;
            Some(tile.position(bad, rows.cols()))
        })
    }

    /// Makes every element zero whose mark is set, row by row over all `rows`, and says which have
    /// no code that is zero.
    ///
    /// # Panics
    /// May panic if there are more marks than elements.
    fn zero_where(&self, rows: &mut RowsMut<'_>, mask: &[bool]) -> Unzeroed {
        let (mut unzeroed, cols) = (Unzeroed::default(), rows.cols());
        for (at, _) in mask.iter().enumerate().filter(|(_, gone)| **gone) {
            if !self.zero(rows, at / cols, at % cols) {
                unzeroed.count += 1;
                unzeroed.first.get_or_insert(at);
            }
        }
        unzeroed
    }

    /// How many elements are zero, of either sign.
    fn count_zeros(&self, rows: Rows<'_>) -> u64 {
        let (mut values, size) = (tiles::ZEROS, self.row_bytes(rows.cols()));
        let mut zeros = 0;
        tiles::each(&rows, size, |tile| {
            let values = &mut values[..tile.len()];
            self.decode(rows.some(tile.row, tile.rows, size), tile.columns.clone(), values);
            zeros += u64::from(values.iter().map(|value| u32::from(*value == 0.0)).sum::<u32>());
        });
        zeros
    }

    /// Compares elements with what they were: each must be the same, or zero now. `now` is the
    /// main tensor's bytes, as in `was`.
    fn compare(&self, was: Rows<'_>, now: &[u8]) -> Comparison {
        if was.main == now {
            return Comparison::Zeroed { count: 0 };
        }
        let (mut before, mut after) = (tiles::ZEROS, tiles::ZEROS);
        let (size, cols) = (self.row_bytes(was.cols()), was.cols());
        let now = Rows { main: now, ..was };
        let mut count = 0;
        let changed = tiles::first(&was, size, |tile| {
            let (before, after) = (&mut before[..tile.len()], &mut after[..tile.len()]);
            self.decode(was.some(tile.row, tile.rows, size), tile.columns.clone(), before);
            self.decode(now.some(tile.row, tile.rows, size), tile.columns.clone(), after);
            let pairs = || before.iter().zip(after.iter());
            let same = |(was, now): (&f32, &f32)| was.to_bits() == now.to_bits();
            count += pairs().filter(|&(was, now)| *now == 0.0 && *was != 0.0).count() as u64;
            let first = pairs().position(|(was, now)| *now != 0.0 && !same((was, now)))?;
            Some(tile.position(first, cols))
        });
        changed.map_or(Comparison::Zeroed { count }, |first| Comparison::Changed { first })
    }
}

/// A tensor that is needed to read another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, written in constants")]
pub struct Companion {
    /// What its name has after that of the module, for example `.weight_scale_inv`.
    pub suffix: &'static str,
    /// The types that it may have.
    pub dtypes: &'static [Dtype],
}

impl Companion {
    /// The types that it may have, as text.
    pub(crate) fn types(&self) -> String {
        let types: Vec<String> = self.dtypes.iter().map(ToString::to_string).collect();
        types.join(" or ")
    }
}

/// Elements that were to be zeroed and have no code that is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "all there is to say")]
#[must_use]
pub struct Unzeroed {
    /// How many.
    pub count: u64,
    /// The first, counted row by row.
    pub first: Option<usize>,
}

/// What [`Encoding::compare`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "these are the cases there are")]
pub enum Comparison {
    /// Every element is the same, or zero now.
    Zeroed {
        /// Elements that are zero now and were not.
        count: u64,
    },
    /// Some element is neither as it was nor zero.
    Changed {
        /// The first such element.
        first: usize,
    },
}
