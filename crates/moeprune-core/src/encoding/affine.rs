//! Integer codes with a zero point and a scale: `(code − zero) · scale`.

use std::ops::RangeInclusive;

use super::{
    form::{Held, Misfit},
    scales::Scales,
};

/// What codes are decoded with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) zero: f32,
}

impl Affine {
    /// The difference is exact, so there is one rounding.
    #[inline(always)]
    pub(super) fn value(self, code: u32) -> f32 {
        // Through a signed integer, which all vector units convert from.
        (code as i32 as f32 - self.zero) * self.scale
    }
}

/// Checks that zero points and scales, `[groups, out]`, and groups of inputs are those of the weight.
pub(super) fn check(
    held: &Held<'_>,
    [outputs, inputs]: [usize; 2],
    bits: usize,
) -> Result<(), Misfit> {
    let groups = match *held.needed(".scales")?.1 {
        [groups, all] if all == outputs && (1..=inputs).contains(&groups) => groups,
        _ => {
            let expected = format!("[groups, {outputs}] is expected");
            return Err(held.misshapen(".scales", &expected));
        }
    };
    let words = outputs * bits / 32;
    let zeros = held.needed(".qzeros")?.1;
    if zeros != [groups, words] {
        let said = held.config.group_size.map(|size| inputs.div_ceil(size));
        let width = held.config.bits.unwrap_or(4) as usize;
        if width != bits && zeros == [groups, outputs * width / 32] {
            let expected =
                format!("codes of {width} bits are expected, as `qzeros` are and config.json says");
            return Err(held.misshapen(held.main.0, &expected));
        }
        // Which of the two is wrong, the config says if anything does.
        return Err(match (zeros, said) {
            (&[others, all], Some(said)) if all == words && others == said => {
                let expected =
                    format!("`qzeros` and config.json (`group_size`) say [{said}, {outputs}]");
                held.misshapen(".scales", &expected)
            }
            _ => held.misshapen(
                ".qzeros",
                &format!("`scales` of {groups} groups ask for [{groups}, {words}]"),
            ),
        });
    }
    held.check(".g_idx", &[inputs])
}

/// The factors of some rows in some groups, where scales are `[groups, out]`.
#[derive(Debug)]
pub(super) struct Factors {
    /// The first group.
    first: usize,
    rows: usize,
    factors: Vec<Affine>,
}

impl Factors {
    /// Of `rows` rows from `row` on, of `out`; `zero` is the zero point of a group and row.
    pub(super) fn read(
        groups: RangeInclusive<usize>,
        (row, rows): (usize, usize),
        (scales, out): (Scales<'_>, usize),
        zero: impl Fn(usize, usize) -> u8,
    ) -> Self {
        let (first, mut factors, mut read) = (*groups.start(), Vec::new(), vec![0.0; rows]);
        factors.reserve_exact(groups.clone().count() * rows);
        for group in groups {
            scales.read(group * out + row, &mut read);
            let factor = |(at, &scale): (usize, &f32)| Affine {
                scale,
                zero: f32::from(zero(group, row + at)),
            };
            factors.extend(read.iter().enumerate().map(factor));
        }
        Self { first, rows, factors }
    }

    /// Those of all rows in a group.
    #[inline(always)]
    pub(super) fn of_group(&self, group: usize) -> &[Affine] {
        &self.factors[(group - self.first) * self.rows..][..self.rows]
    }

    /// Of a row, counted from the first that was read, in a group.
    #[inline(always)]
    pub(super) fn of(&self, group: usize, row: usize) -> Affine {
        self.factors[(group - self.first) * self.rows + row]
    }
}
