//! Which tensors a pruned model has, and where each of its parts is in them.

use std::collections::BTreeMap;

use moeprune_core::{ModelSpec, TensorId};

use crate::{
    Checkpoint, Error, PlannedTensor, StoredTensor,
    place::{Place, TensorForm},
};

/// The tensors of a pruned model: those of its source, with fewer experts, under the same names and
/// in the same order.
#[derive(Debug)]
pub struct OutputLayout {
    tensors: Vec<OutputTensor>,
    places: BTreeMap<TensorId, Place>,
    /// What is beside a part's codes, by the suffixes of the tensors' names. What several parts have in common
    /// is the first's.
    companions: BTreeMap<TensorId, BTreeMap<String, Place>>,
}

/// A tensor of a pruned model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputTensor {
    /// Its name, type and shape.
    pub planned: PlannedTensor,
    /// The layer that its parts are of, of the decoder's or behind them; `None` outside of the layers,
    /// and of a tensor that plays no part.
    pub layer: Option<usize>,
    /// Its parts in the pruned model: one, all experts of a layer, or none. A part that several tensors
    /// hold together is one of the tensor with the codes.
    pub parts: Vec<TensorId>,
    /// Bytes of the source's tensor.
    pub source_bytes: u64,
}

impl Checkpoint {
    /// The tensors of a model that has experts of this one less: `pruned` is what it is made of, and
    /// `index_of` says the index there of expert `1` of layer `0`, or that it is gone. A model without
    /// the layers behind the decoder's that this one has lacks all of their tensors.
    ///
    /// Tensors outside of the decoder's layers come first, those of layers behind them included, then
    /// layer after layer.
    ///
    /// # Errors
    /// If `pruned` is no such model.
    pub fn output_layout(
        &self,
        pruned: &ModelSpec,
        index_of: &dyn Fn(usize, usize) -> Option<usize>,
    ) -> Result<OutputLayout, Error> {
        let mut of_layers: Vec<Vec<&StoredTensor>> = vec![Vec::new(); pruned.layers.len()];
        let mut outside = Vec::new();
        for stored in self.tensors() {
            match stored.layer().and_then(|layer| of_layers.get_mut(layer)) {
                Some(of_layer) => of_layer.push(stored),
                None if pruned.extra.is_none() && self.is_extra(stored) => {}
                None => outside.push(stored),
            }
        }
        let mut layout = OutputLayout {
            tensors: Vec::new(),
            places: BTreeMap::new(),
            companions: BTreeMap::new(),
        };
        for stored in outside.into_iter().chain(of_layers.into_iter().flatten()) {
            match (stored.part, &stored.experts) {
                (_, Some(_)) => layout.add_experts(stored, pruned)?,
                (Some(part @ TensorId::Layer(layer, _)), _) if part.expert().is_some() => {
                    let source = part.expert().unwrap_or_default();
                    let Some(index) = index_of(layer, source) else { continue };
                    let name = self.name_with_expert(&stored.name, index);
                    layout.add(stored, name, Some(part.with_expert(index)), pruned)?;
                }
                (part, _) => layout.add(stored, stored.name.clone(), part, pruned)?,
            }
        }
        Ok(layout)
    }
}

impl OutputLayout {
    /// All tensors in the order in which they are stored.
    #[must_use]
    pub fn tensors(&self) -> &[OutputTensor] {
        &self.tensors
    }

    /// The tensors of a layer, or, of `None`, those of no layer.
    pub fn of(&self, layer: Option<usize>) -> impl Iterator<Item = &OutputTensor> {
        self.tensors.iter().filter(move |tensor| tensor.layer == layer)
    }

    /// The tensor that a part is in, and where in it.
    ///
    /// # Errors
    /// [`Error::NoSuchPart`] if the pruned model has no such part.
    pub fn place_of(&self, part: TensorId) -> Result<(&OutputTensor, &Place), Error> {
        let place = self.places.get(&part).ok_or_else(|| Error::NoSuchPart {
            part: part.to_string(),
            reason: "the pruned model has none".to_owned(),
        })?;
        Ok((&self.tensors[place.tensor()], place))
    }

    /// What is beside a part's codes, by the suffixes of the tensors' names.
    pub(super) fn companions(
        &self,
        part: TensorId,
    ) -> impl Iterator<Item = (&str, &OutputTensor, &Place)> {
        let all = self.companions.get(&part).into_iter().flatten();
        all.map(|(suffix, place)| (suffix.as_str(), &self.tensors[place.tensor()], place))
    }

    fn add(
        &mut self,
        stored: &StoredTensor,
        name: String,
        part: Option<TensorId>,
        pruned: &ModelSpec,
    ) -> Result<(), Error> {
        if let (Some(part), Some(suffix)) = (part, &stored.suffix) {
            return self.add_to_module(stored, name, (part, suffix));
        }
        let shape = part.and_then(|part| pruned.part(part));
        let shape = shape.map_or_else(|| stored.shape.clone(), |part| part.shape);
        if let Some(part) = part {
            let form =
                TensorForm { tensor: self.tensors.len(), dtype: stored.dtype, shape: &shape };
            self.places.insert(part, Place::separate(form)?);
        }
        self.push(stored, PlannedTensor { name, dtype: stored.dtype, shape }, part.into_iter());
        Ok(())
    }

    /// One of the tensors that hold a part together.
    fn add_to_module(
        &mut self,
        stored: &StoredTensor,
        name: String,
        (part, suffix): (TensorId, &str),
    ) -> Result<(), Error> {
        let (at, shape) = (self.tensors.len(), stored.shape.clone());
        let form = TensorForm { tensor: at, dtype: stored.dtype, shape: &shape };
        let place = Place::separate(form)?;
        if stored.is_main {
            self.places.insert(part, place);
        } else {
            self.companions.entry(part).or_default().insert(suffix.to_owned(), place);
        }
        let planned = PlannedTensor { name, dtype: stored.dtype, shape };
        self.push(stored, planned, stored.is_main.then_some(part).into_iter());
        Ok(())
    }

    /// A tensor with all experts of a layer.
    fn add_experts(&mut self, stored: &StoredTensor, pruned: &ModelSpec) -> Result<(), Error> {
        let Some(held) = &stored.experts else { return Ok(()) };
        let kept = pruned.moe_of(held.layer());
        let kept = held.with_experts(kept.map_or(0, |moe| moe.experts));
        let shape = held.experts().shape_with(&stored.shape, kept.experts().experts)?;
        let form = TensorForm { tensor: self.tensors.len(), dtype: stored.dtype, shape: &shape };
        let places = kept.places(form)?;
        let mut parts: Vec<TensorId> = places.iter().map(|(part, _)| *part).collect();
        match &stored.suffix {
            Some(suffix) if !stored.is_main => {
                parts.clear();
                self.add_companions(suffix, places);
            }
            _ => self.places.extend(places),
        }
        let planned = PlannedTensor { name: stored.name.clone(), dtype: stored.dtype, shape };
        self.push(stored, planned, parts.into_iter());
        Ok(())
    }

    /// What is beside the codes of all experts of a layer.
    fn add_companions(&mut self, suffix: &str, places: Vec<(TensorId, Place)>) {
        let mut last = None;
        for (part, place) in places {
            let bytes = place.bytes();
            if last.as_ref() != Some(&bytes) {
                self.companions.entry(part).or_default().insert(suffix.to_owned(), place);
                last = Some(bytes);
            }
        }
    }

    fn push(
        &mut self,
        stored: &StoredTensor,
        planned: PlannedTensor,
        parts: impl Iterator<Item = TensorId>,
    ) {
        let (layer, source_bytes) = (stored.layer(), stored.bytes);
        self.tensors.push(OutputTensor { planned, layer, parts: parts.collect(), source_bytes });
    }
}
