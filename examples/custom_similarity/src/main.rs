//! A similarity of one's own: experts are alike when their router rows point the same way,
//! however long they are.
//!
//! It is used here on one layer made up on the spot; a pipeline takes it wherever it takes a
//! built-in one.
//!
//! ```text
//! cargo run -p example-custom-similarity
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use moeprune_cluster::Agglomerative;
use moeprune_core::{
    DistanceMatrix, ExpertBudget, ExpertClustering, ExpertSimilarity, LayerBehaviour, MatrixView,
    StageError,
};

/// `1 − cos(g_i, g_j)`: 0 for rows of one direction, 2 for opposite ones. A row of zeros has no
/// direction and is at distance 1 from everything.
#[derive(Debug)]
struct Angle;

impl ExpertSimilarity for Angle {
    fn distances(&self, layer: &LayerBehaviour<'_>) -> Result<DistanceMatrix, StageError> {
        let dot = |i: usize, j: usize| -> f64 {
            let (a, b) = (layer.router.row(i), layer.router.row(j));
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        Ok(DistanceMatrix::from_fn(layer.experts(), |i, j| {
            let lengths = (dot(i, i) * dot(j, j)).sqrt();
            if lengths > 0.0 { 1.0 - dot(i, j) / lengths } else { 1.0 }
        })?)
    }
}

/// Eight experts in three directions, no two rows of one length.
const ROUTER: [[f32; 3]; 8] = [
    [1.0, 0.0, 0.1],
    [0.0, 2.0, 0.0],
    [3.0, 0.1, 0.0],
    [0.1, 0.0, 4.0],
    [0.0, 5.0, 0.2],
    [0.0, 0.1, 6.0],
    [7.0, 0.0, 0.0],
    [0.1, 8.0, 0.0],
];

fn main() -> Result<(), StageError> {
    let router = MatrixView::new(8, 3, ROUTER.as_flattened())?;
    let layer = LayerBehaviour { layer: 0, router, routing: None };
    let distances = Angle.distances(&layer)?;

    let budget = ExpertBudget::Uniform { keep: 3 };
    let partitions = Agglomerative::default().cluster(&[distances], &budget)?;
    for (number, experts) in partitions[0].clusters().iter().enumerate() {
        println!("cluster {number}: experts {experts:?}");
    }
    assert_eq!(partitions[0].clusters(), [vec![0, 2, 6], vec![1, 4, 7], vec![3, 5]]);
    Ok(())
}
