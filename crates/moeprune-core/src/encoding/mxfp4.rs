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
    Companion, Encoding, Rows, RowsMut, SharedEncoding,
    config::QuantConfig,
    e2m1,
    module::ModuleTensors,
    nibbles,
    requantise::{Grid, NewRows, Requantised, Requantising, by_groups},
    scales::{Scales, StoredScale, ZeroScale},
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

pub(super) fn recognise(
    module: &ModuleTensors<'_>,
    _: &QuantConfig,
) -> Option<Result<SharedEncoding, Error>> {
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
        let groups = match (self.dialect, main) {
            (Dialect::GptOss, [groups @ .., 16]) if groups.len() > 1 => Some(groups.to_vec()),
            (Dialect::CompressedTensors, [rows @ .., half])
                if !rows.is_empty() && half.is_multiple_of(GROUP / 2) =>
            {
                Some([rows, &[half / (GROUP / 2)]].concat())
            }
            _ => None,
        };
        let suffix = self.suffix();
        let bad = |reason| Error::Encoding { encoding: self.name(), reason };
        let groups = groups.ok_or_else(|| {
            bad(format!("`{suffix}` of {main:?} does not hold rows of groups of {GROUP} weights"))
        })?;
        let (companion, got) = (self.companions()[0].suffix, companions[0].shape());
        if got != groups {
            let reason = format!("its companion `{companion}` is {got:?}, expected {groups:?}");
            return Err(bad(reason));
        }
        Scales::of(&companions[0]).check(self.name(), companion, ZeroScale::Refused)?;
        let mut shape = groups;
        shape.iter_mut().last().into_iter().for_each(|groups| *groups *= GROUP);
        Ok(shape)
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols / 2)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let (size, groups) = (rows.cols() / 2, rows.cols() / GROUP);
        let scales = Scales::of(&rows.companions[0]);
        let grouped = e2m1::grouped(GROUP);
        for (row, out) in out.chunks_exact_mut(columns.len().max(1)).enumerate() {
            let codes = &rows.main[row * size..][..size];
            let first_of_row = (rows.first + row) * groups;
            grouped.decode(codes, columns.clone(), out, |first, factors| {
                scales.read(first_of_row + first, factors);
            });
        }
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        let element = row * rows.cols() + col;
        nibbles::set(rows.main, element, 0);
        true
    }

    fn requantising(&self, _: &[usize]) -> Option<Requantising> {
        Some(Requantising { bits: 4, band: 1 })
    }

    fn requantise(&self, rows: Rows<'_>, new: NewRows<'_>) -> Result<Requantised, Error> {
        Ok(by_groups(&Powers(Scales::of(&rows.companions[0])), rows, new))
    }
}

/// E2M1 with powers of two.
struct Powers<'a>(Scales<'a>);

impl Grid for Powers<'_> {
    fn group(&self) -> usize {
        GROUP
    }

    fn scale_bytes(&self) -> usize {
        1
    }

    fn scales(&self, index: usize, largest: f32) -> [Option<StoredScale>; 3] {
        // With the second, up to a third of the largest is cut off, and the others are finer.
        let [all, half] = [6.0, 12.0].map(|codes| self.0.nearest(largest / codes));
        [Some(self.0.stored(index)), all, half]
    }

    fn nearest(&self, value: f32, scale: f32) -> (u8, f32) {
        let code = e2m1::nearest(value / scale);
        (code, e2m1::value(code) * scale)
    }
}
