/*!
NVFP4: E2M1 codes, 16 of a row with a scale in F8_E4M3, and a scale for all.

| dialect | codes, U8, two in a byte | scales, F8_E4M3 | scale for all, F32 | a weight |
|---|---|---|---|---|
| Model-Optimizer | `.weight` `[out, in / 2]` | `.weight_scale` `[out, in / 16]` | `.weight_scale_2` | `E2M1[n] · (scale · scale_2)` |
| compressed-tensors | `.weight_packed` `[out, in / 2]` | `.weight_scale` `[out, in / 16]` | `.weight_global_scale` | `E2M1[n] · (scale ÷ global)` |

The two round differently, so each is computed in its own order. The lower half of a byte is the even
column; the code that is zero is 0. Scales of groups may be zero: the quantiser rounds small ones to
it.
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

/// As Model-Optimizer stores it: the scale for all multiplies.
pub static MODEL_OPTIMIZER: Nvfp4 = Nvfp4 { dialect: Dialect::ModelOptimizer };
/// As compressed-tensors stores it (`nvfp4-pack-quantized`): the scale for all divides.
pub static COMPRESSED_TENSORS: Nvfp4 = Nvfp4 { dialect: Dialect::CompressedTensors };

/// Columns that share a scale.
const GROUP: usize = 16;
const LARGEST_CODE: f32 = 6.0;
const LARGEST_SCALE: f32 = 448.0;

const SCALE: Companion = Companion { suffix: ".weight_scale", dtypes: &[Dtype::F8_E4M3] };

/// NVFP4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nvfp4 {
    dialect: Dialect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    ModelOptimizer,
    CompressedTensors,
}

pub(super) fn recognise(
    module: &ModuleTensors<'_>,
    _: &QuantConfig,
) -> Option<Result<SharedEncoding, Error>> {
    if module.dtype(SCALE.suffix) != Some(Dtype::F8_E4M3) {
        return None;
    }
    match (module.dtype(".weight"), module.dtype(".weight_packed")) {
        (Some(Dtype::U8), None) => Some(Ok((&MODEL_OPTIMIZER).into())),
        (None, Some(Dtype::U8)) => Some(Ok((&COMPRESSED_TENSORS).into())),
        _ => None,
    }
}

impl Nvfp4 {
    /// The factor of a group, rounded as the dialect does.
    fn factor(self, scale: f32, of_all: f32) -> f32 {
        match self.dialect {
            Dialect::ModelOptimizer => scale * of_all,
            Dialect::CompressedTensors => scale / of_all,
        }
    }
}

impl Encoding for Nvfp4 {
    fn name(&self) -> &'static str {
        match self.dialect {
            Dialect::ModelOptimizer => "nvfp4 (Model-Optimizer)",
            Dialect::CompressedTensors => "nvfp4 (compressed-tensors)",
        }
    }

    fn dtype(&self) -> Dtype {
        Dtype::U8
    }

    fn suffix(&self) -> &'static str {
        match self.dialect {
            Dialect::ModelOptimizer => ".weight",
            Dialect::CompressedTensors => ".weight_packed",
        }
    }

    fn companions(&self) -> &'static [Companion] {
        match self.dialect {
            Dialect::ModelOptimizer => {
                &[SCALE, Companion { suffix: ".weight_scale_2", dtypes: &[Dtype::F32] }]
            }
            Dialect::CompressedTensors => {
                &[SCALE, Companion { suffix: ".weight_global_scale", dtypes: &[Dtype::F32] }]
            }
        }
    }

    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        let bad = |reason| Err(Error::Encoding { encoding: self.name(), reason });
        let (rows, half) = match main {
            [rows @ .., half] if !rows.is_empty() && half.is_multiple_of(GROUP / 2) => (rows, half),
            _ => {
                let suffix = self.suffix();
                return bad(format!(
                    "`{suffix}` of {main:?} does not hold rows of groups of {GROUP} weights"
                ));
            }
        };
        let (expected, got) = ([rows, &[half / (GROUP / 2)]].concat(), companions[0].shape());
        if got != expected {
            let suffix = SCALE.suffix;
            return bad(format!("its companion `{suffix}` is {got:?}, expected {expected:?}"));
        }
        let suffix = self.companions()[1].suffix;
        if companions[1].elements() != 1 {
            let got = companions[1].shape();
            return bad(format!("its companion `{suffix}` is {got:?}, expected one number"));
        }
        Scales::of(&companions[0]).check(self.name(), SCALE.suffix, ZeroScale::Taken)?;
        Scales::of(&companions[1]).check(self.name(), suffix, ZeroScale::Refused)?;
        let largest = self.factor(448.0, Scales::of(&companions[1]).at(0));
        if !largest.is_finite() {
            return bad(format!("its companion `{suffix}` makes scales of groups overflow"));
        }
        Ok([rows, &[half * 2]].concat())
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols / 2)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let (size, groups) = (rows.cols() / 2, rows.cols() / GROUP);
        let scales = Scales::of(&rows.companions[0]);
        let of_all = Scales::of(&rows.companions[1]).at(0);
        let grouped = e2m1::grouped(GROUP);
        for (row, out) in out.chunks_exact_mut(columns.len().max(1)).enumerate() {
            let codes = &rows.main[row * size..][..size];
            let first_of_row = (rows.first + row) * groups;
            grouped.decode(codes, columns.clone(), out, |first, factors| {
                scales.read(first_of_row + first, factors);
                factors.iter_mut().for_each(|factor| *factor = self.factor(*factor, of_all));
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

    fn companions_for(
        &self,
        largest: f32,
        companions: &[TensorBytes<'_>],
    ) -> Result<Vec<TensorBytes<'static>>, Error> {
        let needed = largest / (LARGEST_CODE * LARGEST_SCALE);
        let mut new = Vec::with_capacity(companions.len());
        for companion in companions {
            new.push(companion.to_owned_bytes()?);
        }
        // Of those that reach far enough, the one that is there.
        if self.factor(1.0, Scales::of(&companions[1]).at(0)) < needed {
            let of_all = match self.dialect {
                Dialect::ModelOptimizer => needed,
                Dialect::CompressedTensors => 1.0 / needed,
            };
            new[1] =
                TensorBytes::new(Dtype::F32, companions[1].shape(), of_all.to_le_bytes().to_vec())?;
        }
        Ok(new)
    }

    fn requantise(&self, rows: Rows<'_>, new: NewRows<'_>) -> Result<Requantised, Error> {
        let scales = Scales::of(&rows.companions[0]);
        let of_all = Scales::of(&rows.companions[1]).at(0);
        Ok(by_groups(&TwoScales { encoding: *self, scales, of_all }, rows, new))
    }
}

/// E2M1 with a scale per group and one for all.
struct TwoScales<'a> {
    encoding: Nvfp4,
    scales: Scales<'a>,
    of_all: f32,
}

impl TwoScales<'_> {
    /// The scale as it is stored, with the factor that it makes.
    fn with_factor(&self, scale: StoredScale) -> StoredScale {
        StoredScale { value: self.encoding.factor(scale.value, self.of_all), ..scale }
    }
}

impl Grid for TwoScales<'_> {
    fn group(&self) -> usize {
        GROUP
    }

    fn scale_bytes(&self) -> usize {
        1
    }

    fn scales(&self, index: usize, largest: f32) -> [Option<StoredScale>; 3] {
        let of_codes = |code: f32| {
            let scale = largest / code / self.encoding.factor(1.0, self.of_all);
            self.scales.nearest(scale).map(|scale| self.with_factor(scale))
        };
        // With the last, the largest is cut off by a third, and the others are finer.
        let was = self.with_factor(self.scales.stored(index));
        [Some(was), of_codes(LARGEST_CODE), of_codes(8.0)]
    }

    fn nearest(&self, value: f32, scale: f32) -> (u8, f32) {
        // Scales of groups may be zero.
        let code = if scale == 0.0 { 0 } else { e2m1::nearest(value / scale) };
        (code, e2m1::value(code) * scale)
    }
}
