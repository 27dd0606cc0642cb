//! The activations and weights of the surviving experts of a layer while it is repaired.

use std::{
    ops::Range,
    path::Path,
    sync::{Mutex, PoisonError},
};

use moeprune_capture::StoredLayer;
use moeprune_core::{
    RepairStore, StageError, StoredWeight, SurvivingExpert, TensorBytes, TensorId, TensorSource,
    repair::{RepairablePart, RepairedPart},
};
use moeprune_model::Expert;
use sha2::{Digest as _, Sha256};

use super::{
    cost::Holding,
    streams::{Both, Entry, Streams, slice},
    supervised::Shared,
};
use crate::{
    Error, KeptExperts,
    kept_experts::{
        Scratch,
        repaired_parts::{self as parts, After, Place},
        requantise::NewWeights,
    },
};

/// What is kept of a layer's surviving experts in files: their activations, what takes long to compute,
/// and their new weights.
pub(super) struct LayerStore<'a> {
    pub(super) kept: &'a KeptExperts<'a>,
    pub(super) stored: StoredLayer<'a>,
    pub(super) experts: Vec<SurvivingExpert>,
    places: Vec<Vec<Place>>,
    /// The first number of each expert's activations.
    starts: Vec<u64>,
    activations: Option<Scratch>,
    numbers: Option<Mutex<Numbers>>,
    weights: Scratch,
    after: After,
    replaced: Mutex<Vec<bool>>,
    /// The last expert that was loaded to compute activations again.
    loaded: Mutex<Option<(usize, Expert, Vec<Entry>)>>,
}

/// Where a layer's files are, and which.
#[derive(Clone, Copy)]
pub(super) struct RepairFiles<'f> {
    pub(super) folder: &'f Path,
    pub(super) after: After,
    pub(super) holding: Holding,
}

/// What experts have had kept, one after the other in a file.
struct Numbers {
    file: Scratch,
    end: u64,
    places: Vec<Option<(u64, usize)>>,
}

impl<'a> LayerStore<'a> {
    /// A store for experts that receive so many tokens.
    pub(super) fn new(
        kept: &'a KeptExperts<'a>,
        stored: StoredLayer<'a>,
        tokens: &[usize],
        RepairFiles { folder, after, holding }: RepairFiles<'_>,
    ) -> Result<Self, Error> {
        let layer = stored.layer;
        let places = parts::places(kept, layer)?;
        let experts: Vec<SurvivingExpert> =
            places.iter().map(|place| parts::columns(place)).collect();
        let mut starts = Vec::with_capacity(experts.len());
        let mut end = 0;
        for (expert, &tokens) in experts.iter().zip(tokens) {
            starts.push(end);
            end += (tokens * expert.features) as u64;
        }
        let scratch = |name: &str| Scratch::create(&folder.join(format!("{name}-{layer:04}")));
        let activations = holding.activations.then(|| scratch("activations")).transpose()?;
        let numbers = match holding.factors {
            false => None,
            true => {
                let (file, places) = (scratch("factors")?, vec![None; experts.len()]);
                Some(Mutex::new(Numbers { file, end: 0, places }))
            }
        };
        Ok(Self {
            kept,
            stored,
            replaced: Mutex::new(vec![false; experts.len()]),
            experts,
            places,
            starts,
            activations,
            numbers,
            weights: Scratch::create(&parts::file(folder, after, layer))?,
            after,
            loaded: Mutex::new(None),
        })
    }

    /// Takes the next tokens of an expert and their activations.
    pub(super) fn add(
        &mut self,
        expert: usize,
        tokens: &[u32],
        activations: &[f32],
    ) -> Result<(), Error> {
        let SurvivingExpert { tokens: own, features, .. } = &mut self.experts[expert];
        let at = self.starts[expert] + (own.len() * *features) as u64;
        own.extend_from_slice(tokens);
        match &self.activations {
            Some(file) => file.write(4 * at, bytemuck::cast_slice(activations)),
            None => Ok(()),
        }
    }

    /// What can compute activations again from the layer's streams.
    pub(super) fn with<'s>(&'s self, streams: &'s Streams, shared: &'s Shared) -> StoreOn<'s> {
        StoreOn { store: self, streams, shared }
    }

    /// The experts whose weights are no longer those that they had, and their parts, with what they have
    /// now made durable and the rest removed.
    pub(super) fn finish(self) -> Result<(Vec<usize>, Vec<RepairedPart>), Error> {
        let Self { activations, numbers, weights, replaced, places, .. } = self;
        weights.sync()?;
        activations.map_or(Ok(()), Scratch::remove)?;
        if let Some(numbers) = numbers {
            numbers.into_inner().unwrap_or_else(PoisonError::into_inner).file.remove()?;
        }
        let replaced = replaced.into_inner().unwrap_or_else(PoisonError::into_inner);
        let replaced: Vec<usize> = (0..replaced.len()).filter(|&e| replaced[e]).collect();
        let mut parts = Vec::new();
        for place in replaced.iter().flat_map(|&expert| &places[expert]) {
            let Some(RepairablePart { expert, bias }) = RepairablePart::of(place.part) else {
                continue;
            };
            let stored = Error::stage("reading new weights", self.stored.layer);
            let (main, companions) = place.read(&weights).map_err(stored)?.into_parts();
            let hash = |tensor: &TensorBytes<'_>| format!("{:x}", Sha256::digest(tensor.bytes()));
            let (sha256, companions) = (hash(&main), companions.iter().map(hash).collect());
            parts.push(RepairedPart { expert, bias, sha256, companions });
        }
        Ok((replaced, parts))
    }

    fn part_of<'k>(
        &self,
        kept: &'k KeptExperts<'_>,
        place: &Place,
    ) -> Result<StoredWeight<'k>, StageError> {
        kept.weight(TensorId::Layer(self.stored.layer, place.part))
    }

    fn is_replaced(&self, expert: usize) -> bool {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)[expert]
    }
}

/// A store with the streams that activations can be computed from again.
pub(super) struct StoreOn<'s> {
    store: &'s LayerStore<'s>,
    streams: &'s Streams,
    shared: &'s Shared,
}

impl StoreOn<'_> {
    /// Activations from the layer's inputs.
    fn computed(&self, expert: usize, rows: Range<usize>) -> Result<Vec<f32>, StageError> {
        let mut loaded = self.store.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.as_ref().is_none_or(|(index, ..)| *index != expert) {
            let StoredLayer { source, spec, layer, compute } = self.store.stored;
            let entries = self.streams.entries(Both { dense: None, kept: Some(expert) });
            *loaded = Some((expert, Expert::load(source, spec, layer, expert, compute)?, entries));
        }
        let Some((_, ready, entries)) = &*loaded else { return Ok(Vec::new()) };
        let entries = slice(entries, rows)?;
        let hidden = self.streams.hidden(ready, entries)?;
        Ok(gated(entries, &hidden, self.store.experts[expert].features))
    }
}

impl StoreOn<'_> {
    fn store_new(
        &self,
        expert: usize,
        weights: Vec<f32>,
        carry: Option<&[f32]>,
    ) -> Result<Vec<f32>, StageError> {
        let store = self.store;
        let SurvivingExpert { features, parts: columns, .. } = &store.experts[expert];
        let mut new = NewWeights { weights, features: *features, carry };
        let mut changed = false;
        let mut stored = Vec::new();
        for (place, (_, columns)) in store.places[expert].iter().zip(columns) {
            let old = store.part_of(store.kept, place)?;
            let (part, values) = parts::encode(place, columns.clone(), &mut new, &old)?;
            if store.after == After::Masks {
                parts::check_zeros(place, &old, &values)?;
            }
            changed |= part.main().bytes() != old.main().bytes()
                || part
                    .companions()
                    .iter()
                    .zip(old.companions())
                    .any(|(a, b)| a.bytes() != b.bytes());
            place.write(&store.weights, &part)?;
            stored.push(values);
        }
        store.replaced.lock().unwrap_or_else(PoisonError::into_inner)[expert] = changed;
        Ok(parts::side_by_side(&store.places[expert], stored))
    }
}

/// What a down projection reads times the gate weight, and where it has a bias that weight; of the
/// entries of tokens that the expert receives without the dropped ones.
pub(super) fn gated(entries: &[Entry], hidden: &[f32], features: usize) -> Vec<f32> {
    let inner = hidden.len() / entries.len().max(1);
    let mut rows = Vec::with_capacity(entries.len() * features);
    for (entry, hidden) in entries.iter().zip(hidden.chunks_exact(inner.max(1))) {
        let Some(gate) = entry.kept() else { continue };
        rows.extend(hidden.iter().map(|a| a * gate));
        rows.resize(rows.len() + (features - inner), gate);
    }
    rows
}

impl RepairStore for StoreOn<'_> {
    fn activations(&self, expert: usize, rows: Range<usize>) -> Result<Vec<f32>, StageError> {
        if self.shared.stops() {
            return Err("the run was asked to stop".into());
        }
        self.shared.read(rows.len());
        let Some(file) = &self.store.activations else { return self.computed(expert, rows) };
        let SurvivingExpert { tokens, features, .. } = &self.store.experts[expert];
        if rows.start > rows.end || rows.end > tokens.len() {
            return Err(format!("expert {expert} has {} tokens, not {rows:?}", tokens.len()).into());
        }
        let mut numbers = vec![0.0_f32; rows.len() * features];
        let at = self.store.starts[expert] + (rows.start * features) as u64;
        file.read(4 * at, bytemuck::cast_slice_mut(&mut numbers))?;
        Ok(numbers)
    }

    fn weights(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        if !self.store.is_replaced(expert) {
            return self.original_weights(expert);
        }
        parts::join(&self.store.places[expert], |place| place.read(&self.store.weights))
    }

    fn original_weights(&self, expert: usize) -> Result<Vec<f32>, StageError> {
        parts::join(&self.store.places[expert], |place| self.store.part_of(self.store.kept, place))
    }

    fn replace(&self, expert: usize, weights: Vec<f32>) -> Result<Vec<f32>, StageError> {
        self.store_new(expert, weights, None)
    }

    fn code_bits(&self, expert: usize) -> Option<u32> {
        let places = self.store.places[expert].iter();
        let bits = places.filter_map(|place| Some(place.encoding.requantising(&place.shape)?.bits));
        bits.min()
    }

    fn replace_carrying(
        &self,
        expert: usize,
        weights: Vec<f32>,
        carry: &[f32],
    ) -> Result<Vec<f32>, StageError> {
        // Zeros would not stay.
        let carry = (self.store.after == After::Experts).then_some(carry);
        self.store_new(expert, weights, carry)
    }

    fn keep(&self, expert: usize, numbers: &[f64]) -> Result<(), StageError> {
        let Some(kept) = &self.store.numbers else { return Ok(()) };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        // What has the same length takes the place of what was kept before.
        let at = match kept.places[expert] {
            Some((at, length)) if length == numbers.len() => at,
            _ => {
                let at = kept.end;
                kept.end += numbers.len() as u64;
                at
            }
        };
        kept.file.write(8 * at, bytemuck::cast_slice(numbers))?;
        kept.places[expert] = Some((at, numbers.len()));
        Ok(())
    }

    fn kept(&self, expert: usize) -> Result<Option<Vec<f64>>, StageError> {
        let Some(kept) = &self.store.numbers else { return Ok(None) };
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((at, length)) = kept.places[expert] else { return Ok(None) };
        let mut numbers = vec![0.0_f64; length];
        kept.file.read(8 * at, bytemuck::cast_slice_mut(&mut numbers))?;
        Ok(Some(numbers))
    }
}
