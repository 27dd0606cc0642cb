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
    Companion, Encoding, Rows, RowsMut,
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm},
    fp4,
    module::ModuleTensors,
    requantise::{NewRows, Requantised, Requantising, by_groups},
    scales::{Scales, ZeroScale},
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
/// By how much a scale for all may be larger than the largest weight needs: scales of groups lie between
/// 2⁻⁶ and 448 where they are precise.
const MOST_RANGE: f32 = 256.0;

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

pub(super) const FORMAT: Format = Format {
    codes: &[".weight", ".weight_packed"],
    companions: &[SCALE.suffix, ".weight_scale_2", ".weight_global_scale"],
    form,
    shape: fp4::shape,
    encoding: recognise,
};

fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    if held.module.dtype(SCALE.suffix) != Some(Dtype::F8_E4M3) {
        return None;
    }
    let of_all = match held.main.0 {
        ".weight_packed" => ".weight_global_scale",
        _ => ".weight_scale_2",
    };
    let fits = fp4::check(held, SCALE.suffix, GROUP)?;
    let one = || match held.needed(of_all)?.1 {
        [] | [1] => Ok(()),
        _ => Err(held.misshapen(of_all, "a single number is expected")),
    };
    Some(fits.and_then(|()| one()).map(|()| StoredForm::named("NVFP4")))
}

fn recognise(module: &ModuleTensors<'_>, _: &QuantConfig) -> Option<Recognised> {
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
        let mut shape = fp4::shape_of_scales(self, main, GROUP, &companions[0])?;
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
        shape.iter_mut().last().into_iter().for_each(|groups| *groups *= GROUP);
        Ok(shape)
    }

    fn row_bytes(&self, cols: usize) -> Option<usize> {
        Some(cols / 2)
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        let of_all = Scales::of(&rows.companions[1]).at(0);
        fp4::decode(&rows, columns, out, (GROUP, |scale| self.factor(scale, of_all)));
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        fp4::zero(rows, row, col)
    }

    fn requantising(&self, _: &[usize]) -> Option<Requantising> {
        Some(Requantising { bits: 4, band: 1, rounding: 0.18 })
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
        // The one that is there, if it reaches far enough and leaves scales of groups their precision.
        // The largest weight that was decoded may need an ulp more than it was made of.
        let reaches =
            self.factor(1.0, Scales::of(&companions[1]).at(0)) * (1.0 + 4.0 * f32::EPSILON);
        if needed.is_normal() && !(needed..=MOST_RANGE * needed).contains(&reaches) {
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
        new.check(&rows)?;
        let of_all = Scales::of(&rows.companions[1]).at(0);
        let grid = fp4::Scaled {
            group: GROUP,
            scales: Scales::of(&rows.companions[0]),
            factor: |scale| self.factor(scale, of_all),
            largest: [LARGEST_CODE, 8.0],
        };
        Ok(by_groups(&grid, rows, new))
    }
}
