//! Experts that are read when they are needed, for models larger than memory.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moeprune_core::{LayerSpec, ModelSpec, TensorSource};

use crate::{
    Compute, Error, Expert, ExpertProvider, expert::for_each_uploaded_expert, experts::no_expert,
};

/// Reads experts each time that they are needed, the next one while one is in use, and keeps those that were
/// needed most in the memory that it may take.
///
/// An expert takes the place of another one only if it was needed more often, so that a model that is run
/// layer after layer does not drive out each layer's experts before they are needed again. What is kept changes
/// no result.
pub struct StreamedExperts<'a> {
    source: &'a dyn TensorSource,
    spec: &'a ModelSpec,
    compute: Compute,
    kept: Mutex<Kept>,
}

/// What was read and what was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamedCounts {
    /// Experts that were read.
    pub read: u64,
    /// Experts that were in memory when they were needed.
    pub reused: u64,
}

/// Experts in memory, and how often each was needed.
#[derive(Debug)]
struct Kept {
    /// Bytes that experts may take.
    room: u64,
    taken: u64,
    experts: BTreeMap<(usize, usize), (Arc<Expert>, u64)>,
    /// By layer and expert.
    needed: Vec<Vec<u64>>,
    counts: StreamedCounts,
}

impl<'a> StreamedExperts<'a> {
    /// Experts of a model, of which as many are kept as `room` bytes hold. Besides, at most three are held as
    /// they are stored and three as they run.
    #[must_use]
    pub fn new(
        source: &'a dyn TensorSource,
        spec: &'a ModelSpec,
        compute: &Compute,
        room: u64,
    ) -> Self {
        let experts = |layer: &LayerSpec| vec![0; layer.moe().map_or(0, |moe| moe.experts)];
        let kept = Kept {
            room,
            taken: 0,
            experts: BTreeMap::new(),
            needed: spec.layers.iter().map(experts).collect(),
            counts: StreamedCounts::default(),
        };
        Self { source, spec, compute: compute.clone(), kept: Mutex::new(kept) }
    }

    /// What was read so far, and what did not have to be.
    #[must_use]
    pub fn counts(&self) -> StreamedCounts {
        self.kept().counts
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExpertProvider for StreamedExperts<'_> {
    fn for_each(
        &self,
        layer: usize,
        experts: &[usize],
        visit: &mut dyn FnMut(&Expert) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let held = self.kept().need(layer, experts)?;
        let is_missing = |expert: &usize| !held.iter().any(|held| held.index() == *expert);
        let missing: Vec<usize> = experts.iter().copied().filter(is_missing).collect();
        let mut held = held.iter().peekable();
        if missing.is_empty() {
            return held.try_for_each(|held| visit(held));
        }
        let (source, spec) = (self.source, self.spec);
        for_each_uploaded_expert::<Error>(
            source,
            spec,
            &self.compute,
            layer,
            &missing,
            |expert| {
                while let Some(before) = held.next_if(|held| held.index() < expert.index()) {
                    visit(before)?;
                }
                visit(&expert)?;
                self.kept().offer(layer, expert);
                Ok(())
            },
        )?;
        held.try_for_each(|held| visit(held))
    }
}

impl Kept {
    /// Counts that experts are needed, and returns those that are here, in their order.
    fn need(&mut self, layer: usize, experts: &[usize]) -> Result<Vec<Arc<Expert>>, Error> {
        let mut held = Vec::new();
        for &expert in experts {
            let needed = self.needed.get_mut(layer).and_then(|layer| layer.get_mut(expert));
            *needed.ok_or_else(|| no_expert(layer, expert))? += 1;
            match self.experts.get(&(layer, expert)) {
                Some((expert, _)) => held.push(Arc::clone(expert)),
                None => self.counts.read += 1,
            }
        }
        self.counts.reused += held.len() as u64;
        Ok(held)
    }

    /// Keeps an expert if there is room, or if it was needed more often than those in whose place it comes.
    fn offer(&mut self, layer: usize, expert: Expert) {
        let bytes = expert.bytes();
        let needed = self.needed[layer][expert.index()];
        if bytes > self.room {
            return;
        }
        while self.taken + bytes > self.room {
            let by_need = |(layer, expert): &(usize, usize)| self.needed[*layer][*expert];
            let Some(least) = self.experts.keys().copied().min_by_key(by_need) else { return };
            if by_need(&least) >= needed {
                return;
            }
            if let Some((_, bytes)) = self.experts.remove(&least) {
                self.taken -= bytes;
            }
        }
        self.taken += bytes;
        self.experts.insert((layer, expert.index()), (Arc::new(expert), bytes));
    }
}

impl fmt::Debug for StreamedExperts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamedExperts")
            .field("room", &self.kept().room)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
