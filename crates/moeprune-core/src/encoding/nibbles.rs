//! Rows of four-bit codes, two in a byte, the lower one first.
//!
//! Packing into 32-bit words, the first code in the lowest bits, gives the same bytes.

use std::ops::Range;

/// The code of an element.
#[inline(always)]
pub(super) fn get(codes: &[u8], element: usize) -> u8 {
    codes[element / 2] >> (4 * (element % 2)) & 0xf
}

/// Changes the code of an element.
#[inline(always)]
pub(super) fn set(codes: &mut [u8], element: usize, code: u8) {
    let shift = 4 * (element % 2);
    codes[element / 2] = codes[element / 2] & !(0xf << shift) | code << shift;
}

/// The eight codes of four bytes.
#[inline(always)]
pub(super) fn eight(bytes: [u8; 4]) -> [u32; 8] {
    let word = u32::from_le_bytes(bytes);
    [0, 4, 8, 12, 16, 20, 24, 28].map(|shift| word >> shift & 0xf)
}

/// How the codes of a row are decoded, groups of them by a factor each.
pub(super) struct Grouped<F> {
    /// Elements that share a factor.
    pub(super) group: usize,
    /// Decodes whole groups: bytes of codes, elements per group (a multiple of eight), factors.
    pub(super) whole: fn(&[u8], usize, &[F], &mut [f32]),
    /// Decodes one code.
    pub(super) one: fn(u8, F) -> f32,
}

/// Factors that are read at a time.
const BATCH: usize = 64;

impl<F: Copy + Default> Grouped<F> {
    /// Decodes `columns` of a row; `factors` reads those of the row's groups from one on.
    pub(super) fn decode(
        &self,
        codes: &[u8],
        columns: Range<usize>,
        out: &mut [f32],
        mut factors: impl FnMut(usize, &mut [F]),
    ) {
        let mut batch = [F::default(); BATCH];
        let (mut at, mut out) = (columns.start, out);
        while at < columns.end {
            let first = at / self.group;
            let last = (columns.end - 1) / self.group;
            let batch = &mut batch[..(last + 1 - first).min(BATCH)];
            factors(first, batch);
            let end = columns.end.min((first + batch.len()) * self.group);
            let (decoded, rest) = out.split_at_mut(end - at);
            self.batch(codes, at..end, decoded, batch);
            (at, out) = (end, rest);
        }
    }

    /// Decodes `columns`, the first of which is of the first factor's group.
    fn batch(&self, codes: &[u8], columns: Range<usize>, out: &mut [f32], factors: &[F]) {
        let whole = columns.len() / self.group * self.group;
        if columns.start.is_multiple_of(self.group) && self.group.is_multiple_of(8) && whole > 0 {
            let (decoded, rest) = out.split_at_mut(whole);
            let bytes = &codes[columns.start / 2..][..whole / 2];
            (self.whole)(bytes, self.group, factors, decoded);
            if !rest.is_empty() {
                let factors = &factors[whole / self.group..];
                self.part(codes, columns.start + whole..columns.end, rest, factors[0]);
            }
            return;
        }
        let (mut at, mut out) = (columns.start, out);
        let first = at / self.group;
        while at < columns.end {
            let group = at / self.group;
            let end = columns.end.min((group + 1) * self.group);
            let (decoded, rest) = out.split_at_mut(end - at);
            self.part(codes, at..end, decoded, factors[group - first]);
            (at, out) = (end, rest);
        }
    }

    /// Decodes `columns`, which share a factor.
    fn part(&self, codes: &[u8], columns: Range<usize>, out: &mut [f32], factor: F) {
        let start = columns.start.next_multiple_of(8).min(columns.end);
        let whole = (columns.end - start) / 8 * 8;
        if whole > 0 {
            let bytes = &codes[start / 2..][..whole / 2];
            let decoded = &mut out[start - columns.start..][..whole];
            (self.whole)(bytes, whole, &[factor], decoded);
        }
        for at in (columns.start..start).chain(start + whole..columns.end) {
            out[at - columns.start] = (self.one)(get(codes, at), factor);
        }
    }
}
