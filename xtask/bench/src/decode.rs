//! `cargo xtask bench-decode`: what decoding quantised weights costs, beside copying the same values.

use std::{fs, hint::black_box, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use moeprune_cli::positive;
use moeprune_core::{
    Dtype, GgmlType, StoredWeight, TensorBytes,
    encoding::{
        GptqLabel, NewRows, Rows, SharedEncoding, awq,
        fp8::{Fp8, Sharing},
        gptq::Gptq,
        int4, mxfp4, nvfp4,
    },
};

use crate::arctic_layer::{has_torch, processor};

/// Time decoding of each encoding into a tile of rows that stays in a cache
///
/// One thread decodes a matrix of random codes, a tile at a time, into f32. Nanoseconds per weight, the best and
/// the median of several passes; beside them copies of the same f32 into the same tile. Where Python has torch, its
/// own operations on the same bytes follow, on one thread.
#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// Outputs of the matrix, a multiple of 128
    #[arg(long, value_name = "ROWS", default_value_t = 2048, value_parser = positive)]
    rows: usize,
    /// Inputs of the matrix, a multiple of 128
    #[arg(long, value_name = "COLUMNS", default_value_t = 7168, value_parser = positive)]
    cols: usize,
    /// Rows of a tile
    #[arg(long, value_name = "ROWS", default_value_t = 16, value_parser = positive)]
    tile: usize,
    /// Passes over the matrix
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = positive)]
    passes: usize,
    /// Python to run
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    python: PathBuf,
}

const PEER: &str = include_str!("decode_peer.py");

pub(crate) fn run(arguments: &DecodeArgs) -> Result<()> {
    let DecodeArgs { rows, cols, tile, passes, .. } = *arguments;
    ensure!(rows.is_multiple_of(128) && cols.is_multiple_of(128), "rows and columns of 128");
    ensure!(tile <= rows, "a tile has at most {rows} rows");
    line!("{}", processor())?;
    line!("{rows}x{cols}, tiles of {tile} rows, one thread; ns per weight: best, median")?;
    let matrix = Matrix { rows, cols };
    let values = vec![0.5_f32; rows * cols];
    let mut out = vec![0.0; tile * cols];
    let copies = measure(arguments, |row, count| {
        out[..count * cols].copy_from_slice(&values[row * cols..][..count * cols]);
        black_box(&mut out);
        Ok(())
    })?;
    line!("{:34}{copies}", "copy of f32")?;
    drop(values);
    for (name, weight) in matrix.weights()? {
        let times = measure(arguments, |row, count| {
            weight.decode(row * cols, &mut out[..count * cols])?;
            black_box(&mut out);
            Ok(())
        })?;
        line!("{name:34}{times}")?;
    }
    new_values(arguments)?;
    if !has_torch(&arguments.python, "cpu") {
        line!("torch: {} does not have it", arguments.python.display())?;
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("decode_peer.py");
    fs::write(&script, PEER)?;
    let sizes = [rows, cols, tile, passes].map(|size| size.to_string());
    let run = std::process::Command::new(&arguments.python).arg(&script).args(sizes).output()?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    for printed in String::from_utf8(run.stdout)?.lines() {
        line!("{printed}")?;
    }
    Ok(())
}

/// Rows that receive new values at a time: whole bands of every encoding.
const NEW_ROWS: usize = 128;

/// Times rounding of new values to codes and scales, without carrying errors.
fn new_values(arguments: &DecodeArgs) -> Result<()> {
    let DecodeArgs { cols, passes, .. } = *arguments;
    line!("new values for {NEW_ROWS} rows, with the scale of some that loses least")?;
    let mut state = 1_u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..NEW_ROWS * cols).map(|_| value()).collect();
    for (name, weight) in (Matrix { rows: NEW_ROWS, cols }).row_by_row()? {
        if weight.encoding().requantising(weight.shape()).is_none() {
            continue;
        }
        let companions = weight.encoding().companions_for(1.0, weight.companions())?;
        let mut times = Vec::new();
        for _ in 0..passes {
            let mut values = values.clone();
            let new = NewRows { values: &mut values, stride: cols, carry: None };
            let rows = Rows { companions: &companions, ..weight.all() };
            let start = Instant::now();
            black_box(weight.encoding().requantise(rows, new)?);
            times.push(start.elapsed().as_secs_f64() * 1e9 / values.len() as f64);
        }
        line!("{name:34}{}", best_and_median(times)?)?;
    }
    Ok(())
}

/// The best and the median of all passes, as text.
fn measure(
    arguments: &DecodeArgs,
    mut each: impl FnMut(usize, usize) -> Result<()>,
) -> Result<String> {
    let DecodeArgs { rows, cols, tile, passes, .. } = *arguments;
    let mut times = Vec::new();
    for _ in 0..passes {
        let start = Instant::now();
        for row in (0..rows).step_by(tile) {
            each(row, tile.min(rows - row))?;
        }
        times.push(start.elapsed().as_secs_f64() * 1e9 / (rows * cols) as f64);
    }
    best_and_median(times)
}

fn best_and_median(mut times: Vec<f64>) -> Result<String> {
    times.sort_by(f64::total_cmp);
    let best = times.first().context("at least one pass")?;
    Ok(format!("{best:8.3}{:8.3}", times[times.len() / 2]))
}

/// The shape of what is decoded.
struct Matrix {
    rows: usize,
    cols: usize,
}

impl Matrix {
    fn weights(&self) -> Result<Vec<(&'static str, StoredWeight<'static>)>> {
        let mut weights = self.plain()?;
        weights.extend(self.row_by_row()?);
        weights.extend(self.transposed()?);
        weights.extend(self.blocks()?);
        Ok(weights)
    }

    fn blocks(&self) -> Result<Vec<(&'static str, StoredWeight<'static>)>> {
        let Self { rows, cols } = *self;
        let kinds = ["Q4_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4"];
        let named = kinds.into_iter().map(|name| {
            let kind = GgmlType::all().find(|kind| kind.name() == Some(name));
            let kind = kind.with_context(|| format!("{name} is no type of ggml"))?;
            Ok((name, StoredWeight::alone(codes(Dtype::Ggml(kind), &[rows, cols])?)?))
        });
        named.filter(|_| cols.is_multiple_of(256)).collect()
    }

    fn plain(&self) -> Result<Vec<(&'static str, StoredWeight<'static>)>> {
        let Self { rows, cols } = *self;
        let bf16 = codes(Dtype::BF16, &[rows, cols])?;
        Ok(vec![("bf16", StoredWeight::alone(bf16)?)])
    }

    fn row_by_row(&self) -> Result<Vec<(&'static str, StoredWeight<'static>)>> {
        let Self { rows, cols } = *self;
        let fp8 = |sharing, scale| -> Result<StoredWeight<'static>> {
            let encoding = SharedEncoding::new(Fp8::new(sharing, ".weight_scale_inv")?);
            Ok(StoredWeight::new(encoding, codes(Dtype::F8_E4M3, &[rows, cols])?, vec![scale])?)
        };
        let block = Sharing::Block([128, 128]);
        let blocks = [rows / 128, cols / 128];
        let packed = || codes(Dtype::I32, &[rows, cols / 8]);
        let shape = || integers([rows, cols].into_iter());
        let scale = || scales(Dtype::BF16, &[rows, cols / 32]);
        let zeros = codes(Dtype::I32, &[rows / 8, cols / 32])?;
        let bytes = || codes(Dtype::U8, &[rows, cols / 2]);
        let exponents = scales(Dtype::U8, &[rows, cols / 32])?;
        let groups = scales(Dtype::F8_E4M3, &[rows, cols / 16])?;
        let of_all = scales(Dtype::F32, &[1])?;
        let (symmetric, asymmetric) = (&int4::SYMMETRIC, &int4::ASYMMETRIC);
        Ok(vec![
            ("fp8, blocks of 128x128, f32", fp8(block, scales(Dtype::F32, &blocks)?)?),
            ("fp8, blocks of 128x128, e8m0", fp8(block, scales(Dtype::F8_E8M0, &blocks)?)?),
            ("fp8 per channel, bf16", fp8(Sharing::Channel, scales(Dtype::BF16, &[rows, 1])?)?),
            ("int4 per 32", StoredWeight::new(symmetric, packed()?, vec![scale()?, shape()?])?),
            (
                "int4 per 32, asymmetric",
                StoredWeight::new(asymmetric, packed()?, vec![scale()?, shape()?, zeros])?,
            ),
            ("mxfp4", StoredWeight::new(&mxfp4::COMPRESSED_TENSORS, bytes()?, vec![exponents])?),
            ("nvfp4", StoredWeight::new(&nvfp4::MODEL_OPTIMIZER, bytes()?, vec![groups, of_all])?),
        ])
    }

    fn transposed(&self) -> Result<Vec<(&'static str, StoredWeight<'static>)>> {
        let Self { rows, cols } = *self;
        let groups = cols / 128;
        let companions = |order: fn(usize) -> usize| -> Result<Vec<TensorBytes<'static>>> {
            Ok(vec![
                codes(Dtype::I32, &[groups, rows / 8])?,
                scales(Dtype::F16, &[groups, rows])?,
                integers((0..cols).map(|col| order(col) % groups))?,
            ])
        };
        let gptq = |order| -> Result<StoredWeight<'static>> {
            let encoding = SharedEncoding::new(Gptq::new(GptqLabel::V1, true));
            let main = codes(Dtype::I32, &[cols / 8, rows])?;
            Ok(StoredWeight::new(encoding, main, companions(order)?)?)
        };
        let mut awq = companions(|col| col)?;
        awq.truncate(2);
        let main = codes(Dtype::I32, &[cols, rows / 8])?;
        Ok(vec![
            ("gptq per 128", gptq(|col| col / 128)?),
            ("gptq per 128, act-order", gptq(|col| col * 7919)?),
            ("awq per 128", StoredWeight::new(&awq::GEMM, main, awq)?),
        ])
    }
}

/// Random codes that are numbers in every encoding.
fn codes(dtype: Dtype, shape: &[usize]) -> Result<TensorBytes<'static>> {
    let bytes = dtype.bytes_of_shape(shape).context("codes of whole bytes")?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let byte = (state >> 40) as u8;
        if byte & 0x7f == 0x7f && dtype == Dtype::F8_E4M3 { 0x30 } else { byte }
    };
    Ok(TensorBytes::new(dtype, shape, (0..bytes).map(byte).collect::<Vec<_>>())?)
}

/// Scales of the same value: it does not matter which.
fn scales(dtype: Dtype, shape: &[usize]) -> Result<TensorBytes<'static>> {
    let count = shape.iter().product();
    match dtype {
        Dtype::U8 | Dtype::F8_E8M0 => Ok(TensorBytes::new(dtype, shape, vec![120; count])?),
        Dtype::F8_E4M3 => Ok(TensorBytes::new(dtype, shape, vec![0x31; count])?),
        _ => Ok(TensorBytes::encode(dtype, shape, &vec![0.013; count])?),
    }
}

fn integers(values: impl Iterator<Item = usize>) -> Result<TensorBytes<'static>> {
    let bytes: Vec<u8> = values.flat_map(|value| (value as u32).to_le_bytes()).collect();
    Ok(TensorBytes::new(Dtype::I32, [bytes.len() / 4], bytes)?)
}
