//! The Wanda mask of one matrix, with nothing of moeprune but the stage that scores weights: no
//! model, no checkpoint, no calibration run.
//!
//! ```text
//! cargo run -p example-wanda-mask
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use moeprune_core::{
    Dtype, InputMoments, LinearId, LinearView, MlpProjection, Sparsity, TensorBytes,
};
use moeprune_score::{Magnitude, NOfM, PerRow, Rounding, Wanda, mask_matrix};

/// A weight `[out, in]` of two outputs and four inputs.
const WEIGHT: [[f32; 4]; 2] = [[1.0, -2.0, 0.5, 3.0], [0.2, 1.5, -1.0, 0.1]];

/// What went into it, three tokens: the third feature is large, the last one small.
const INPUTS: [[f32; 4]; 3] = [[1.0, 0.5, 4.0, 0.25], [0.0, 1.0, 5.0, 0.0], [2.0, 1.0, 3.0, 0.25]];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // All that Wanda needs to know of the inputs: a sum of squares a feature.
    let mut moments = InputMoments::new(4);
    moments.calls = 1;
    for token in INPUTS {
        moments.tokens += 1;
        for (sum, x) in moments.sum_squares.iter_mut().zip(token) {
            *sum += f64::from(x * x);
        }
    }

    let tensor = TensorBytes::encode(Dtype::BF16, [2, 4], WEIGHT.as_flattened())?;
    let linear = LinearView {
        layer: 0,
        id: LinearId::Expert(0, MlpProjection::Up),
        rows: 2,
        cols: 4,
        inputs: Some(&moments),
    };
    let (half, exact) = (Sparsity::new(0.5)?, Rounding::Exact);
    let wanda = mask_matrix(&tensor, &linear, half, &Wanda::default(), &PerRow, exact)?;
    let magnitude = mask_matrix(&tensor, &linear, half, &Magnitude, &PerRow, exact)?;
    let two_of_four =
        mask_matrix(&tensor, &linear, half, &Wanda::default(), &NOfM::new(2, 4)?, exact)?;

    println!("{:<12}{:?}", "weight", WEIGHT);
    for (name, mask) in [("wanda", &wanda), ("magnitude", &magnitude), ("wanda 2:4", &two_of_four)]
    {
        let row = |row| (0..4).map(|col| if mask.is_set(row, col) { '0' } else { 'x' }).collect();
        let rows: Vec<String> = (0..2).map(row).collect();
        println!("{name:<12}{}", rows.join("  "));
    }
    // The smallest weight of the first row sees the largest inputs, and stays.
    assert!(magnitude.is_set(0, 2) && !wanda.is_set(0, 2));
    assert_eq!(wanda, two_of_four, "with four columns a row is one group");
    Ok(())
}
