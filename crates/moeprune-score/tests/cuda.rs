//! Matrices on a device come out as on the CPU, bit for bit.
//!
//! Without a driver or a device every test passes with a line that says so. `cargo xtask emulate-cuda -- cargo test -p
//! moeprune-score --features cuda` runs them where there is no GPU.
#![cfg(feature = "cuda")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use moeprune_core::{
    BoundScorer, Dtype, InputMoments, LinearId, LinearView, MlpProjection, Sparsity, StageError,
    TensorBytes, WeightScorer,
};
use moeprune_score::{
    Magnitude, MaskPattern, NOfM, PerRow, Rounding, Wanda, count_above,
    cuda::{Error, ScoreKernels},
    prune_matrix, score_sum,
};

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

struct Device {
    stream: Arc<CudaStream>,
    kernels: ScoreKernels,
}

impl Device {
    fn new() -> Option<Self> {
        // Where the driver is loaded when it is first used, cudarc panics if there is none.
        let context = match std::panic::catch_unwind(|| CudaContext::new(0)) {
            Ok(Ok(context)) => context,
            Ok(Err(error)) => {
                eprintln!("skipped: no CUDA device: {error:?}");
                return None;
            }
            Err(_) => {
                eprintln!("skipped: no CUDA driver");
                return None;
            }
        };
        let kernels = ScoreKernels::load(&context).unwrap();
        Some(Self { stream: context.new_stream().unwrap(), kernels })
    }

    fn take(&self, bytes: &[u8]) -> CudaSlice<u8> {
        self.stream.clone_htod(bytes).unwrap()
    }

    /// Prunes on the device; the bytes after it.
    fn prune(
        &self,
        tensor: &TensorBytes<'_>,
        linear: &LinearView<'_>,
        share: f64,
        scorer: &dyn WeightScorer,
        pattern: &dyn MaskPattern,
        rounding: Rounding,
    ) -> Result<(Vec<u8>, u64, bool), Error> {
        let mut weights = self.take(tensor.bytes());
        let (ratio, dtype) = (Sparsity::new(share).unwrap(), tensor.dtype());
        let pruned = self.kernels.prune_matrix(
            &self.stream,
            &mut weights.as_view_mut(),
            dtype,
            linear,
            ratio,
            scorer,
            pattern,
            rounding,
        )?;
        let bytes = self.stream.clone_dtoh(&weights).unwrap();
        self.stream.synchronize().unwrap();
        Ok((bytes, pruned.zeroed, pruned.fallback))
    }

    #[track_caller]
    fn check(
        &self,
        matrix: &Matrix,
        dtype: Dtype,
        share: f64,
        scorer: &dyn WeightScorer,
        pattern: &dyn MaskPattern,
        rounding: Rounding,
    ) {
        let (tensor, linear) = (matrix.tensor(dtype), matrix.linear());
        let ratio = Sparsity::new(share).unwrap();
        let expected = prune_matrix(tensor.clone(), &linear, ratio, scorer, pattern, rounding);
        let case = format!(
            "{} × {} {dtype}, {share} by {scorer:?}, {pattern:?}, {rounding:?}",
            matrix.rows, matrix.cols
        );
        let got = self.prune(&tensor, &linear, share, scorer, pattern, rounding);
        match (expected, got) {
            (Ok(expected), Ok((bytes, zeroed, fallback))) => {
                let size = tensor.bytes().len() / (matrix.rows * matrix.cols).max(1);
                let wrong = bytes.iter().zip(expected.tensor.bytes()).position(|(a, b)| a != b);
                let place =
                    wrong.map(|byte| [byte / size / matrix.cols, byte / size % matrix.cols]);
                assert_eq!(place, None, "the first wrong weight of {case}");
                assert_eq!((zeroed, fallback), (expected.zeroed, expected.fallback), "{case}");
            }
            (Err(expected), Err(got)) => {
                assert_eq!(got.to_string(), expected.to_string(), "{case}");
            }
            (expected, got) => {
                panic!("{case}: {:?} for {:?}", got.map(|got| got.1), expected.map(|e| e.zeroed))
            }
        }
    }
}

struct Matrix {
    rows: usize,
    cols: usize,
    weights: Vec<f32>,
    moments: Option<InputMoments>,
}

/// Numbers that are the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Like a normal distribution: the sum of a few even ones.
    fn bell(&mut self) -> f32 {
        (0..6).map(|_| self.below(1 << 16) as f32 / 65536.0 - 0.5).sum()
    }
}

impl Matrix {
    fn new(rows: usize, cols: usize, mut weight: impl FnMut(&mut Numbers) -> f32) -> Self {
        let mut numbers = Numbers((rows * 7919 + cols) as u64);
        let weights = (0..rows * cols).map(|_| weight(&mut numbers)).collect();
        let sum_squares = (0..cols).map(|_| f64::from(numbers.bell().exp())).collect();
        let moments = Some(InputMoments { tokens: 9, calls: 2, sum_squares });
        Self { rows, cols, weights, moments }
    }

    fn ordinary(rows: usize, cols: usize) -> Self {
        Self::new(rows, cols, Numbers::bell)
    }

    /// Few values, zeros of both signs and denormals of f32 and f16 among them.
    fn full_of_ties(rows: usize, cols: usize) -> Self {
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

    fn linear(&self) -> LinearView<'_> {
        LinearView {
            layer: 2,
            id: LinearId::Expert(1, MlpProjection::Down),
            rows: self.rows,
            cols: self.cols,
            inputs: self.moments.as_ref(),
        }
    }

    fn tensor(&self, dtype: Dtype) -> TensorBytes<'static> {
        TensorBytes::encode(dtype, [self.rows, self.cols], &self.weights).unwrap()
    }
}

#[test]
fn rows_of_all_widths() {
    let Some(device) = Device::new() else { return };
    // One column, odd ones, those that start at multiples of 16 bytes, the ends of what is compared by pairs and of what
    // a block holds in registers.
    let widths = [
        1, 2, 3, 7, 8, 16, 100, 127, 128, 129, 136, 255, 256, 257, 1000, 2048, 2056, 4100, 8192,
        8200,
    ];
    for cols in widths {
        for matrix in [Matrix::ordinary(3, cols), Matrix::full_of_ties(3, cols)] {
            for dtype in DTYPES {
                device.check(&matrix, dtype, 0.65, &Wanda::default(), &PerRow, Rounding::Exact);
                device.check(&matrix, dtype, 0.5, &Magnitude, &PerRow, Rounding::ReferenceFloor);
            }
        }
    }
}

#[test]
fn all_quotas() {
    let Some(device) = Device::new() else { return };
    for (rows, cols) in [(5, 16), (4, 301), (2, 1024)] {
        for matrix in [Matrix::ordinary(rows, cols), Matrix::full_of_ties(rows, cols)] {
            for share in [0.0, 0.001, 0.01, 0.1, 0.33, 0.5, 0.8, 0.99, 0.999, 1.0 - f64::EPSILON] {
                for dtype in DTYPES {
                    for rounding in [Rounding::Exact, Rounding::ReferenceFloor] {
                        device.check(&matrix, dtype, share, &Wanda::default(), &PerRow, rounding);
                    }
                }
            }
        }
    }
}

#[test]
fn one_value_two_values_and_all_exponents() {
    let Some(device) = Device::new() else { return };
    let constant = Matrix::new(2, 3000, |_| 0.5);
    let two = Matrix::new(2, 2504, |numbers| if numbers.below(7) < 3 { 0.25 } else { 3e4 });
    // Every exponent, and two thirds of all in one value.
    let mut place = 0u32;
    let spread = Matrix::new(2, 3008, |_| {
        place += 1;
        if place.is_multiple_of(3) { f32::from_bits(place * 350_000 % 0x7f80_0000) } else { 1e-40 }
    });
    for matrix in [constant, two, spread] {
        for share in [0.0005, 0.3, 0.333, 0.43, 0.7, 0.9] {
            for dtype in DTYPES {
                device.check(&matrix, dtype, share, &Magnitude, &PerRow, Rounding::Exact);
            }
        }
    }
}

#[test]
fn rows_longer_than_shared_memory() {
    let Some(device) = Device::new() else { return };
    for cols in [14_336, 20_001, 57_000, 60_001] {
        for matrix in [Matrix::ordinary(1, cols), Matrix::full_of_ties(1, cols)] {
            for dtype in [Dtype::F32, Dtype::BF16] {
                device.check(&matrix, dtype, 0.65, &Wanda::default(), &PerRow, Rounding::Exact);
            }
        }
    }
}

#[test]
fn matrices_that_start_anywhere() {
    let Some(device) = Device::new() else { return };
    let (matrix, wanda) = (Matrix::ordinary(4, 512), Wanda::default());
    let (linear, half) = (matrix.linear(), Sparsity::new(0.5).unwrap());
    for dtype in DTYPES {
        let tensor = matrix.tensor(dtype);
        for pattern in [&PerRow as &dyn MaskPattern, &NOfM::new(2, 4).unwrap()] {
            let expected =
                prune_matrix(tensor.clone(), &linear, half, &wanda, pattern, Rounding::Exact)
                    .unwrap();
            // Behind other bytes: whole weights, half of one, none.
            for before in [4, 1, 0] {
                let mut bytes = vec![7; before];
                bytes.extend_from_slice(tensor.bytes());
                bytes.extend_from_slice(&[9; 5]);
                let mut buffer = device.take(&bytes);
                let end = bytes.len() - 5;
                let mut weights = buffer.slice_mut(before..end);
                device
                    .kernels
                    .prune_matrix(
                        &device.stream,
                        &mut weights,
                        dtype,
                        &linear,
                        half,
                        &wanda,
                        pattern,
                        Rounding::Exact,
                    )
                    .unwrap();
                let bytes = device.stream.clone_dtoh(&buffer).unwrap();
                assert!(bytes[..before].iter().all(|&byte| byte == 7));
                assert!(bytes[before..end] == *expected.tensor.bytes(), "{dtype} {pattern:?}");
                assert_eq!(bytes[end..], [9; 5]);
            }
        }
    }
}

#[test]
fn groups() {
    let Some(device) = Device::new() else { return };
    let patterns = [
        (0, 1),
        (1, 2),
        (2, 4),
        (1, 4),
        (0, 4),
        (4, 8),
        (7, 8),
        (3, 5),
        (8, 16),
        (20, 32),
        (255, 256),
    ];
    let wide = [(300, 512), (100, 257), (999, 1000), (5, 100_000)];
    for (n, m) in patterns.into_iter().chain(wide) {
        let pattern = NOfM::new(n, m).unwrap();
        for (rows, cols) in [(3, 1), (3, 8), (2, 37), (2, 1032)] {
            for matrix in [Matrix::ordinary(rows, cols), Matrix::full_of_ties(rows, cols)] {
                for dtype in DTYPES {
                    device.check(&matrix, dtype, 0.5, &Wanda::default(), &pattern, Rounding::Exact);
                }
            }
        }
    }
    let huge = NOfM::new(3, usize::MAX).unwrap();
    device.check(&Matrix::ordinary(2, 50), Dtype::BF16, 0.5, &Magnitude, &huge, Rounding::Exact);
}

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

#[test]
fn several_matrices_before_waiting() {
    let Some(device) = Device::new() else { return };
    let matrices = [Matrix::ordinary(4, 512), Matrix::ordinary(3, 100), Matrix::ordinary(2, 3000)];
    let (dtype, half, wanda) = (Dtype::BF16, Sparsity::new(0.5).unwrap(), Wanda::default());
    let mut buffers = matrices.each_ref().map(|matrix| device.take(matrix.tensor(dtype).bytes()));
    let pending: Vec<_> = matrices
        .iter()
        .zip(&mut buffers)
        .map(|(matrix, buffer)| {
            device
                .kernels
                .enqueue_prune(
                    &device.stream,
                    &mut buffer.as_view_mut(),
                    dtype,
                    &matrix.linear(),
                    half,
                    &wanda,
                    &PerRow,
                    Rounding::Exact,
                )
                .unwrap()
        })
        .collect();
    for ((matrix, buffer), pending) in matrices.iter().zip(&buffers).zip(pending) {
        pending.finish(&buffer.as_view()).unwrap();
        let tensor = matrix.tensor(dtype);
        let expected =
            prune_matrix(tensor, &matrix.linear(), half, &wanda, &PerRow, Rounding::Exact).unwrap();
        assert!(device.stream.clone_dtoh(buffer).unwrap() == expected.tensor.bytes());
    }
}
