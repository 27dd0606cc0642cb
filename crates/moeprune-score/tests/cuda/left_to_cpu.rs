//! What the CPU does or refuses, as there is no kernel for it or nothing to run one on.

use moeprune_core::{
    BoundScorer, Dtype, InputMoments, LinearId, LinearView, Sparsity, StageError, WeightScorer,
};
use moeprune_score::{Magnitude, MaskPattern, PerRow, Rounding, Wanda, count_above, score_sum};

use crate::{
    device::Device,
    matrices::{DTYPES, Matrix},
};

/// Squared magnitude: no factor per column.
#[derive(Debug)]
struct Squares;

impl WeightScorer for Squares {
    fn bind<'a>(&'a self, _: &LinearView<'a>) -> Result<Box<dyn BoundScorer + 'a>, StageError> {
        Ok(Box::new(|row: &[f32], scores: &mut [f32]| {
            for (score, weight) in scores.iter_mut().zip(row) {
                *score = weight * weight;
            }
        }))
    }
}

/// The first column of every row, with any scores.
#[derive(Debug)]
struct First;

impl MaskPattern for First {
    fn mask_row(&self, _: &[f32], _: usize, mask: &mut [bool]) {
        mask[0] = true;
    }
}

#[test]
fn what_there_is_no_kernel_for_is_left_to_the_cpu() {
    let Some(device) = Device::new() else { return };
    let matrix = Matrix::ordinary(3, 20);
    for dtype in DTYPES {
        device.check(&matrix, dtype, 0.5, &Squares, &PerRow, Rounding::Exact);
        device.check(&matrix, dtype, 0.5, &Wanda::default(), &First, Rounding::Exact);
        // All of a single column: refused.
        device.check(&Matrix::ordinary(3, 1), dtype, 0.5, &Magnitude, &First, Rounding::Exact);
        let (tensor, linear) = (matrix.tensor(dtype), matrix.linear());
        let weights = device.take(tensor.bytes());
        let (view, kernels, stream) = (weights.as_view(), &device.kernels, &device.stream);
        assert_eq!(
            kernels.score_sum(stream, &view, dtype, &linear, &Squares).unwrap(),
            score_sum(&tensor, &linear, &Squares).unwrap()
        );
        assert_eq!(
            kernels.count_above(stream, &view, dtype, &linear, &Squares, 0.1).unwrap(),
            count_above(&tensor, &linear, &Squares, 0.1).unwrap()
        );
    }
}

#[test]
fn what_the_cpu_checks_first() {
    let Some(device) = Device::new() else { return };
    let wanda = Wanda::default();
    let mut matrix = Matrix::ordinary(3, 20);
    // Nothing arrived: by magnitude, and left out of sums.
    matrix.moments = None;
    device.check(&matrix, Dtype::BF16, 0.5, &wanda, &PerRow, Rounding::Exact);
    let weights = device.take(matrix.tensor(Dtype::BF16).bytes());
    let (view, kernels, stream) = (weights.as_view(), &device.kernels, &device.stream);
    let sum = kernels.score_sum(stream, &view, Dtype::BF16, &matrix.linear(), &wanda).unwrap();
    assert_eq!((sum.sum, sum.count), (0.0, 0));
    // Statistics of another Linear, a type that is no number of ours, bytes that are too few.
    matrix.moments = Some(InputMoments { tokens: 1, calls: 1, sum_squares: vec![1.0; 19] });
    device.check(&matrix, Dtype::BF16, 0.5, &wanda, &PerRow, Rounding::Exact);
    matrix.moments = None;
    let dtype = kernels.score_sum(stream, &view, Dtype::U8, &matrix.linear(), &wanda);
    assert!(dtype.unwrap_err().to_string().contains("cannot prune U8 weights"));
    let short = kernels.score_sum(stream, &view, Dtype::F32, &matrix.linear(), &wanda);
    assert_eq!(
        short.unwrap_err().to_string(),
        "layer 2 expert.1.down: expected 240 bytes of weights on the device, got 120; \
         pass the whole matrix and its type"
    );
    // Nothing at all.
    let linear = LinearView { layer: 0, id: LinearId::Router, rows: 0, cols: 5, inputs: None };
    let mut buffer = device.take(&[0]);
    let pruned = device
        .kernels
        .prune_matrix(
            &device.stream,
            &mut buffer.slice_mut(..0),
            Dtype::F32,
            &linear,
            Sparsity::new(0.5).unwrap(),
            &Magnitude,
            &PerRow,
            Rounding::Exact,
        )
        .unwrap();
    assert_eq!((pruned.zeroed, pruned.fallback), (0, false));
    let nothing = buffer.slice(..0);
    let sum = kernels.score_sum(stream, &nothing, Dtype::F32, &linear, &Magnitude).unwrap();
    assert_eq!((sum.sum, sum.count), (0.0, 0));
}
