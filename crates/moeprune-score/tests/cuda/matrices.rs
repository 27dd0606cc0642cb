//! Matrices to try it on, the same on every machine.

use moeprune_core::{Dtype, InputMoments, LinearId, LinearView, MlpProjection, TensorBytes};

pub(crate) const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) weights: Vec<f32>,
    pub(crate) moments: Option<InputMoments>,
}

/// Numbers that are the same on every machine.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Like a normal distribution: the sum of a few even ones.
    pub(crate) fn bell(&mut self) -> f32 {
        (0..6).map(|_| self.below(1 << 16) as f32 / 65536.0 - 0.5).sum()
    }
}

impl Matrix {
    pub(crate) fn new(
        rows: usize,
        cols: usize,
        mut weight: impl FnMut(&mut Numbers) -> f32,
    ) -> Self {
        let mut numbers = Numbers((rows * 7919 + cols) as u64);
        let weights = (0..rows * cols).map(|_| weight(&mut numbers)).collect();
        let sum_squares = (0..cols).map(|_| f64::from(numbers.bell().exp())).collect();
        let moments = Some(InputMoments { tokens: 9, calls: 2, sum_squares });
        Self { rows, cols, weights, moments }
    }

    pub(crate) fn ordinary(rows: usize, cols: usize) -> Self {
        Self::new(rows, cols, Numbers::bell)
    }

    /// Few values, zeros of both signs and denormals of f32 and f16 among them.
    pub(crate) fn full_of_ties(rows: usize, cols: usize) -> Self {
        let mut matrix = Self::new(rows, cols, |numbers| {
            let small = numbers.below(5) as f32;
            match numbers.below(8) {
                0 => 0.0,
                1 => -0.0,
                2 => small * 2f32.powi(-24),
                3 => f32::from_bits(numbers.below(3) as u32),
                4 => numbers.bell(),
                _ => small / 2.0 - 1.0,
            }
        });
        for (j, sum) in matrix.moments.as_mut().unwrap().sum_squares.iter_mut().enumerate() {
            *sum = (j % 3) as f64;
        }
        matrix
    }

    pub(crate) fn linear(&self) -> LinearView<'_> {
        LinearView {
            layer: 2,
            id: LinearId::Expert(1, MlpProjection::Down),
            rows: self.rows,
            cols: self.cols,
            inputs: self.moments.as_ref(),
        }
    }

    pub(crate) fn tensor(&self, dtype: Dtype) -> TensorBytes<'static> {
        TensorBytes::encode(dtype, [self.rows, self.cols], &self.weights).unwrap()
    }
}
