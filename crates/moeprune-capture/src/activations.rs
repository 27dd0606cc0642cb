//! Sums over the rows of an activation tensor.

use candle_core::{D, DType, Device, Result, Storage, Tensor};

use crate::column_squares::column_squares;

/// Adds the sum of squares of every column of `[tokens, features]` to `sums`.
///
/// On the CPU each product is exact and the sums are f64. Elsewhere the tokens of one call are
/// summed on the device in f32, by a kernel of this crate on CUDA, and only the sums come back.
pub(crate) fn add_column_squares(input: &Tensor, sums: &mut [f64]) -> Result<()> {
    if !matches!(input.device(), Device::Cpu) {
        return add_column_squares_on_device(input, sums);
    }
    with_rows(input, sums.len(), |rows| {
        for row in rows {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
    })
}

/// What is kept of an expert's outputs.
pub(crate) struct OutputSums<'a> {
    /// Sum of each feature over the tokens.
    pub(crate) sums: &'a mut [f64],
    /// Largest magnitude of any feature of any token.
    pub(crate) peak: &'a mut f64,
}

/// Adds the rows of `[tokens, features]`, and returns the L2 norm of each.
///
/// On the CPU sums are f64, token after token. Elsewhere the tokens of one call are summed on the
/// device in f32.
pub(crate) fn add_outputs(output: &Tensor, into: OutputSums<'_>) -> Result<Vec<f64>> {
    if !matches!(output.device(), Device::Cpu) {
        return add_outputs_on_device(output, into);
    }
    let mut norms = Vec::with_capacity(output.dim(0)?);
    let OutputSums { sums, peak } = into;
    with_rows(output, output.dim(1)?, |rows| {
        for row in rows {
            norms.push(norm(row));
            let mut largest = 0.0_f32;
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x);
                largest = largest.max(x.abs());
            }
            *peak = peak.max(f64::from(largest));
        }
    })?;
    Ok(norms)
}

fn add_column_squares_on_device(input: &Tensor, sums: &mut [f64]) -> Result<()> {
    let columns = column_squares(input)?.to_vec1::<f32>()?;
    for (sum, column) in sums.iter_mut().zip(columns) {
        *sum += f64::from(column);
    }
    Ok(())
}

fn add_outputs_on_device(output: &Tensor, into: OutputSums<'_>) -> Result<Vec<f64>> {
    let OutputSums { sums, peak } = into;
    let output = output.to_dtype(DType::F32)?;
    let squares = output.sqr()?.sum(D::Minus1)?.to_vec1::<f32>()?;
    for (sum, column) in sums.iter_mut().zip(output.sum(0)?.to_vec1::<f32>()?) {
        *sum += f64::from(column);
    }
    if output.elem_count() > 0 {
        *peak = peak.max(f64::from(output.abs()?.max_all()?.to_scalar::<f32>()?));
    }
    Ok(squares.into_iter().map(|square| f64::from(square).sqrt()).collect())
}

/// Eight sums side by side, which a vector register holds; one after the other would wait for
/// each addition.
fn norm(row: &[f32]) -> f64 {
    let mut lanes = [0.0; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    let rest: f64 = rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (lanes.iter().sum::<f64>() + rest).sqrt()
}

/// Shows the rows of a CPU tensor; without a copy if it is contiguous f32.
fn with_rows(
    tensor: &Tensor,
    features: usize,
    look: impl FnOnce(std::slice::ChunksExact<'_, f32>),
) -> Result<()> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(values), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
        look(values.as_slice::<f32>()?[start..end].chunks_exact(features.max(1)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tensor: &Tensor, squares: &[f64], norms: &[f64]) {
        let close = |a: &[f64], b: &[f64]| {
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{a} for {b}");
            }
        };
        let mut sums = vec![0.0; squares.len()];
        add_column_squares(tensor, &mut sums).unwrap();
        close(&sums, squares);
        let mut sums = vec![0.0; squares.len()];
        add_column_squares_on_device(tensor, &mut sums).unwrap();
        close(&sums, squares);
        type Add = fn(&Tensor, OutputSums<'_>) -> Result<Vec<f64>>;
        for add in [add_outputs as Add, add_outputs_on_device] {
            let (mut sums, mut peak) = (vec![0.0; squares.len()], 0.0);
            let into = OutputSums { sums: &mut sums, peak: &mut peak };
            close(&add(tensor, into).unwrap(), norms);
            let rows = tensor.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
            let of = |column: usize| rows.iter().map(|row| f64::from(row[column])).sum();
            close(&sums, &(0..squares.len()).map(of).collect::<Vec<f64>>());
            let largest = rows.iter().flatten().fold(0.0_f32, |most, x| most.max(x.abs()));
            assert_eq!(peak, f64::from(largest));
        }
    }

    #[test]
    fn any_layout_and_type_gives_the_same_sums() {
        let plain = Tensor::new(&[[1.0_f32, -2.0, 2.0], [4.0, 0.0, 3.0]], &Device::Cpu).unwrap();
        check(&plain, &[17.0, 4.0, 13.0], &[3.0, 5.0]);
        check(&plain.to_dtype(DType::BF16).unwrap(), &[17.0, 4.0, 13.0], &[3.0, 5.0]);
        check(&plain.narrow(0, 1, 1).unwrap(), &[16.0, 0.0, 9.0], &[5.0]);
        check(&plain.t().unwrap(), &[9.0, 25.0], &[17.0_f64.sqrt(), 2.0, 13.0_f64.sqrt()]);
        let wide: Vec<f32> = (0..19).map(|i| i as f32).collect();
        let squares: Vec<f64> = (0..19).map(|i| f64::from(i * i)).collect();
        check(&Tensor::new(vec![wide], &Device::Cpu).unwrap(), &squares, &[2109.0_f64.sqrt()]);
    }
}
