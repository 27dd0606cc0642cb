//! Random draws: every random choice of this crate comes from a seed through here.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

/// A seeded stream of random choices.
#[derive(Debug, Clone)]
pub struct Draw {
    bits: Xoshiro256PlusPlus,
}

impl Draw {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { bits: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// A whole number of `low..=high`.
    pub fn number(&mut self, low: u32, high: u32) -> u32 {
        assert!(low <= high, "no number is in {low}..={high}");
        let span = u64::from(high - low) + 1;
        // Multiply and shift: the bias is below 2^-32 for the small spans drawn here.
        low + ((u64::from(self.bits.next_u32()) * span) >> 32) as u32
    }

    /// A position of a list of `len`.
    pub fn below(&mut self, len: usize) -> usize {
        self.number(0, len as u32 - 1) as usize
    }

    /// One of `items`.
    pub fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    /// True once in `n` draws.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.number(1, n) == 1
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// `len` draws of the standard normal distribution, times `scale`.
    pub fn normal(&mut self, len: usize, scale: f32) -> Vec<f32> {
        let mut values = Vec::with_capacity(len + 1);
        while values.len() < len {
            // Box and Muller's transform makes two at a time.
            let radius = (-2.0 * self.unit().ln()).sqrt();
            let angle = std::f64::consts::TAU * self.unit();
            values.push((radius * angle.cos()) as f32 * scale);
            values.push((radius * angle.sin()) as f32 * scale);
        }
        values.truncate(len);
        values
    }

    /// A number in (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.bits.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}
