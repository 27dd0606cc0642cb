/*!
Compressed-tensors' pack-quantized weights of four bits.

| tensor | type | shape |
|---|---|---|
| `.weight_packed` | I32 | `[out, ⌈in / 8⌉]`, column c in word c / 8, bits 4 (c mod 8) |
| `.weight_scale` | BF16, F16 or F32 | `[out, in / group]` |
| `.weight_shape` | I32 or I64 | `[2]`: out, in |
| `.weight_zero_point` | I32 | `[⌈out / 8⌉, in / group]`, row r in word r / 8, bits 4 (r mod 8); not of symmetric weights |

A weight is `(n − z) · scale` with the code `n` and its group's zero point `z`, which is 8 in
symmetric weights. The code that is zero is `z`.
*/

use std::ops::Range;

use multiversion::multiversion;

use super::{
    Companion, Encoding, Rows, RowsMut,
    affine::Affine,
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm},
    module::ModuleTensors,
    nibbles::{self, Grouped},
    requantise::{Grid, NewRows, Requantised, Requantising, by_groups},
    scales::{Scales, StoredScale, ZeroScale},
};
use crate::{Dtype, Error, TensorBytes};

/// Codes from −8 to 7.
pub static SYMMETRIC: Int4Pack = Int4Pack { zero_points: false };
/// Codes with a zero point per row and group.
pub static ASYMMETRIC: Int4Pack = Int4Pack { zero_points: true };

const FLOATS: &[Dtype] = &[Dtype::BF16, Dtype::F16, Dtype::F32];
const SCALE: Companion = Companion { suffix: ".weight_scale", dtypes: FLOATS };
const SHAPE: Companion = Companion { suffix: ".weight_shape", dtypes: &[Dtype::I32, Dtype::I64] };
const ZERO_POINT: Companion = Companion { suffix: ".weight_zero_point", dtypes: &[Dtype::I32] };

/// Four bits per weight, a scale per group of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int4Pack {
    zero_points: bool,
}

pub(super) const FORMAT: Format = Format {
    codes: &[".weight_packed"],
    companions: &[SCALE.suffix, SHAPE.suffix, ZERO_POINT.suffix],
    form,
    shape: |module| match module.get(".weight_packed")? {
        (Dtype::I32, &[rows, words]) => Some(vec![rows, words.saturating_mul(8)]),
        _ => None,
    },
    encoding: recognise,
};

fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    let [outputs, inputs] = held.matrix(".weight_packed", Dtype::I32)?;
    let bits = match *held.main.2 {
        [rows, words] if rows == outputs && words == inputs.div_ceil(8) => 4,
        [rows, words] if rows == outputs && words == inputs.div_ceil(4) => 8,
        [rows, _] if rows == outputs => return None,
        _ => {
            let expected = format!("{outputs} rows are expected");
            return Some(Err(held.misshapen(".weight_packed", &expected)));
        }
    };
    let name = StoredForm::Codes(format!("INT{bits} packed").into());
    Some(companions_fit(held, [outputs, inputs], bits).map(|()| name))
}

fn companions_fit(
    held: &Held<'_>,
    [outputs, inputs]: [usize; 2],
    bits: usize,
) -> Result<(), Misfit> {
    let groups = match *held.needed(SCALE.suffix)?.1 {
        [rows, groups] if rows == outputs && (1..=inputs).contains(&groups) => groups,
        _ => {
            let expected = format!("[{outputs}, groups] is expected");
            return Err(held.misshapen(SCALE.suffix, &expected));
        }
    };
    held.check(SHAPE.suffix, &[2])?;
    held.check(ZERO_POINT.suffix, &[outputs.div_ceil(32 / bits), groups])
}

fn recognise(module: &ModuleTensors<'_>, config: &QuantConfig) -> Option<Recognised> {
    if module.dtype(".weight_packed") != Some(Dtype::I32) {
        return None;
    }
    Some(match config.bits {
        None | Some(4) => {
            let encoding = if module.has(ZERO_POINT.suffix) { &ASYMMETRIC } else { &SYMMETRIC };
            Ok(encoding.into())
        }
        Some(bits) => Err(Error::NotDecoded(format!("pack-quantized of {bits} bits"))),
    })
}

impl Int4Pack {
    fn bad(self, reason: String) -> Error {
        Error::Encoding { encoding: self.name(), reason }
    }

    /// The zero point of a row and group, of so many groups per row.
    fn zero_point(self, companions: &[TensorBytes<'_>], row: usize, at: usize, of: usize) -> u8 {
        if !self.zero_points {
            return 8;
        }
        // Words are along rows: of each word's row there are as many as groups.
        let byte = (row / 8 * of + at) * 4 + row % 8 / 2;
        companions[2].bytes()[byte] >> (4 * (row % 2)) & 0xf
    }
}

impl Encoding for Int4Pack {
    fn name(&self) -> &'static str {
        match self.zero_points {
            false => "int4 (pack-quantized, symmetric)",
            true => "int4 (pack-quantized, asymmetric)",
        }
    }

    fn dtype(&self) -> Dtype {
        Dtype::I32
    }

    fn suffix(&self) -> &'static str {
        ".weight_packed"
    }

    fn companions(&self) -> &'static [Companion] {
        match self.zero_points {
            false => &[SCALE, SHAPE],
            true => &[SCALE, SHAPE, ZERO_POINT],
        }
    }

    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        let (scale, shape) = (&companions[0], &companions[1]);
        let &[rows, words] = main else {
            return Err(self.bad(format!("`.weight_packed` of {main:?} is no matrix")));
        };
        let whole = integers(shape);
        let &[out, inputs] = &whole[..] else {
            return Err(self.bad(format!("`.weight_shape` has {} numbers, not 2", whole.len())));
        };
        if out != Some(rows) || inputs.is_none_or(|inputs| inputs.div_ceil(8) != words) {
            let shown =
                |n: Option<usize>| n.map_or_else(|| "no length".to_owned(), |n| n.to_string());
            let (out, inputs) = (shown(out), shown(inputs));
            return Err(self.bad(format!(
                "`.weight_packed` of {main:?} does not hold four bits for each weight of \
                 `.weight_shape` [{out}, {inputs}]"
            )));
        }
        let inputs = inputs.unwrap_or_default();
        let groups = scale.shape().get(1).copied().unwrap_or_default();
        let fits = groups > 0 && inputs.is_multiple_of(groups) && inputs > 0;
        if scale.shape() != [rows, groups] || !fits {
            let got = scale.shape();
            return Err(self.bad(format!(
                "`.weight_scale` of {got:?} does not cut the {inputs} inputs of {rows} rows into \
                 groups of one size"
            )));
        }
        if self.zero_points && companions[2].shape() != [rows.div_ceil(8), groups] {
            let (expected, got) = ([rows.div_ceil(8), groups], companions[2].shape());
            return Err(self.bad(format!("`.weight_zero_point` is {got:?}, expected {expected:?}")));
        }
        Scales::of(scale).check(self.name(), SCALE.suffix, ZeroScale::Taken)?;
        Ok(vec![rows, inputs])
    }

    fn zero_scales(&self) -> Option<usize> {
        Some(0)
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols.div_ceil(8) * 4)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let cols = rows.cols();
        let (size, width) = (cols.div_ceil(8) * 4, columns.len());
        let groups = rows.companions[0].shape()[1];
        let scales = Scales::of(&rows.companions[0]);
        let grouped = Grouped {
            group: cols / groups,
            whole: whole_groups,
            one: |code, factor: Affine| factor.value(u32::from(code)),
        };
        for (row, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
            let (codes, row) = (&rows.main[row * size..][..size], rows.first + row);
            grouped.decode(codes, columns.clone(), out, |first, factors| {
                let mut read = [0.0; 64];
                let read = &mut read[..factors.len()];
                scales.read(row * groups + first, read);
                for (at, (factor, &mut scale)) in factors.iter_mut().zip(read).enumerate() {
                    let zero = self.zero_point(rows.companions, row, first + at, groups);
                    *factor = Affine { scale, zero: f32::from(zero) };
                }
            });
        }
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        let (cols, groups) = (rows.cols(), rows.companions[0].shape()[1]);
        let group = col / (cols / groups);
        let code = self.zero_point(rows.companions, rows.first + row, group, groups);
        nibbles::set(rows.main, row * cols.div_ceil(8) * 8 + col, code);
        true
    }

    fn requantising(&self, _: &[usize]) -> Option<Requantising> {
        (!self.zero_points).then_some(Requantising { bits: 4, band: 1, rounding: 0.08 })
    }

    fn requantise(&self, rows: Rows<'_>, new: NewRows<'_>) -> Result<Requantised, Error> {
        if self.zero_points {
            return Err(Error::NotEncodable(self.name()));
        }
        new.check(&rows)?;
        let scale = &rows.companions[0];
        let group = rows.cols() / scale.shape()[1];
        let grid = Symmetric { group, scales: Scales::of(scale) };
        Ok(by_groups(&grid, rows, new))
    }
}

/// Codes from −8 to 7, stored as 8 more.
struct Symmetric<'a> {
    group: usize,
    scales: Scales<'a>,
}

impl Grid for Symmetric<'_> {
    fn group(&self) -> usize {
        self.group
    }

    fn scale_bytes(&self) -> usize {
        self.scales.size()
    }

    fn scales(&self, index: usize, largest: f32) -> [Option<StoredScale>; 3] {
        let of = |codes: f32| self.scales.nearest(largest / codes);
        // The second is what compressed-tensors takes: half a step beyond the largest code.
        [Some(self.scales.stored(index)), of(7.5), of(7.0)]
    }

    fn nearest(&self, value: f32, scale: f32) -> (u8, f32) {
        if scale == 0.0 {
            return (8, 0.0);
        }
        let code = (value / scale).round_ties_even().clamp(-8.0, 7.0);
        ((code as i32 + 8) as u8, code * scale)
    }
}

#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn whole_groups(codes: &[u8], group: usize, factors: &[Affine], out: &mut [f32]) {
    let groups = codes.chunks_exact(group / 2).zip(out.chunks_exact_mut(group)).zip(factors);
    for ((codes, out), factor) in groups {
        let words = codes.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<8>().0);
        for (&word, out) in words {
            *out = nibbles::eight(word).map(|code| factor.value(code));
        }
    }
}

/// Integers of I32 or I64 that are lengths.
fn integers(tensor: &TensorBytes<'_>) -> Vec<Option<usize>> {
    let bytes = tensor.bytes();
    match tensor.dtype() {
        Dtype::I32 => {
            let stored = bytes.as_chunks::<4>().0.iter();
            stored.map(|&bytes| usize::try_from(i32::from_le_bytes(bytes)).ok()).collect()
        }
        _ => {
            let stored = bytes.as_chunks::<8>().0.iter();
            stored.map(|&bytes| usize::try_from(i64::from_le_bytes(bytes)).ok()).collect()
        }
    }
}
