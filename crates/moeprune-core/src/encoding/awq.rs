/*!
AWQ's GEMM packing with four bits per weight, which stores the transpose.

| tensor | type | shape |
|---|---|---|
| `.qweight` | I32 | `[in, out / 8]` |
| `.qzeros` | I32 | `[in / group, out / 8]` |
| `.scales` | F16, BF16 or F32 | `[in / group, out]` |

Four-bit code k of a word, from the lowest bits on, is of output `8 w + (0, 2, 4, 6, 1, 3, 5, 7)[k]`.
A weight is `(q − z) · scale`; the code that is zero is `z`, which is stored as it is.
*/

use std::ops::Range;

use multiversion::multiversion;

use super::{
    Companion, Encoding, Rows, RowsMut,
    affine::{self, Factors},
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm},
    module::ModuleTensors,
    nibbles,
    scales::{Scales, ZeroScale},
    tiles,
};
use crate::{Dtype, Error, TensorBytes};

/// AWQ, GEMM packing.
pub static GEMM: AwqGemm = AwqGemm;

const ZEROS: Companion = Companion { suffix: ".qzeros", dtypes: &[Dtype::I32] };
const SCALE: Companion =
    Companion { suffix: ".scales", dtypes: &[Dtype::F16, Dtype::BF16, Dtype::F32] };

/// Where the code of output `8 w + r` is in word w: the inverse of the order of outputs.
const PLACE: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// AWQ's GEMM packing with four bits per weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwqGemm;

pub(super) const FORMAT: Format = Format {
    codes: &[".qweight"],
    companions: &[ZEROS.suffix, SCALE.suffix],
    form,
    shape: |module| match (module.get(".qweight")?.1, module.get(SCALE.suffix)?.1) {
        (&[inputs, words], &[_, outputs]) if words != outputs => Some(vec![outputs, inputs]),
        _ => None,
    },
    encoding: recognise,
};

fn form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    let [outputs, inputs] = held.matrix(".qweight", Dtype::I32)?;
    let &[rows, words] = held.main.2 else { return None };
    let packs = |bits: &usize| words * 32 == outputs * bits;
    let bits = [2, 3, 4, 8].into_iter().find(packs).filter(|_| rows == inputs)?;
    let name = StoredForm::Codes(format!("AWQ INT{bits}").into());
    Some(affine::check(held, [outputs, inputs], bits).map(|()| name))
}

fn recognise(module: &ModuleTensors<'_>, config: &QuantConfig) -> Option<Recognised> {
    let (dtype, codes) = module.get(".qweight")?;
    let Some((_, scales)) = module.get(SCALE.suffix) else {
        let reason = format!("its companion `{}` is missing", SCALE.suffix);
        return Some(Err(Error::Encoding { encoding: "awq or gptq", reason }));
    };
    let packed = codes.len() == 2 && scales.len() == 2 && codes[1] * 8 == scales[1];
    let named = config.packing.as_deref().is_none_or(|packing| packing == "gemm");
    if packed && named && dtype == Dtype::I32 {
        return Some(Ok((&GEMM).into()));
    }
    let packing = config.packing.as_deref().unwrap_or("gemv or Marlin, perhaps");
    Some(Err(Error::NotDecoded(format!("AWQ or GPTQ in another packing ({packing})"))))
}

impl AwqGemm {
    fn bad(self, reason: String) -> Error {
        Error::Encoding { encoding: self.name(), reason }
    }
}

/// Where the code of an output is in a row of words, in codes.
fn place(output: usize) -> usize {
    output / 8 * 8 + PLACE[output % 8]
}

impl Encoding for AwqGemm {
    fn name(&self) -> &'static str {
        "awq (GEMM)"
    }

    fn dtype(&self) -> Dtype {
        Dtype::I32
    }

    fn suffix(&self) -> &'static str {
        ".qweight"
    }

    fn companions(&self) -> &'static [Companion] {
        &[ZEROS, SCALE]
    }

    fn shape(&self, main: &[usize], companions: &[TensorBytes<'_>]) -> Result<Vec<usize>, Error> {
        let &[inputs, words] = main else {
            return Err(self.bad(format!("`.qweight` of {main:?} is no matrix")));
        };
        let (out, scales) = (words * 8, companions[1].shape());
        let groups = scales.first().copied().unwrap_or_default();
        let fits = groups > 0 && inputs.is_multiple_of(groups) && inputs > 0;
        if scales != [groups, out] || !fits {
            return Err(self.bad(format!(
                "its companion `.scales` is {scales:?}, expected [groups, {out}] with groups of one \
                 size of {inputs} inputs"
            )));
        }
        if companions[0].shape() != [groups, words] {
            let (expected, got) = ([groups, words], companions[0].shape());
            let reason = format!("its companion `.qzeros` is {got:?}, expected {expected:?}");
            return Err(self.bad(reason));
        }
        Scales::of(&companions[1]).check(self.name(), SCALE.suffix, ZeroScale::Taken)?;
        Ok(vec![out, inputs])
    }

    fn zero_scales(&self) -> Option<usize> {
        Some(1)
    }

    fn row_bytes(&self, _: usize) -> Option<usize> {
        None
    }

    fn decode(&self, rows: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
        if columns.is_empty() {
            return;
        }
        let (outputs, width) = (rows.shape[0], columns.len());
        let group = rows.cols() / rows.companions[1].shape()[0];
        let groups = columns.start / group..=(columns.end - 1) / group;
        let scales = (Scales::of(&rows.companions[1]), outputs);
        let zeros = rows.companions[0].bytes();
        for from in (0..rows.count).step_by(tiles::TRANSPOSED.rows) {
            let band = rows.some(from, tiles::TRANSPOSED.rows.min(rows.count - from), None);
            let zero = |group, row| nibbles::get(zeros, group * outputs + place(row));
            let factors = Factors::read(groups.clone(), (band.first, band.count), scales, zero);
            let out = &mut out[from * width..(from + band.count) * width];
            decode_band(&band, columns.clone(), group, &factors, out);
        }
    }

    fn zero(&self, rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
        let (outputs, row) = (rows.shape[0], rows.first + row);
        let group = col / (rows.cols() / rows.companions[1].shape()[0]);
        let code = nibbles::get(rows.companions[0].bytes(), group * outputs + place(row));
        nibbles::set(rows.main, col * outputs + place(row), code);
        true
    }
}

/// Inputs whose words are taken out of the main tensor's rows at a time.
const INPUTS: usize = 256;

/// Decodes a band of rows, which are columns of the main tensor: a word of each of its rows has one
/// input of eight outputs.
#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn decode_band(
    band: &Rows<'_>,
    columns: Range<usize>,
    group: usize,
    factors: &Factors,
    out: &mut [f32],
) {
    let (per_row, width, last) = (band.shape[0] / 8, columns.len(), band.first + band.count);
    let stored = band.main.as_chunks::<4>().0;
    let mut taken = [0; INPUTS];
    let mut at = columns.start;
    while at < columns.end {
        let end = columns.end.min(at + INPUTS).min((at / group + 1) * group);
        let factors = factors.of_group(at / group);
        for word in band.first / 8..last.div_ceil(8) {
            let taken = &mut taken[..end - at];
            let words = stored[at * per_row + word..].iter().step_by(per_row);
            for (taken, word) in taken.iter_mut().zip(words) {
                *taken = u32::from_le_bytes(*word);
            }
            for row in band.first.max(word * 8)..last.min(word * 8 + 8) {
                let (shift, factor) = (PLACE[row % 8] * 4, factors[row - band.first]);
                let from = (row - band.first) * width + at - columns.start;
                for (out, word) in out[from..from + (end - at)].iter_mut().zip(&*taken) {
                    *out = factor.value(word >> shift & 0xf);
                }
            }
        }
        at = end;
    }
}
