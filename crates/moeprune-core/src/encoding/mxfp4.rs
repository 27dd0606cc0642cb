/*!
MXFP4: E2M1 codes, 32 of a row with a power of two, `E2M1[n] · 2^(exponent − 127)`.

| dialect | codes, U8, two in a byte | exponents, U8 |
|---|---|---|
| gpt-oss | `_blocks` `[…, out, in / 32, 16]` | `_scales` `[…, out, in / 32]` |
| compressed-tensors | `.weight_packed` `[out, in / 2]` | `.weight_scale` `[out, in / 32]` |

The lower half of a byte is the even column. In gpt-oss the experts are the first axis, and rows are
outputs. The code that is zero is 0.
*/

use std::ops::Range;

use super::{
    Companion, Encoding, Rows, RowsMut,
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm},
    fp4,
    module::ModuleTensors,
    requantise::{NewRows, Requantised, Requantising, by_groups},
    scales::{Scales, ZeroScale},
};
use crate::{Dtype, Error, TensorBytes};

/// As gpt-oss stores it.
pub static GPT_OSS: Mxfp4 = Mxfp4 { dialect: Dialect::GptOss };
/// As compressed-tensors stores it (`mxfp4-pack-quantized`).
pub static COMPRESSED_TENSORS: Mxfp4 = Mxfp4 { dialect: Dialect::CompressedTensors };

/// Columns that share an exponent.
const GROUP: usize = 32;
const EXPONENTS: &[Dtype] = &[Dtype::U8, Dtype::F8_E8M0];

/// MXFP4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mxfp4 {
    dialect: Dialect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    GptOss,
    CompressedTensors,
}

pub(super) const FORMAT: Format = Format {
    codes: &["_blocks", ".weight_packed", ".weight"],
    companions: &["_scales", ".weight_scale"],
    form,
    shape: fp4::shape,
    encoding: recognise,
};

fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    const FORM: StoredForm = StoredForm::named("MXFP4");
    if held.module.dtype("_blocks") == Some(Dtype::U8) {
        return Some(Ok(FORM)); // of all experts of a layer, whose shapes are checked with the others'
    }
    let scale = ".weight_scale";
    match held.module.dtype(scale) {
        None => {
            held.matrix(".weight_packed", Dtype::U8)?;
            held.needed(scale).err().map(Err)
        }
        Some(dtype) if EXPONENTS.contains(&dtype) => {
            Some(fp4::check(held, scale, GROUP)?.map(|()| FORM))
        }
        Some(_) => None,
    }
}

fn recognise(module: &ModuleTensors<'_>, _: &QuantConfig) -> Option<Recognised> {
    if module.dtype("_blocks") == Some(Dtype::U8) {
        return Some(Ok((&GPT_OSS).into()));
    }
    // Without exponents it is this or NVFP4; that they are missing is said of either.
    let exponents = module.dtype(".weight_scale").is_none_or(|dtype| EXPONENTS.contains(&dtype));
    let codes = module.dtype(".weight_packed") == Some(Dtype::U8);
    (codes && exponents).then(|| Ok((&COMPRESSED_TENSORS).into()))
}

impl Encoding for Mxfp4 {
    fn name(&self) -> &'static str {
        match self.dialect {
            Dialect::GptOss => "mxfp4 (gpt-oss)",
            Dialect::CompressedTensors => "mxfp4 (compressed-tensors)",
        }
    }

    fn dtype(&self) -> Dtype {
        Dtype::U8
    }

    fn suffix(&self) -> &'static str {
        match self.dialect {
            Dialect::GptOss => "_blocks",
            Dialect::CompressedTensors => ".weight_packed",
        }
    }

    fn companions(&self) -> &'static [Companion] {
        match self.dialect {
            Dialect::GptOss => &[Companion { suffix: "_scales", dtypes: EXPONENTS }],
            Dialect::CompressedTensors => {
                &[Companion { suffix: ".weight_scale", dtypes: EXPONENTS }]
            }
        }
    }

    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        // gpt-oss cuts the bytes of a row into those of groups.
        let joined = match (self.dialect, main) {
            (Dialect::GptOss, [rows @ .., groups, 16]) if !rows.is_empty() => {
                Some([rows, &[groups * 16]].concat())
            }
            (Dialect::GptOss, _) => None,
            (Dialect::CompressedTensors, _) => Some(main.to_vec()),
        };
        let joined = joined.ok_or_else(|| {
            let reason =
                format!("`_blocks` of {main:?} does not hold rows of groups of {GROUP} weights");
            Error::Encoding { encoding: self.name(), reason }
        })?;
        let mut shape = fp4::shape_of_scales(self, &joined, GROUP, &companions[0])?;
        let suffix = self.companions()[0].suffix;
        Scales::of(&companions[0]).check(self.name(), suffix, ZeroScale::Refused)?;
        shape.iter_mut().last().into_iter().for_each(|groups| *groups *= GROUP);
        Ok(shape)
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols / 2)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        fp4::decode(&rows, columns, out, (GROUP, |scale| scale));
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        fp4::zero(rows, row, col)
    }

    fn requantising(&self, _: &[usize]) -> Option<Requantising> {
        Some(Requantising { bits: 4, band: 1, rounding: 0.34 })
    }

    fn requantise(&self, rows: Rows<'_>, new: NewRows<'_>) -> Result<Requantised, Error> {
        new.check(&rows)?;
        let grid = fp4::Scaled {
            group: GROUP,
            scales: Scales::of(&rows.companions[0]),
            factor: |scale| scale,
            // Of powers of two, with the second up to half of the largest is cut off.
            largest: [6.0, 12.0],
        };
        Ok(by_groups(&grid, rows, new))
    }
}
