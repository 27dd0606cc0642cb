//! Rotary position embeddings, half-split layout.

use std::sync::{Arc, PoisonError, RwLock};

/// Angles `position · theta^(−2i / head_dim)` (Su et al. 2021); dimension `i` of a head turns with
/// dimension `i + head_dim / 2`.
#[derive(Debug)]
pub(crate) struct Rotary {
    frequencies: Vec<f64>,
    /// Grows to the longest position met.
    table: RwLock<Arc<RotaryTable>>,
}

/// Cosines and sines of the positions up to some length.
#[derive(Debug, Default)]
pub(crate) struct RotaryTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    pub(crate) fn new(theta: f64, head_dim: usize) -> Self {
        let frequency = |i: usize| theta.powf(-2.0 * i as f64 / head_dim as f64);
        let frequencies = (0..head_dim / 2).map(frequency).collect();
        Self { frequencies, table: RwLock::default() }
    }

    /// A table of at least `positions` positions.
    pub(crate) fn table(&self, positions: usize) -> Arc<RotaryTable> {
        {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if table.positions() >= positions {
                return Arc::clone(&table);
            }
        }
        let grown = Arc::new(self.build(positions.next_power_of_two()));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&grown);
        grown
    }

    fn build(&self, positions: usize) -> RotaryTable {
        let half = self.frequencies.len();
        let mut table = RotaryTable { half, cos: Vec::new(), sin: Vec::new() };
        for position in 0..positions {
            for frequency in &self.frequencies {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                table.cos.push(cos as f32);
                table.sin.push(sin as f32);
            }
        }
        table
    }
}

impl RotaryTable {
    fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Cosines of `len` positions from `start` on, `[len, head_dim / 2]`.
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
        let (a, b) = head.split_at(self.half);
        let (turned_a, turned_b) = turned.split_at_mut(self.half);
        for i in 0..self.half {
            turned_a[i] = a[i] * cos[i] - b[i] * sin[i];
            turned_b[i] = b[i] * cos[i] + a[i] * sin[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_by_the_angle() {
        let rotary = Rotary::new(10_000.0, 4);
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
    fn growing_keeps_what_was_there() {
        let rotary = Rotary::new(1e6, 8);
        let short = rotary.table(3);
        let long = rotary.table(100);
        assert_eq!(short.cos(0, 3), long.cos(0, 3));
        assert_eq!(long.positions(), 128);
        assert!(Arc::ptr_eq(&long, &rotary.table(10)));
    }
}
