//! Which weights go.

use moeprune_core::{Dtype, Sparsity};
use moeprune_score::{Magnitude, MaskPattern, NOfM, PerRow, Rounding, Wanda, prune_matrix};

use crate::{
    device::Device,
    matrices::{DTYPES, Matrix},
};

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
