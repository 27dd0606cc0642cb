//! E2M1 codes, two in a byte, with a scale per group of a row: what MXFP4 and NVFP4 have in common.

use std::ops::Range;

use multiversion::multiversion;

use super::{
    Encoding, Rows, RowsMut, e2m1,
    form::{Held, Misfit},
    module::ModuleTensors,
    nibbles::{self, Grouped},
    requantise::Grid,
    scales::{Scales, StoredScale},
};
use crate::{Dtype, Error, TensorBytes};

/// The shape of the scales of a weight with so many bytes of codes in each row. Checks those that there
/// are, the first companion.
pub(super) fn shape_of_scales(
    encoding: &dyn Encoding,
    main: &[usize],
    group: usize,
    scales: &TensorBytes<'_>,
) -> Result<Vec<usize>, Error> {
    let bad = |reason| Err(Error::Encoding { encoding: encoding.name(), reason });
    let expected = match main {
        [rows @ .., bytes] if !rows.is_empty() && bytes.is_multiple_of(group / 2) => {
            [rows, &[bytes / (group / 2)]].concat()
        }
        _ => {
            let suffix = encoding.suffix();
            return bad(format!(
                "`{suffix}` of {main:?} does not hold rows of groups of {group} weights"
            ));
        }
    };
    if scales.shape() != expected {
        let (suffix, got) = (encoding.companions()[0].suffix, scales.shape());
        return bad(format!("its companion `{suffix}` is {got:?}, expected {expected:?}"));
    }
    Ok(expected)
}

/// Decodes `columns` of `rows`; `factor` makes what codes are multiplied with of a stored scale.
pub(super) fn decode(
    rows: &Rows<'_>,
    columns: Range<usize>,
    out: &mut [f32],
    (group, factor): (usize, impl Fn(f32) -> f32),
) {
    let (size, groups) = (rows.cols() / 2, rows.cols() / group);
    let (scales, grouped) = (Scales::of(&rows.companions[0]), grouped(group));
    for (row, out) in out.chunks_exact_mut(columns.len().max(1)).enumerate() {
        let codes = &rows.main[row * size..][..size];
        let first_of_row = (rows.first + row) * groups;
        grouped.decode(codes, columns.clone(), out, |first, factors| {
            scales.read(first_of_row + first, factors);
            factors.iter_mut().for_each(|scale| *scale = factor(*scale));
        });
    }
}

/// Writes the code that is zero.
pub(super) fn zero(rows: &mut RowsMut<'_>, row: usize, col: usize) -> bool {
    let element = row * rows.cols() + col;
    nibbles::set(rows.main, element, 0);
    true
}

/// New values in E2M1, with scales of a byte.
pub(super) struct Scaled<'a, F> {
    pub(super) group: usize,
    pub(super) scales: Scales<'a>,
    /// What codes are multiplied with, of a stored scale.
    pub(super) factor: F,
    /// What the largest of a group may be in codes. Beyond 6 it is cut off, and the others are finer.
    pub(super) largest: [f32; 2],
}

impl<F: Fn(f32) -> f32> Scaled<'_, F> {
    fn with_factor(&self, scale: StoredScale) -> StoredScale {
        StoredScale { value: (self.factor)(scale.value), ..scale }
    }
}

impl<F: Fn(f32) -> f32> Grid for Scaled<'_, F> {
    fn group(&self) -> usize {
        self.group
    }

    fn scale_bytes(&self) -> usize {
        1
    }

    fn scales(&self, index: usize, largest: f32) -> [Option<StoredScale>; 3] {
        let of_codes = |codes: f32| {
            let scale = largest / codes / (self.factor)(1.0);
            self.scales.nearest(scale).map(|scale| self.with_factor(scale))
        };
        let [all, cut] = self.largest.map(of_codes);
        [Some(self.with_factor(self.scales.stored(index))), all, cut]
    }

    fn nearest(&self, value: f32, scale: f32) -> (u8, f32) {
        // NVFP4's scales of groups may be zero.
        let code = if scale == 0.0 { 0 } else { e2m1::nearest(value / scale) };
        (code, e2m1::value(code) * scale)
    }
}

/// The shape of a weight of codes, two in a byte.
pub(super) fn shape(module: &ModuleTensors<'_>) -> Option<Vec<usize>> {
    match module.get(".weight").or_else(|| module.get(".weight_packed"))? {
        (Dtype::U8, &[rows, bytes]) => Some(vec![rows, bytes.saturating_mul(2)]),
        _ => None,
    }
}

/// Checks that codes, two in a byte, and scales per `group` of a row are those of the weight; `None` if
/// there are no such codes.
pub(super) fn check(held: &Held<'_>, scale: &str, group: usize) -> Option<Result<(), Misfit>> {
    let codes = [".weight", ".weight_packed"];
    let [outputs, inputs] = codes.iter().find_map(|codes| held.matrix(codes, Dtype::U8))?;
    let fits = held.check(held.main.0, &[outputs, inputs.div_ceil(2)]);
    Some(fits.and_then(|()| held.check(scale, &[outputs, inputs.div_ceil(group)])))
}

/// Groups of codes, each with a scale.
fn grouped(group: usize) -> Grouped<f32> {
    Grouped { group, whole: whole_groups, one: |code, scale| e2m1::value(code) * scale }
}

#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
fn whole_groups(codes: &[u8], group: usize, scales: &[f32], out: &mut [f32]) {
    let groups = codes.chunks_exact(group / 2).zip(out.chunks_exact_mut(group)).zip(scales);
    for ((codes, out), &scale) in groups {
        let words = codes.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<8>().0);
        for (&word, out) in words {
            *out = nibbles::eight(word).map(|code| e2m1::wide(code) * scale);
        }
    }
}
