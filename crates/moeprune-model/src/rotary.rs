//! Rotary position embeddings.

use std::sync::{Arc, PoisonError, RwLock};

use moeprune_core::{RotarySpec, RotaryStyle};

/// Angles `position · frequency` (Su et al. 2021) of the pairs of dimensions that turn together.
#[derive(Debug)]
pub(crate) struct Rotary {
    style: RotaryStyle,
    frequencies: Vec<f64>,
    /// What cosines and sines are multiplied by.
    factor: f64,
    /// Grows to the longest position met.
    table: RwLock<Arc<RotaryTable>>,
}

/// Cosines and sines of the positions up to some length.
#[derive(Debug)]
pub(crate) struct RotaryTable {
    style: RotaryStyle,
    positions: usize,
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// `None` turns nothing.
    pub(crate) fn new(spec: Option<&RotarySpec>) -> Self {
        let style = spec.map_or(RotaryStyle::Half, |spec| spec.style);
        let frequencies = spec.map(RotarySpec::frequencies).unwrap_or_default();
        let factor = spec.map_or(1.0, |spec| spec.scaling.attention_factor());
        let (half, cos, sin) = (frequencies.len(), Vec::new(), Vec::new());
        let table = RwLock::new(Arc::new(RotaryTable { style, positions: 0, half, cos, sin }));
        Self { style, frequencies, factor, table }
    }

    /// A table of at least `positions` positions.
    pub(crate) fn table(&self, positions: usize) -> Arc<RotaryTable> {
        {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if table.positions >= positions {
                return Arc::clone(&table);
            }
        }
        let grown = Arc::new(self.build(positions.next_power_of_two()));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&grown);
        grown
    }

    fn build(&self, positions: usize) -> RotaryTable {
        let half = self.frequencies.len();
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for position in 0..positions {
            for frequency in &self.frequencies {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                cosines.push((cos * self.factor) as f32);
                sines.push((sin * self.factor) as f32);
            }
        }
        RotaryTable { style: self.style, positions, half, cos: cosines, sin: sines }
    }
}

impl RotaryTable {
    /// How many of a head's first dimensions turn.
    pub(crate) fn dims(&self) -> usize {
        2 * self.half
    }

    pub(crate) fn style(&self) -> RotaryStyle {
        self.style
    }

    /// Cosines of `len` positions from `start` on, `[len, dims / 2]`.
    pub(crate) fn cos(&self, start: usize, len: usize) -> &[f32] {
        &self.cos[start * self.half..(start + len) * self.half]
    }

    /// Sines of the same.
    pub(crate) fn sin(&self, start: usize, len: usize) -> &[f32] {
        &self.sin[start * self.half..(start + len) * self.half]
    }

    /// Turns one head at a position; `turned` has its length.
    pub(crate) fn rotate(&self, position: usize, head: &[f32], turned: &mut [f32]) {
        let (cos, sin) = (self.cos(position, 1), self.sin(position, 1));
        let (head, rest) = head.split_at(self.dims());
        let (turned, turned_rest) = turned.split_at_mut(self.dims());
        match self.style {
            RotaryStyle::Half => {
                let (a, b) = head.split_at(self.half);
                let (turned_a, turned_b) = turned.split_at_mut(self.half);
                for i in 0..self.half {
                    turned_a[i] = a[i] * cos[i] - b[i] * sin[i];
                    turned_b[i] = b[i] * cos[i] + a[i] * sin[i];
                }
            }
            RotaryStyle::Pair => {
                let pairs = head.chunks_exact(2).zip(turned.chunks_exact_mut(2));
                for ((pair, turned), (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
                    turned[0] = pair[0] * cos - pair[1] * sin;
                    turned[1] = pair[1] * cos + pair[0] * sin;
                }
            }
        }
        turned_rest.copy_from_slice(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_by_the_angle() {
        let rotary = Rotary::new(Some(&RotarySpec::plain(10_000.0, 4)));
        let table = rotary.table(8);
        let mut turned = [0.0; 4];
        table.rotate(3, &[1.0, 1.0, 0.0, 0.0], &mut turned);
        let want = [3.0_f32.cos(), 0.03_f32.cos(), 3.0_f32.sin(), 0.03_f32.sin()];
        for (t, w) in turned.iter().zip(want) {
            assert!((t - w).abs() < 1e-6, "{turned:?}");
        }
        table.rotate(0, &[0.1, 0.2, 0.3, 0.4], &mut turned);
        assert_eq!(turned, [0.1, 0.2, 0.3, 0.4]);
    }

    #[test]
    fn neighbours_turn_and_the_rest_stays() {
        let spec = RotarySpec { style: RotaryStyle::Pair, ..RotarySpec::plain(10_000.0, 4) };
        let mut turned = [0.0; 6];
        let head = [1.0, 0.0, 1.0, 0.0, 5.0, 6.0];
        Rotary::new(Some(&spec)).table(8).rotate(3, &head, &mut turned);
        let want = [3.0_f32.cos(), 3.0_f32.sin(), 0.03_f32.cos(), 0.03_f32.sin(), 5.0, 6.0];
        for (t, w) in turned.iter().zip(want) {
            assert!((t - w).abs() < 1e-6, "{turned:?}");
        }
        Rotary::new(None).table(8).rotate(3, &head, &mut turned);
        assert_eq!(turned, head);
    }

    #[test]
    fn growing_keeps_what_was_there() {
        let rotary = Rotary::new(Some(&RotarySpec::plain(1e6, 8)));
        let short = rotary.table(3);
        let long = rotary.table(100);
        assert_eq!(short.cos(0, 3), long.cos(0, 3));
        assert_eq!(long.positions, 128);
        assert!(Arc::ptr_eq(&long, &rotary.table(10)));
    }
}
