//! Each output row compared with itself.

use crate::{KnownPattern, MaskPattern, smallest::mark_smallest};

/// The lowest scores of each output row go; of equal ones, those in the lower columns, as a stable
/// sort would have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "has no parameters")]
pub struct PerRow;

impl MaskPattern for PerRow {
    fn mask_row(&self, scores: &[f32], quota: usize, mask: &mut [bool]) {
        mark_smallest(scores, quota, mask);
    }

    fn known(&self) -> Option<KnownPattern> {
        Some(KnownPattern::PerRow)
    }
}
