/*!
F8_E4M3 with scales: code · scale.

| scales | shape of the scale |
|---|---|
| per tensor | `[]` or `[1]` |
| per channel | `[out, 1]` or `[out]` |
| per block of `[rows, cols]` | `[⌈out / rows⌉, ⌈in / cols⌉]`; blocks at the edges are cut |

The scale is `.weight_scale_inv` (DeepSeek's name: the inverse of what the quantiser multiplied by),
`.weight_scale` (compressed-tensors, and checkpoints with a scale per tensor) or `.scale`
(DeepSeek-V4); F32, BF16, F16, or F8_E8M0 for powers of two. Weights with more than two dimensions
are matrices one after the other, and so are their scales.

The size of a block is the config's: shapes alone do not tell it where the edges are ragged.
*/

use std::ops::Range;

use super::{
    Companion, Encoding, Rows, RowsMut, SharedEncoding,
    config::QuantConfig,
    e4m3,
    form::{Format, Held, Misfit, Recognised, StoredForm, shown},
    module::ModuleTensors,
    requantise::{NewRows, Requantised, Requantising},
    scales::{Scales, StoredScale, ZeroScale, power_not_below},
};
use crate::{Dtype, Error, TensorBytes};

const DTYPES: &[Dtype] = &[Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F8_E8M0];

/// The names that scales have.
static SCALES: [Companion; 3] = [
    Companion { suffix: ".weight_scale_inv", dtypes: DTYPES },
    Companion { suffix: ".weight_scale", dtypes: DTYPES },
    Companion { suffix: ".scale", dtypes: DTYPES },
];

/// The form of weights with a scale per block.
pub const IN_BLOCKS: StoredForm = StoredForm::named("FP8 in blocks");

/// Which weights share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "what has a scale")]
pub enum Sharing {
    /// All.
    Tensor,
    /// Those of a row.
    Channel,
    /// Those of a block, of so many rows and columns.
    Block([usize; 2]),
}

/// F8_E4M3 with scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fp8 {
    sharing: Sharing,
    /// Of [`SCALES`].
    scale: usize,
}

impl Fp8 {
    /// With a scale of the name `suffix`, for example `.weight_scale`.
    ///
    /// # Errors
    /// [`Error::Encoding`] if that is no name of a scale, or a block has no rows or columns.
    pub fn new(sharing: Sharing, suffix: &str) -> Result<Self, Error> {
        let scale = SCALES.iter().position(|scale| scale.suffix == suffix);
        let bad = |reason| Error::Encoding { encoding: "fp8", reason };
        let scale = scale.ok_or_else(|| bad(format!("`{suffix}` is no name of a scale")))?;
        if let Sharing::Block([0, _] | [_, 0]) = sharing {
            return Err(bad(format!("{sharing:?} has no weights")));
        }
        Ok(Self { sharing, scale })
    }

    fn bad(self, reason: String) -> Error {
        Error::Encoding { encoding: self.name(), reason }
    }
}

pub(super) const FORMAT: Format = Format {
    codes: &[".weight"],
    companions: &[".weight_scale_inv", ".weight_scale", ".scale"],
    form,
    shape: |_| None,
    encoding: recognise,
};

fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    let matrix = held.matrix(".weight", Dtype::F8_E4M3)?;
    match held.check(".weight", held.expected) {
        Ok(()) => by_scale(held, matrix).transpose(),
        Err(misfit) => Some(Err(misfit)),
    }
}

/// The form by the shape of the scale; `None` if the scale is of no form that is known.
fn by_scale(held: &Held<'_>, [outputs, inputs]: [usize; 2]) -> Result<Option<StoredForm>, Misfit> {
    let mut scales = SCALES.iter().map(|scale| scale.suffix).filter(|name| held.module.has(name));
    let Some(suffix) = scales.next() else {
        if held.has_more() {
            return Ok(None);
        }
        let reason = "is missing beside `weight`, which is FP8 and cannot be read without";
        let missing = Misfit::new(SCALES[0].suffix, reason.to_owned());
        return Err(Misfit { others: vec![SCALES[1].suffix, SCALES[2].suffix], ..missing });
    };
    if let Some(second) = scales.next() {
        let first = shown(suffix);
        let reason = format!("is a second scale beside `{first}`; there can be one");
        return Err(Misfit::new(second, reason));
    }
    let (dtype, shape) = held.needed(suffix)?;
    let name = match *shape {
        [] | [1] => "FP8 per tensor",
        [rows, groups] if dtype == Dtype::U8 => {
            let powers = [rows, groups] == [outputs, inputs.div_ceil(32)];
            return Ok(powers.then(|| StoredForm::named("MXFP8")));
        }
        [rows] | [rows, 1] if rows == outputs => "FP8 per channel",
        _ => {
            let wrong = blocks_fit(held, [outputs, inputs], shape);
            return wrong.map(|()| Some(IN_BLOCKS)).map_err(|why| held.misshapen(suffix, &why));
        }
    };
    Ok(Some(StoredForm::named(name)))
}

/// Whether scales of this shape are of blocks of the size that the config says, or of any size if it says
/// none; if not, why.
fn blocks_fit(held: &Held<'_>, weight: [usize; 2], scale: &[usize]) -> Result<(), String> {
    let [outputs, inputs] = weight;
    if let Some(block) = held.config.block {
        let expected = blocks(&weight, block).unwrap_or_default();
        return match scale == expected {
            true => Ok(()),
            false => Err(format!(
                "{expected:?} is expected, a scale per block of {block:?} (the size that config.json says) \
                 of a weight {outputs} x {inputs}; correct the size there, or download the tensor again"
            )),
        };
    }
    // So many blocks of one size reach the end and do not go beyond it.
    let possible = |all: usize, count: usize| {
        count > 0 && count <= all && all.div_ceil(all.div_ceil(count)) == count
    };
    match *scale {
        [rows, cols] if possible(outputs, rows) && possible(inputs, cols) => Ok(()),
        _ => Err(format!(
            "no blocks of a weight {outputs} x {inputs} are so many; expected one scale for all, \
             [{outputs}, 1], or one per block; download the tensor again"
        )),
    }
}

fn recognise(module: &ModuleTensors<'_>, config: &QuantConfig) -> Option<Recognised> {
    let (dtype, shape) = module.get(".weight")?;
    let scales: Vec<&str> =
        SCALES.iter().map(|scale| scale.suffix).filter(|suffix| module.has(suffix)).collect();
    let bad = |reason: String| Error::Encoding { encoding: "fp8", reason };
    match dtype {
        Dtype::F8_E4M3 => {}
        _ => return None,
    }
    let &[suffix] = &scales[..] else {
        let reason = match scales.is_empty() {
            true => "it has no companion `.weight_scale_inv`, `.weight_scale` or `.scale`".into(),
            false => format!("it has two scales, `{}` and `{}`", scales[0], scales[1]),
        };
        return Some(Err(bad(reason)));
    };
    let (scale_dtype, scale) = module.get(suffix)?;
    if scale_dtype == Dtype::U8 {
        return Some(Err(Error::NotDecoded("MXFP8".to_owned())));
    }
    let rows = shape.len().checked_sub(2).map(|at| shape[at]);
    let sharing = match config.block {
        Some(block) if blocks(shape, block).as_deref() == Some(scale) => Sharing::Block(block),
        _ if scale.iter().product::<usize>() == 1 => Sharing::Tensor,
        _ if scale == shape_of_channels(shape) => Sharing::Channel,
        _ if rows.is_some() && scale == &shape[..shape.len() - 1] => Sharing::Channel,
        Some(block) => {
            return Some(Err(bad(format!(
                "scales `{suffix}` of {scale:?} are not those of blocks of {block:?}, which the \
                 config says, in a weight of {shape:?}"
            ))));
        }
        None => {
            return Some(Err(bad(format!(
                "scales `{suffix}` of {scale:?} for a weight of {shape:?} are of blocks, whose size \
                 the config must say (`weight_block_size` or `block_structure`)"
            ))));
        }
    };
    Some(Fp8::new(sharing, suffix).map(SharedEncoding::new))
}

/// Shape of the scales of blocks; `None` of what is no matrix.
fn blocks(shape: &[usize], [height, width]: [usize; 2]) -> Option<Vec<usize>> {
    let (before, &[rows, cols]) = shape.split_last_chunk::<2>()?;
    let ends = [rows.div_ceil(height.max(1)), cols.div_ceil(width.max(1))];
    Some([before, &ends].concat())
}

fn shape_of_channels(shape: &[usize]) -> Vec<usize> {
    let mut channels = shape.to_vec();
    channels.iter_mut().last().into_iter().for_each(|cols| *cols = 1);
    channels
}

impl Encoding for Fp8 {
    fn name(&self) -> &'static str {
        match self.sharing {
            Sharing::Tensor => "fp8 (a scale per tensor)",
            Sharing::Channel => "fp8 (a scale per channel)",
            Sharing::Block(_) => "fp8 (a scale per block)",
        }
    }

    fn dtype(&self) -> Dtype {
        Dtype::F8_E4M3
    }

    fn companions(&self) -> &'static [Companion] {
        std::slice::from_ref(&SCALES[self.scale])
    }

    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        let (scale, suffix) = (&companions[0], SCALES[self.scale].suffix);
        let expected = match self.sharing {
            _ if main.len() < 2 => {
                return Err(self.bad(format!("a weight of {main:?} is no matrix")));
            }
            Sharing::Tensor if scale.elements() == 1 => None,
            Sharing::Tensor => Some(vec![1]),
            Sharing::Channel if scale.shape() == &main[..main.len() - 1] => None,
            Sharing::Channel => Some(shape_of_channels(main)),
            Sharing::Block(block) => blocks(main, block),
        };
        if let Some(expected) = expected
            && scale.shape() != expected
        {
            let got = scale.shape();
            let of = match self.sharing {
                Sharing::Block(block) => format!(" for blocks of {block:?}"),
                _ => String::new(),
            };
            return Err(self.bad(format!(
                "its companion `{suffix}` is {got:?}, expected {expected:?}{of} in a weight of \
                 {main:?}"
            )));
        }
        Scales::of(scale).check(self.name(), suffix, ZeroScale::Taken)?;
        Ok(main.to_vec())
    }

    fn zero_scales(&self) -> Option<usize> {
        Some(0)
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let (cols, width) = (rows.cols(), columns.len());
        let scales = Scales::of(&rows.companions[0]);
        if self.sharing == Sharing::Tensor && width == cols {
            e4m3::scaled(&rows.main[..out.len()], scales.at(0), out);
            return;
        }
        for (row, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
            let codes = &rows.main[row * cols + columns.start..][..width];
            let row = rows.first + row;
            match self.sharing {
                Sharing::Tensor => e4m3::scaled(codes, scales.at(0), out),
                Sharing::Channel => e4m3::scaled(codes, scales.at(row), out),
                Sharing::Block([height, block]) => {
                    let (per_row, high) = (cols.div_ceil(block), rows.shape[rows.shape.len() - 2]);
                    let band = row / high * high.div_ceil(height) + row % high / height;
                    by_block(&columns, block, |at, part| {
                        let scale = scales.at(band * per_row + at);
                        e4m3::scaled(&codes[part.clone()], scale, &mut out[part]);
                    });
                }
            }
        }
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        let at = row * rows.cols() + col;
        rows.main[at] = 0;
        true
    }

    fn requantising(&self, shape: &[usize]) -> Option<Requantising> {
        let &[rows, _] = shape else { return None };
        let band = match self.sharing {
            Sharing::Tensor => rows.max(1),
            Sharing::Channel => 1,
            Sharing::Block([height, _]) => height,
        };
        Some(Requantising { bits: 8, band, rounding: 1.0 / 15.0 })
    }

    fn requantise(&self, rows: Rows<'_>, new: NewRows<'_>) -> Result<Requantised, Error> {
        new.check(&rows)?;
        let (cols, stored) = (rows.cols(), Scales::of(&rows.companions[0]));
        let all = 0..rows.companions[0].elements();
        let powers = all.map(|at| stored.at(at)).all(|scale| power_not_below(scale) == scale);
        let [height, width] = match self.sharing {
            Sharing::Tensor => [rows.count, cols],
            Sharing::Channel => [1, cols],
            Sharing::Block(block) => block,
        };
        let per_band = cols.div_ceil(width.max(1));
        let (mut codes, mut scales) = (vec![0; rows.count * cols], Vec::new());
        for top in (0..rows.count).step_by(height.max(1)) {
            let first = (rows.first + top) / height * per_band;
            for (at, left) in (0..cols).step_by(width.max(1)).enumerate() {
                let columns = left..cols.min(left + width);
                let block = (top..rows.count.min(top + height))
                    .map(|row| &new.values[row * new.stride..][columns.clone()]);
                let scale = scale_of(block.clone(), (stored, first + at), powers);
                for (row, values) in block.enumerate() {
                    let codes = &mut codes[(top + row) * cols..][columns.clone()];
                    for (code, value) in codes.iter_mut().zip(values) {
                        *code = code_of(*value, scale.value);
                    }
                }
                scales.extend_from_slice(&scale.bytes[..stored.size()]);
            }
        }
        Ok(Requantised { codes, scales })
    }
}

/// The code of a new value; under a scale of zero there is only zero.
fn code_of(value: f32, scale: f32) -> u8 {
    if scale == 0.0 { 0 } else { e4m3::nearest(value / scale) }
}

/// The scale of new values that share one: that with which the largest is the largest code, or the one
/// that is there if that loses no more. With `powers`, scales are powers of two.
fn scale_of<'v>(
    block: impl Iterator<Item = &'v [f32]> + Clone,
    (stored, index): (Scales<'_>, usize),
    powers: bool,
) -> StoredScale {
    const LARGEST: f32 = 448.0;
    let was = stored.stored(index);
    let values = || block.clone().flatten().copied();
    let largest = values().fold(0.0_f32, |largest, value| largest.max(value.abs())) / LARGEST;
    let wanted = if powers { power_not_below(largest) } else { largest };
    let Some(new) = stored.nearest(wanted).filter(|_| largest > 0.0) else { return was };
    let loss = |scale: f32| -> f64 {
        let error = |value: f32| f64::from(value - e4m3::value(code_of(value, scale)) * scale);
        values().map(|value| error(value).powi(2)).sum()
    };
    if loss(was.value) <= loss(new.value) { was } else { new }
}

/// Calls `each` for every block that `columns` reach: which it is, and where its part of the columns
/// is among them.
fn by_block(columns: &Range<usize>, block: usize, mut each: impl FnMut(usize, Range<usize>)) {
    let mut at = columns.start;
    while at < columns.end {
        let end = columns.end.min((at / block + 1) * block);
        each(at / block, at - columns.start..end - columns.start);
        at = end;
    }
}
