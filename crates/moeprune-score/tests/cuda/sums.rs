//! Sums and counts of scores, and the first score that cannot be ranked.

use moeprune_core::WeightScorer;
use moeprune_score::{
    Magnitude, MaskPattern, NOfM, PerRow, Rounding, Wanda, count_above, score_sum,
};

use crate::{
    device::Device,
    matrices::{DTYPES, Matrix},
};

#[test]
fn the_first_score_that_is_none_is_named_as_by_the_cpu() {
    let Some(device) = Device::new() else { return };
    let two_of_four = NOfM::new(2, 4).unwrap();
    let many = NOfM::new(200, 300).unwrap();
    let patterns = [&PerRow as &dyn MaskPattern, &two_of_four, &NOfM::new(3, 5).unwrap(), &many];
    for cols in [40, 1031, 2080] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            let mut matrix = Matrix::ordinary(6, cols);
            for place in [5 * cols + 3, 4 * cols + cols - 1, 4 * cols + cols / 2] {
                matrix.weights[place] = bad;
            }
            for dtype in DTYPES {
                for pattern in patterns {
                    device.check(&matrix, dtype, 0.5, &Wanda::default(), pattern, Rounding::Exact);
                }
                let (tensor, linear, wanda) =
                    (matrix.tensor(dtype), matrix.linear(), Wanda::default());
                let weights = device.take(tensor.bytes());
                let expected = score_sum(&tensor, &linear, &wanda).unwrap_err().to_string();
                let (kernels, stream) = (&device.kernels, &device.stream);
                let weights = weights.as_view();
                let sum = kernels.score_sum(stream, &weights, dtype, &linear, &wanda);
                assert_eq!(sum.unwrap_err().to_string(), expected);
                let count = kernels.count_above(stream, &weights, dtype, &linear, &wanda, 1.0);
                assert_eq!(count.unwrap_err().to_string(), expected);
            }
        }
    }
}

#[test]
fn sums_and_counts_are_equal_to_the_last_bit() {
    let Some(device) = Device::new() else { return };
    let (kernels, stream) = (&device.kernels, &device.stream);
    for (rows, cols) in
        [(1, 1), (9, 31), (3, 32), (17, 33), (5, 64), (8, 1000), (2, 7168), (3, 4099)]
    {
        for matrix in [Matrix::ordinary(rows, cols), Matrix::full_of_ties(rows, cols)] {
            for dtype in DTYPES {
                let (tensor, linear) = (matrix.tensor(dtype), matrix.linear());
                let weights = device.take(tensor.bytes());
                for scorer in [&Wanda::default() as &dyn WeightScorer, &Magnitude] {
                    let view = weights.as_view();
                    let expected = score_sum(&tensor, &linear, scorer).unwrap();
                    let got = kernels.score_sum(stream, &view, dtype, &linear, scorer).unwrap();
                    assert_eq!(got.count, expected.count);
                    assert_eq!(
                        got.sum.to_bits(),
                        expected.sum.to_bits(),
                        "{rows} × {cols} {dtype}"
                    );
                    let mean = expected.sum / expected.count as f64;
                    for threshold in [0.0, mean, 2.0 * mean, 0.5, -1.0, f64::NAN, f64::INFINITY] {
                        assert_eq!(
                            kernels
                                .count_above(stream, &view, dtype, &linear, scorer, threshold)
                                .unwrap(),
                            count_above(&tensor, &linear, scorer, threshold).unwrap(),
                            "{rows} × {cols} {dtype} above {threshold}"
                        );
                    }
                }
            }
        }
    }
}
