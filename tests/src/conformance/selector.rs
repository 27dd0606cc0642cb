//! What [`ExpertSelector`] promises.

use moeprune_core::{
    ClusteredLayer, ExpertSelector, ExpertWeights, MatrixView, Partition, StageError, Survivor,
    SurvivorReason,
};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds a selector to its contract:
///
/// * there is one survivor a cluster, each from its cluster, ascending by source;
/// * an average is of members of its cluster, ascending, and its source is the first of them;
/// * if members of an average are weighed, each is, and not all by zero;
/// * reasons are true: only an expert alone in its cluster survives for being alone, and averages
///   are called so;
/// * it gives the same survivors each time, from any thread, with token counts and, unless it says
///   that it needs them, without;
/// * it asks for no expert or parameter the layer does not have, and an expert that cannot be read is no
///   reason to panic;
/// * where it says that it reads no expert, it chooses the same when none can be read.
///
/// # Panics
/// If one of these is broken.
pub fn check(selector: &dyn ExpertSelector) {
    for_all(&layers(), |layer| {
        for counted in [true, false] {
            if !counted && selector.needs_observation() {
                let refused = layer.select(selector, counted, &Readable(&layer)).is_err();
                prop_assert!(refused, "it needs token counts and does without them");
                continue;
            }
            let survivors = pure(|| layer.select(selector, counted, &Readable(&layer)))?
                .map_err(TestCaseError::fail)?;
            check_survivors(&layer.partition, &survivors)?;
            let unread = layer.select(selector, counted, &Unreadable);
            if !selector.reads_experts(&layer.partition) {
                prop_assert_eq!(&unread, &Ok(survivors), "it says that it reads no expert");
            } else if let Ok(survivors) = unread {
                check_survivors(&layer.partition, &survivors)?;
            }
        }
        Ok(())
    });
}

fn check_survivors(partition: &Partition, survivors: &[Survivor]) -> Result<(), TestCaseError> {
    let clusters = partition.clusters();
    prop_assert_eq!(survivors.len(), clusters.len(), "one survivor a cluster");
    let ascending = survivors.is_sorted_by(|a, b| a.source < b.source);
    prop_assert!(ascending, "ascending by source: {:?}", survivors);
    for survivor in survivors {
        let Survivor { source, reason, average_of, average_weights } = survivor;
        // Sources are distinct and as many as clusters, so no two may share one.
        let Some(cluster) = clusters.iter().find(|cluster| cluster.contains(source)) else {
            return Err(TestCaseError::fail(format!("expert {source} does not exist")));
        };
        let others = survivors.iter().filter(|other| cluster.contains(&other.source)).count();
        prop_assert_eq!(others, 1, "survivors of cluster {:?}", cluster);
        if *reason == SurvivorReason::Alone {
            prop_assert_eq!(cluster.len(), 1, "alone in {:?}", cluster);
        }
        let averaged = *reason == SurvivorReason::Averaged;
        prop_assert_eq!(averaged, !average_of.is_empty(), "{:?}", survivor);
        if averaged {
            let inside = average_of.iter().all(|expert| cluster.contains(expert));
            prop_assert!(inside, "{:?} averages beyond its cluster {:?}", survivor, cluster);
            prop_assert!(average_of.is_sorted_by(|a, b| a < b), "{:?}", survivor);
            prop_assert_eq!(*source, average_of[0], "source of an average");
            let weighed = average_weights.is_empty()
                || (average_weights.len() == average_of.len()
                    && average_weights.iter().any(|&weight| weight > 0));
            prop_assert!(weighed, "{:?} counts for nothing", survivor);
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Layer {
    partition: Partition,
    /// One row per expert: its parameters, and its router row too.
    rows: Vec<f32>,
    tokens: Vec<u64>,
}

const WIDTH: usize = 6;

impl Layer {
    fn select(
        &self,
        selector: &dyn ExpertSelector,
        counted: bool,
        experts: &dyn ExpertWeights,
    ) -> Result<Vec<Survivor>, String> {
        let router = MatrixView::new(self.partition.experts(), WIDTH, &self.rows)
            .map_err(|error| error.to_string())?;
        let tokens = counted.then_some(&self.tokens[..]);
        let layer = ClusteredLayer { layer: 3, partition: &self.partition, router, tokens };
        selector.select(&layer, experts).map_err(|error| error.to_string())
    }
}

struct Readable<'a>(&'a Layer);

impl ExpertWeights for Readable<'_> {
    fn parameters(&self) -> usize {
        WIDTH
    }

    fn read(&self, expert: usize, start: usize, out: &mut [f32]) -> Result<(), StageError> {
        let row = self.0.rows.chunks(WIDTH).nth(expert);
        let row = row.ok_or_else(|| format!("expert {expert} was asked for and is not there"))?;
        let range = row.get(start..start + out.len());
        out.copy_from_slice(range.ok_or("parameters were asked for that are not there")?);
        Ok(())
    }
}

struct Unreadable;

impl ExpertWeights for Unreadable {
    fn parameters(&self) -> usize {
        WIDTH
    }

    fn read(&self, _: usize, _: usize, _: &mut [f32]) -> Result<(), StageError> {
        Err("the disk is gone".into())
    }
}

/// 1 to 9 experts in any partition, with parameters from few values, for ties, or from many.
fn layers() -> impl Strategy<Value = Layer> {
    let values = prop_oneof![Just(2i32), Just(1_000_000)];
    (1usize..10, values).prop_flat_map(|(n, values)| {
        let labels = prop::collection::vec(0..n, n);
        let rows = prop::collection::vec(-values..values, n * WIDTH);
        let tokens = prop::collection::vec(0u64..4, n);
        (labels, rows, tokens).prop_map(|(labels, rows, tokens)| Layer {
            partition: Partition::from_labels(&labels),
            rows: rows.into_iter().map(|value| value as f32 / 7.0).collect(),
            tokens,
        })
    })
}
