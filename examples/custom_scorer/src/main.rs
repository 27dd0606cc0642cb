//! A weight scorer of one's own, beside Wanda on a matrix made up on the spot: each is asked for
//! half of the weights, and what the outputs lose is measured.
//!
//! A pipeline takes it wherever it takes a built-in one.
//!
//! ```text
//! cargo run -p example-custom-scorer
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use moeprune_core::{
    BoundScorer, Dtype, InputMoments, LinearId, LinearView, MlpProjection, Sparsity, StageError,
    TensorBytes, WeightScorer,
};
use moeprune_score::{Magnitude, PerRow, Rounding, Wanda, prune_matrix};

/// Scores a weight by its share of the magnitude of its row and of its column, times its input's
/// norm raised to a power (after RIA, Zhang et al., ICLR 2024).
///
/// A scorer sees one row at a time, so what concerns whole columns is prepared before.
#[derive(Debug)]
struct RelativeImportance {
    /// `Σ_i |W_ij|` for every column.
    column_sums: Vec<f32>,
    /// 0 ignores the inputs, 1 weighs them as Wanda does.
    power: f32,
}

impl RelativeImportance {
    fn of(weights: &[f32], cols: usize, power: f32) -> Self {
        let mut column_sums = vec![0.0; cols];
        for row in weights.chunks(cols) {
            for (sum, weight) in column_sums.iter_mut().zip(row) {
                *sum += weight.abs();
            }
        }
        Self { column_sums, power }
    }
}

impl WeightScorer for RelativeImportance {
    fn bind<'a>(
        &'a self,
        linear: &LinearView<'a>,
    ) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
        if linear.cols != self.column_sums.len() {
            return Err("prepared for a matrix of another width".into());
        }
        // Without inputs, a factor of 1: the relative magnitudes still rank.
        let factors: Vec<f32> = match linear.inputs {
            Some(inputs) => inputs
                .sum_squares
                .iter()
                .map(|sum| ((sum / inputs.tokens as f64).sqrt() as f32).powf(self.power))
                .collect(),
            None => vec![1.0; linear.cols],
        };
        Ok(Box::new(move |weights: &[f32], scores: &mut [f32]| {
            let row_sum: f32 = weights.iter().map(|w| w.abs()).sum();
            for (j, (score, weight)) in scores.iter_mut().zip(weights).enumerate() {
                let share = |sum: f32| if sum > 0.0 { weight.abs() / sum } else { 0.0 };
                *score = (share(row_sum) + share(self.column_sums[j])) * factors[j];
            }
        }))
    }

    fn needs_inputs(&self) -> bool {
        true
    }
}

const ROWS: usize = 64;
const COLS: usize = 256;
const TOKENS: usize = 128;

fn main() -> Result<(), StageError> {
    let mut noise = Noise(7);
    // Columns of unlike size and features of unlike scale, as outlier features are in a model.
    let sizes: Vec<f32> = (0..COLS).map(|_| noise.next().abs() + 0.1).collect();
    let scales: Vec<f32> = (0..COLS).map(|_| 4f32.powf(noise.next())).collect();
    let weights: Vec<f32> = (0..ROWS * COLS).map(|i| noise.next() * sizes[i % COLS]).collect();
    let inputs: Vec<f32> = (0..TOKENS * COLS).map(|i| noise.next() * scales[i % COLS]).collect();

    let mut moments = InputMoments::new(COLS);
    (moments.tokens, moments.calls) = (TOKENS as u64, 1);
    for token in inputs.chunks(COLS) {
        for (sum, x) in moments.sum_squares.iter_mut().zip(token) {
            *sum += f64::from(x * x);
        }
    }
    let linear = LinearView {
        layer: 0,
        id: LinearId::Expert(0, MlpProjection::Gate),
        rows: ROWS,
        cols: COLS,
        inputs: Some(&moments),
    };

    let ours = RelativeImportance::of(&weights, COLS, 0.5);
    let full = RelativeImportance::of(&weights, COLS, 1.0);
    let scorers: [(&str, &dyn WeightScorer); 4] = [
        ("magnitude", &Magnitude),
        ("wanda", &Wanda::default()),
        ("relative, power 1/2", &ours),
        ("relative, power 1", &full),
    ];
    let dense = outputs(&weights, &inputs);
    println!("{:<22}output lost", "scorer");
    for (name, scorer) in scorers {
        let tensor = TensorBytes::encode(Dtype::F32, [ROWS, COLS], &weights)?;
        let half = Sparsity::new(0.5)?;
        let pruned = prune_matrix(tensor, &linear, half, scorer, &PerRow, Rounding::Exact)?;
        assert_eq!(pruned.zeroed as usize, ROWS * COLS / 2);
        let lost = distance(&dense, &outputs(&pruned.tensor.to_f32()?, &inputs));
        println!("{name:<22}{:.1} %", 100.0 * lost / distance(&dense, &vec![0.0; dense.len()]));
    }
    Ok(())
}

/// `W·x` for every token.
fn outputs(weights: &[f32], inputs: &[f32]) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    inputs.chunks(COLS).flat_map(|x| weights.chunks(COLS).map(move |row| dot(row, x))).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

/// Numbers from -1 to 1 (a 64-bit linear congruential generator).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
