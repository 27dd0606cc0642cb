/*!
How weights are stored in bytes.

An [`Encoding`] reads and zeroes weights in the bytes they are stored in, so that pruning needs no
other place that knows a number format. A weight in an encoding is a [`StoredWeight`]: its main
tensor, the companions that some encodings need beside it (scales per block, for example), and the
encoding that reads both.

| file | encodings |
|---|---|
| [`plain`] | one number per element: BF16, F16, F32 |

# Adding an encoding

One file here with a type that implements [`Encoding`], and a line in [`ALL`]. A [`StoredWeight`] of
it is then read, compared, counted and zeroed as it is, without being encoded again. The suite
`conformance::encoding` of the workspace's tests says whether the implementation keeps the promises.

**Weights with companions are not yet found by `moeprune-checkpoint`.** What is there for them: the
trait, [`find`], and `StoredWeight`, which holds and checks companions. What is missing: a
`Checkpoint` makes every weight of its main tensor only ([`StoredWeight::alone`]), accepts BF16, F16
and F32 as types of parts ([`Dtype::is_weight`]), and does not write companions.

Bulk operations ([`Encoding::zero_where`], [`Encoding::count_zeros`], [`Encoding::compare`]) have
default implementations over the operations on one element. They are compiled per encoding, so
that a call through `dyn Encoding` costs once per row and not once per element.
*/

pub mod plain;
mod tensor;
mod weight;

use std::fmt;

pub use self::{plain::Float, weight::StoredWeight};
use crate::{Dtype, Error, TensorBytes};

/// Every built-in encoding. Of two for the same main tensor the one with more companions is first:
/// the first whose companions are all there reads a weight.
pub static ALL: &[&dyn Encoding] = &[&plain::BF16, &plain::F16, &plain::F32];

/// The encoding of a weight whose main tensor is of type `dtype`; `has` says whether there is a
/// tensor of the weight's name and a suffix. `None` if no built-in encoding reads it.
#[must_use]
pub fn find(dtype: Dtype, has: impl Fn(&str) -> bool) -> Option<&'static dyn Encoding> {
    let fits = |encoding: &&&dyn Encoding| {
        encoding.dtype() == dtype
            && (encoding.suffix().is_empty() || has(encoding.suffix()))
            && encoding.companions().iter().all(|companion| has(companion.suffix))
    };
    ALL.iter().find(fits).copied()
}

/// The encoding of a tensor that stands alone, without companions.
///
/// # Errors
/// [`Error::NotFloat`] if no built-in encoding reads it.
pub fn of(dtype: Dtype) -> Result<&'static dyn Encoding, Error> {
    find(dtype, |_| false).ok_or(Error::NotFloat(dtype))
}

/// A way to store weights.
///
/// Methods receive rows: the elements along the last axis of the weight, whose bytes follow each
/// other in the main tensor. A row begins at a whole byte. Elements are counted from 0 within the
/// bytes that a method receives.
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

    /// Bits that an element takes in the main tensor.
    fn bits(&self) -> usize;

    /// What the name of the main tensor has after that of the weight, for example `_blocks`.
    fn suffix(&self) -> &'static str {
        ""
    }

    /// The tensors that are needed beside the main one, in the order in which [`Row::companions`]
    /// has them.
    fn companions(&self) -> &'static [Companion] {
        &[]
    }

    /// Shape of the weight whose main tensor is of shape `main`. Different where an element of the
    /// main tensor holds several of the weight's.
    fn shape(&self, main: &[usize]) -> Vec<usize> {
        main.to_vec()
    }

    /// The number type, if each element is a number by itself and they follow each other. Kernels
    /// with code per number type go by it, and treat every other encoding through this trait.
    fn float(&self) -> Option<Float> {
        None
    }

    /// Checks the companions' shapes against that of the weight; called once per weight.
    ///
    /// # Errors
    /// If a companion does not fit.
    fn check(&self, _shape: &[usize], _companions: &[TensorBytes<'_>]) -> Result<(), Error> {
        Ok(())
    }

    /// Decodes `out.len()` elements of a row from element `first` on, exactly.
    ///
    /// # Panics
    /// May panic if the row is shorter.
    fn decode(&self, row: Row<'_>, first: usize, out: &mut [f32]);

    /// Encodes `values` from element `first` of a row on, each as the nearest that the row's
    /// companions allow, ties to even. Of what [`decode`](Self::decode) gave, the bytes that were
    /// decoded.
    ///
    /// # Errors
    /// [`Error::NotEncodable`] if the encoding is only read and zeroed.
    ///
    /// # Panics
    /// May panic if the row is shorter.
    fn encode(&self, values: &[f32], row: RowMut<'_>, first: usize) -> Result<(), Error> {
        let _ = (values, row, first);
        Err(Error::NotEncodable(self.name()))
    }

    /// Makes an element plus zero, and leaves the bits of all others as they are.
    ///
    /// # Panics
    /// May panic if there is no such element.
    fn zero(&self, main: &mut [u8], element: usize);

    /// Whether an element is zero, of either sign.
    ///
    /// # Panics
    /// May panic if there is no such element.
    fn is_zero(&self, main: &[u8], element: usize) -> bool;

    /// Whether an element has the same bits in `a` and `b`.
    ///
    /// # Panics
    /// May panic if there is no such element.
    fn same(&self, a: &[u8], b: &[u8], element: usize) -> bool {
        let (bits, at) = (self.bits(), element * self.bits());
        let bit = |of: &[u8], bit: usize| of[bit / 8] >> (bit % 8) & 1;
        match (bits % 8, at % 8) {
            (0, 0) => a[at / 8..(at + bits) / 8] == b[at / 8..(at + bits) / 8],
            _ => (at..at + bits).all(|at| bit(a, at) == bit(b, at)),
        }
    }

    /// The first of `elements` elements that is NaN or infinite.
    fn first_not_finite(&self, row: Row<'_>, elements: usize) -> Option<usize> {
        let mut values = [0.0; 256];
        (0..elements).step_by(values.len()).find_map(|first| {
            let values = &mut values[..(elements - first).min(256)];
            self.decode(row, first, values);
            values.iter().position(|value| !value.is_finite()).map(|at| first + at)
        })
    }

    /// Makes every element plus zero whose mark is set.
    fn zero_where(&self, main: &mut [u8], mask: &[bool]) {
        for (element, _) in mask.iter().enumerate().filter(|(_, gone)| **gone) {
            self.zero(main, element);
        }
    }

    /// How many of the first `elements` elements are zero, of either sign.
    fn count_zeros(&self, main: &[u8], elements: usize) -> u64 {
        (0..elements).map(|element| u64::from(self.is_zero(main, element))).sum()
    }

    /// Compares `elements` elements with what they were: each must be the same, or zero now.
    fn compare(&self, was: &[u8], now: &[u8], elements: usize) -> Comparison {
        let mut zeroed = 0;
        for element in 0..elements {
            if self.same(was, now, element) {
                continue;
            }
            if !self.is_zero(now, element) {
                return Comparison::Changed { first: element };
            }
            zeroed += u64::from(!self.is_zero(was, element));
        }
        Comparison::Zeroed { count: zeroed }
    }
}

/// A tensor that is needed to read another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, written in constants")]
pub struct Companion {
    /// What its name has after that of the weight, for example `_scale_inv`.
    pub suffix: &'static str,
    /// Its type.
    pub dtype: Dtype,
}

/// A row of a stored weight.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller that has the bytes")]
pub struct Row<'a> {
    /// Which row it is, from 0, counted over all axes but the last.
    pub index: usize,
    /// The row's bytes in the main tensor.
    pub main: &'a [u8],
    /// The whole companions.
    pub companions: &'a [TensorBytes<'a>],
}

/// A row of a stored weight, to be written.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller that has the bytes")]
pub struct RowMut<'a> {
    /// Which row it is, from 0, counted over all axes but the last.
    pub index: usize,
    /// The row's bytes in the main tensor.
    pub main: &'a mut [u8],
    /// The whole companions, which stay as they are.
    pub companions: &'a [TensorBytes<'a>],
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
