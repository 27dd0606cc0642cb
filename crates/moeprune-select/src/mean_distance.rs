//! How far each member of a cluster is from the cluster's mean.

use half::bf16;
use moeprune_core::{ExpertWeights, StageError};
use rayon::prelude::*;

use crate::Error;

/// Parameters in a piece that one thread works on. Fixed, so that sums do not depend on how many
/// threads there are.
const PIECE: usize = 1 << 16;

/// Parameters summed plainly before a compensated addition.
const RUN: usize = 256;

/// `m² ‖θ_i − mean‖²` of each of `m` members, which orders them as their distances do.
///
/// Computed as `Σ (m θ_i − Σ_j θ_j)²`. Both terms are exact in f64 for f32 weights of like
/// magnitude, where a rounded mean would swamp the small differences of near-identical experts.
/// The squares are summed in runs of 256, the runs with compensation: relative error below
/// 256 · 2⁻⁵³ ≈ 3e-14, whatever the size.
pub(crate) fn squared_distances(
    cluster: &[usize],
    experts: &dyn ExpertWeights,
) -> Result<Vec<f64>, StageError> {
    let mut sum: Vec<f64> = Vec::new();
    for &expert in cluster {
        let parameters = read(experts, expert, &mut sum)?;
        sum.par_chunks_mut(PIECE).zip(parameters.par_chunks(PIECE)).for_each(|(sum, piece)| {
            for (sum, &p) in sum.iter_mut().zip(piece) {
                *sum += f64::from(p);
            }
        });
    }
    let members = cluster.len() as f64;
    distances(cluster, experts, &mut sum, |p, sum| f64::from(p) * members - sum)
}

/// `‖θ_i − mean‖` of each member with every step rounded to bf16, as the released STUN code does
/// on its bf16 tensors: the running sum, the mean, the differences and the norm.
pub(crate) fn bf16_distances(
    cluster: &[usize],
    experts: &dyn ExpertWeights,
) -> Result<Vec<f64>, StageError> {
    let round = |x: f64| bf16::from_f64(x).to_f64();
    let mut mean: Vec<f64> = Vec::new();
    for &expert in cluster {
        let parameters = read(experts, expert, &mut mean)?;
        mean.par_chunks_mut(PIECE).zip(parameters.par_chunks(PIECE)).for_each(|(mean, piece)| {
            for (mean, &p) in mean.iter_mut().zip(piece) {
                *mean = round(*mean + round(f64::from(p)));
            }
        });
    }
    let members = cluster.len() as f64;
    mean.par_iter_mut().for_each(|mean| *mean = round(*mean / members));
    let squares =
        distances(cluster, experts, &mut mean, |p, mean| round(round(f64::from(p)) - mean))?;
    Ok(squares.into_iter().map(|square| round(square.sqrt())).collect())
}

/// Sum of squared differences of each member to `centre`.
fn distances(
    cluster: &[usize],
    experts: &dyn ExpertWeights,
    centre: &mut Vec<f64>,
    difference: impl Fn(f32, f64) -> f64 + Sync,
) -> Result<Vec<f64>, StageError> {
    let mut squares = Vec::with_capacity(cluster.len());
    for &expert in cluster {
        let parameters = read(experts, expert, centre)?;
        let pieces: Vec<f64> = parameters
            .par_chunks(PIECE)
            .zip(centre.par_chunks(PIECE))
            .map(|(piece, centre)| {
                let runs = piece.chunks(RUN).zip(centre.chunks(RUN));
                compensated(runs.map(|(run, centre)| {
                    run.iter().zip(centre).map(|(&p, &c)| difference(p, c).powi(2)).sum()
                }))
            })
            .collect();
        let square = compensated(pieces.into_iter());
        if !square.is_finite() {
            return Err(Error::NotFinite { expert }.into());
        }
        squares.push(square);
    }
    Ok(squares)
}

/// Reads an expert, which must have as many parameters as `centre`; sizes `centre` the first time.
fn read(
    experts: &dyn ExpertWeights,
    expert: usize,
    centre: &mut Vec<f64>,
) -> Result<Vec<f32>, StageError> {
    let parameters = experts.parameters(expert)?;
    let (expected, got) = (centre.len(), parameters.len());
    if expected == 0 {
        centre.resize(got, 0.0);
    } else if expected != got {
        return Err(Error::Parameters { expert, expected, got }.into());
    }
    if !parameters.par_chunks(PIECE).all(|piece| piece.iter().all(|p| p.is_finite())) {
        return Err(Error::NotFinite { expert }.into());
    }
    Ok(parameters)
}

/// Kahan's sum.
fn compensated(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    for value in values {
        let value = value - lost;
        let next = sum + value;
        lost = (next - sum) - value;
        sum = next;
    }
    sum
}
