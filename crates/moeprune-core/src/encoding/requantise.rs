//! Giving weights in codes new values: new scales, and codes in these.

use super::{Rows, nibbles, scales::StoredScale};
use crate::Error;

/// How a weight in codes is given new values.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, returned by implementations")]
pub struct Requantising {
    /// Bits of a code.
    pub bits: u32,
    /// Rows that share scales and are encoded together; those of a weight are cut into bands of so many.
    pub band: usize,
    /// What rounding takes from weights that share a scale, root mean square and as a share of the largest
    /// of them, at most: half of the widest step between codes and what the scale's own rounding adds.
    /// Where nothing is carried.
    pub rounding: f32,
}

/// New values for rows of a weight.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by the caller that has the values")]
pub struct NewRows<'a> {
    /// `[rows, stride]`, row-major. The first columns are the weight's; those behind them are not
    /// encoded here and only receive what is [carried](Self::carry).
    pub values: &'a mut [f32],
    /// Numbers per row of `values`.
    pub stride: usize,
    /// Where the error of each rounded column is carried to the later ones, so that they make up for
    /// it (Frantar et al. 2022, GPTQ): the upper triangle, row after row, of the `U` with
    /// `H⁻¹ = Uᵀ U`, where `H` is the Gram matrix of what the `stride` columns are multiplied by.
    /// `None`: each value is rounded by itself.
    pub carry: Option<&'a [f32]>,
}

impl NewRows<'_> {
    /// Checks that there are as many values as `rows` have, and as many numbers of the factor.
    pub(super) fn check(&self, rows: &Rows<'_>) -> Result<(), Error> {
        let length = |what, expected: usize, got| match expected == got {
            true => Ok(()),
            false => Err(Error::Length { what, expected, got }),
        };
        let stride = self.stride.max(rows.cols());
        length("numbers per row of new values", stride, self.stride)?;
        length("new values", rows.count.saturating_mul(stride), self.values.len())?;
        let triangle = stride.saturating_mul(stride + 1) / 2;
        self.carry.map_or(Ok(()), |carry| length("factor to carry with", triangle, carry.len()))
    }
}

/// Rows in codes, as [`Encoding::requantise`](super::Encoding::requantise) returns them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data, made by implementations")]
pub struct Requantised {
    /// Their bytes in the main tensor.
    pub codes: Vec<u8>,
    /// Their bytes in the first companion.
    pub scales: Vec<u8>,
}

/// Four-bit codes with a scale per group of a row's columns.
pub(super) trait Grid {
    /// Columns that share a scale.
    fn group(&self) -> usize;

    /// Bytes of a stored scale.
    fn scale_bytes(&self) -> usize;

    /// What the scale of a group may become, the scale `index` as it is first. `largest` is the largest
    /// magnitude in the group.
    fn scales(&self, index: usize, largest: f32) -> [Option<StoredScale>; 3];

    /// The code that is nearest to a value, and what it stands for.
    fn nearest(&self, value: f32, scale: f32) -> (u8, f32);
}

/// Rows that read the factor together, which is larger than a cache.
const TOGETHER: usize = 16;

/// Encodes rows group by group. Of the scales that a group may have, it has the one that loses least.
pub(super) fn by_groups(grid: &impl Grid, rows: Rows<'_>, new: NewRows<'_>) -> Requantised {
    let (group, groups) = (grid.group(), rows.cols() / grid.group().max(1));
    let (stride, carry) = (new.stride, new.carry.map(|factor| Carry { factor, size: new.stride }));
    let row_bytes = rows.main.len() / rows.count.max(1);
    // What pads rows stays.
    let mut codes = rows.main.to_vec();
    let mut scales = vec![0; rows.count * groups * grid.scale_bytes()];
    let mut tries = [Attempt::new(group), Attempt::new(group)];
    let mut errors = vec![0.0; TOGETHER * group];
    for (block, values) in new.values.chunks_mut((TOGETHER * stride).max(1)).enumerate() {
        for at in 0..groups {
            let columns = at * group..(at + 1) * group;
            let carried = carry.map(|carry| (carry, columns.start));
            for (in_block, values) in values.chunks_exact(stride).enumerate() {
                let row = block * TOGETHER + in_block;
                let index = row * groups + at;
                let of_all = (rows.first + row) * groups + at;
                let scale = best(grid, of_all, &values[columns.clone()], carried, &mut tries);
                scales[index * grid.scale_bytes()..][..grid.scale_bytes()]
                    .copy_from_slice(&scale.bytes[..grid.scale_bytes()]);
                let row_codes = &mut codes[row * row_bytes..][..row_bytes];
                for (column, &code) in columns.clone().zip(&tries[0].codes) {
                    nibbles::set(row_codes, column, code);
                }
                errors[in_block * group..][..group].copy_from_slice(&tries[0].errors);
            }
            if let Some(carry) = carry {
                for (in_group, column) in columns.clone().enumerate() {
                    let later = &carry.row(column)[group - in_group..];
                    for (in_block, values) in values.chunks_exact_mut(stride).enumerate() {
                        let error = errors[in_block * group + in_group];
                        subtract(&mut values[columns.end..], error, later);
                    }
                }
            }
        }
    }
    Requantised { codes, scales }
}

/// The factor that says where errors are carried.
#[derive(Clone, Copy)]
struct Carry<'a> {
    factor: &'a [f32],
    size: usize,
}

impl<'a> Carry<'a> {
    /// A row from its diagonal on.
    fn row(self, row: usize) -> &'a [f32] {
        // Rows before it are of `size`, `size − 1`, ... numbers.
        let first = row * self.size - row * row.saturating_sub(1) / 2;
        &self.factor[first..first + self.size - row]
    }
}

/// A group rounded with one scale.
struct Attempt {
    loss: f64,
    codes: Vec<u8>,
    /// What is carried of each column.
    errors: Vec<f32>,
    left: Vec<f32>,
}

impl Attempt {
    fn new(group: usize) -> Self {
        let (errors, left) = (vec![0.0; group], vec![0.0; group]);
        Self { loss: 0.0, codes: vec![0; group], errors, left }
    }

    fn round(
        &mut self,
        grid: &impl Grid,
        values: &[f32],
        scale: f32,
        carry: Option<(Carry<'_>, usize)>,
    ) {
        self.loss = 0.0;
        self.left.copy_from_slice(values);
        for at in 0..values.len() {
            let (code, stands_for) = grid.nearest(self.left[at], scale);
            let mut error = self.left[at] - stands_for;
            if let Some((carry, first)) = carry {
                let row = carry.row(first + at);
                error /= row[0];
                let later = &mut self.left[at + 1..];
                subtract(later, error, &row[1..][..values.len() - at - 1]);
            }
            self.codes[at] = code;
            self.errors[at] = error;
            self.loss += f64::from(error) * f64::from(error);
        }
    }
}

/// Rounds a group with each scale that it may have, and leaves the best of that in the first place.
fn best(
    grid: &impl Grid,
    index: usize,
    values: &[f32],
    carry: Option<(Carry<'_>, usize)>,
    tries: &mut [Attempt; 2],
) -> StoredScale {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let mut scales = grid.scales(index, largest).into_iter().flatten();
    let mut chosen = scales.next().unwrap_or(StoredScale { bytes: [0; 4], value: 0.0 });
    tries[0].round(grid, values, chosen.value, carry);
    for scale in scales {
        tries[1].round(grid, values, scale.value, carry);
        if tries[1].loss < tries[0].loss {
            tries.swap(0, 1);
            chosen = scale;
        }
    }
    chosen
}

#[multiversion::multiversion(targets(
    "x86_64+avx2+avx512f+avx512bw+avx512dq+avx512vl",
    "x86_64+avx2"
))]
fn subtract(values: &mut [f32], error: f32, row: &[f32]) {
    for (value, &x) in values.iter_mut().zip(row) {
        *value -= error * x;
    }
}
