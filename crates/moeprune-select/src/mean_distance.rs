//! How far each member of a cluster is from the cluster's mean, from one read of the members.
//!
//! The members are read side by side, a stripe of parameters at a time. A stripe is worked on while
//! the next is read. Within it, blocks of parameters that fit a core's cache are summed over the
//! members and compared with the sum. Where stripes and blocks end depends on nothing but sizes, so
//! that results do not depend on how many threads there are.

use std::{mem, ops::Range};

use half::bf16;
use moeprune_core::{ExpertWeights, StageError};
use rayon::prelude::*;

use crate::Error;

/// Values of all members, in f32, that are in memory at a time: two stripes.
const HELD: usize = 1 << 24;

/// Parameters of one member in a stripe at most: 2 MB of bf16, enough for a disk to be busy.
const STRIPE: usize = 1 << 20;

/// Parameters of one member in a block, whose sums take 32 KB.
const BLOCK: usize = 4096;

/// How means and differences are rounded.
pub(crate) trait Arithmetic: Sync {
    /// The sum with one more member's parameter.
    fn add(sum: f64, parameter: f32) -> f64;

    /// What parameters are compared with, from the sum over all members.
    fn centre(sum: f64, members: f64) -> f64;

    /// The difference whose square counts.
    fn difference(parameter: f32, centre: f64, members: f64) -> f64;

    /// The distance of a member, from the sum of its squares.
    fn distance(squares: f64) -> f64;
}

/// `m² ‖θ_i − mean‖²` of each of `m` members, which orders them as their distances do.
///
/// Computed as `Σ (m θ_i − Σ_j θ_j)²`. Both terms are exact in f64 for f32 weights of like
/// magnitude, where a rounded mean would swamp the small differences of near-identical experts.
/// Squares are summed in blocks of 4096, eight chains each, and blocks with compensation: relative
/// error below 520 · 2⁻⁵³ ≈ 6e-14, at any size.
pub(crate) struct Exact;

impl Arithmetic for Exact {
    fn add(sum: f64, parameter: f32) -> f64 {
        sum + f64::from(parameter)
    }

    fn centre(sum: f64, _members: f64) -> f64 {
        sum
    }

    fn difference(parameter: f32, centre: f64, members: f64) -> f64 {
        f64::from(parameter) * members - centre
    }

    fn distance(squares: f64) -> f64 {
        squares
    }
}

/// `‖θ_i − mean‖` of each member with every step rounded to bf16, as the released STUN code does
/// on its bf16 tensors: the running sum, the mean, the differences and the norm.
pub(crate) struct Bf16;

fn round(x: f64) -> f64 {
    bf16::from_f64(x).to_f64()
}

impl Arithmetic for Bf16 {
    fn add(sum: f64, parameter: f32) -> f64 {
        round(sum + round(f64::from(parameter)))
    }

    fn centre(sum: f64, members: f64) -> f64 {
        round(sum / members)
    }

    fn difference(parameter: f32, centre: f64, _members: f64) -> f64 {
        round(round(f64::from(parameter)) - centre)
    }

    fn distance(squares: f64) -> f64 {
        round(squares.sqrt())
    }
}

/// The distance of each member of `cluster`, which has some.
pub(crate) fn distances<A: Arithmetic>(
    cluster: &[usize],
    experts: &dyn ExpertWeights,
) -> Result<Vec<f64>, StageError> {
    let parameters = experts.parameters();
    let width = stripe_width(cluster.len());
    let stripe_at = |start: usize| start.min(parameters)..parameters.min(start + width);
    let mut squares = vec![Compensated::default(); cluster.len()];
    let (mut stripe, mut next) = (Vec::new(), Vec::new());
    read(cluster, experts, stripe_at(0), &mut stripe)?;
    for start in (0..parameters).step_by(width) {
        let ((), following) = rayon::join(
            || add_stripe::<A>(&stripe, &mut squares),
            || read(cluster, experts, stripe_at(start + width), &mut next),
        );
        following?;
        mem::swap(&mut stripe, &mut next);
    }
    let finite = |(&expert, squares): (&usize, &Compensated)| {
        let distance = A::distance(squares.sum);
        if distance.is_finite() { Ok(distance) } else { Err(Error::NotFinite { expert }.into()) }
    };
    cluster.iter().zip(&squares).map(finite).collect()
}

/// Parameters of one member that are read at a time: whole blocks.
fn stripe_width(members: usize) -> usize {
    let width = STRIPE.min(HELD / 2 / members);
    (width / BLOCK).max(1) * BLOCK
}

/// Reads a range of the parameters of each member, one member after the other.
fn read(
    cluster: &[usize],
    experts: &dyn ExpertWeights,
    range: Range<usize>,
    stripe: &mut Vec<f32>,
) -> Result<(), StageError> {
    stripe.resize(cluster.len() * range.len(), 0.0);
    if range.is_empty() {
        return Ok(());
    }
    let results: Vec<Result<(), StageError>> = cluster
        .par_iter()
        .zip(stripe.par_chunks_mut(range.len()))
        .map(|(&expert, out)| {
            experts.read(expert, range.start, out)?;
            // All are looked at, which is quicker than to stop at the first.
            let finite = out.iter().fold(true, |all, p| all & p.is_finite());
            if finite { Ok(()) } else { Err(Error::NotFinite { expert }.into()) }
        })
        .collect();
    // The first member's error, not that of the quickest thread.
    results.into_iter().collect()
}

/// Adds the squares of a stripe to those of the members.
fn add_stripe<A: Arithmetic>(stripe: &[f32], squares: &mut [Compensated]) {
    let width = stripe.len() / squares.len();
    let members: Vec<&[f32]> = stripe.chunks(width).collect();
    let blocks: Vec<Vec<f64>> = (0..width)
        .into_par_iter()
        .step_by(BLOCK)
        .map(|start| {
            let block = start..width.min(start + BLOCK);
            block_squares::<A>(members.iter().map(|member| &member[block.clone()]))
        })
        .collect();
    for block in blocks {
        for (squares, block) in squares.iter_mut().zip(block) {
            squares.add(block);
        }
    }
}

/// The sum of squared differences of each member within a block.
fn block_squares<'a, A: Arithmetic>(
    members: impl ExactSizeIterator<Item = &'a [f32]> + Clone,
) -> Vec<f64> {
    let count = members.len() as f64;
    let mut buffer = [0.0; BLOCK];
    let width = members.clone().next().map_or(0, <[f32]>::len);
    let centre = &mut buffer[..width];
    for member in members.clone() {
        for (sum, &parameter) in centre.iter_mut().zip(member) {
            *sum = A::add(*sum, parameter);
        }
    }
    for centre in &mut *centre {
        *centre = A::centre(*centre, count);
    }
    members.map(|member| squares::<A>(member, centre, count)).collect()
}

/// The sum of squared differences, in eight chains of additions: one would wait for each.
fn squares<A: Arithmetic>(member: &[f32], centre: &[f64], members: f64) -> f64 {
    const LANES: usize = 8;
    let square = |parameter: f32, centre: f64| A::difference(parameter, centre, members).powi(2);
    let (member_chunks, member_rest) = member.as_chunks::<LANES>();
    let (centre_chunks, centre_rest) = centre.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (member, centre) in member_chunks.iter().zip(centre_chunks) {
        for ((lane, &parameter), &centre) in lanes.iter_mut().zip(member).zip(centre) {
            *lane += square(parameter, centre);
        }
    }
    let rest: f64 =
        member_rest.iter().zip(centre_rest).map(|(&p, &centre)| square(p, centre)).sum();
    lanes.iter().sum::<f64>() + rest
}

/// Kahan's sum.
#[derive(Debug, Clone, Copy, Default)]
struct Compensated {
    sum: f64,
    lost: f64,
}

impl Compensated {
    fn add(&mut self, value: f64) {
        let value = value - self.lost;
        let next = self.sum + value;
        self.lost = (next - self.sum) - value;
        self.sum = next;
    }
}
