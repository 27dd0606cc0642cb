//! The parts that a repair may change, and those that it has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use moeprune_core::{
    Dtype, LayerTensor, StageError, SurvivingExpert, TensorBytes, TensorId, repair::RepairablePart,
};
use rayon::prelude::*;

use super::{KeptExperts, Scratch, TemporaryFolder};
use crate::{Error, finite::first_not_finite};

/// Where a part that may be repaired stands in a layer's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) part: LayerTensor,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) at: u64,
    pub(crate) bytes: usize,
}

/// The parts of a layer that may be repaired, in the order of their file, per surviving expert.
pub(crate) fn places(kept: &KeptExperts<'_>, layer: usize) -> Result<Vec<Vec<Place>>, Error> {
    let spec = kept.spec();
    let Some(moe) = spec.moe_of(layer) else { return Ok(Vec::new()) };
    let mut at = 0;
    let mut experts = Vec::with_capacity(moe.experts);
    for expert in 0..moe.experts {
        let mut parts = Vec::new();
        for part in RepairablePart::of_expert(expert).map(RepairablePart::tensor) {
            let id = TensorId::Layer(layer, part);
            let Some(shape) = spec.part(id).map(|part| part.shape) else { continue };
            let dtype = kept.dtype_of(id).map_err(Error::stage("reading weights", layer))?;
            if !dtype.is_weight() {
                return Err(not_plain(kept, id, dtype));
            }
            let bytes = shape.iter().product::<usize>() * dtype.bits() / 8;
            parts.push(Place { part, dtype, shape, at, bytes });
            at += bytes as u64;
        }
        experts.push(parts);
    }
    Ok(experts)
}

fn not_plain(kept: &KeptExperts<'_>, id: TensorId, dtype: Dtype) -> Error {
    let name = kept.source().name_of(id).unwrap_or_else(|_| id.to_string());
    Error::refused(
        format!("`{name}` is stored as {dtype}, and only BF16, F16 and F32 weights are refitted"),
        crate::Remedy::NoRepair,
    )
}

/// Which columns of an expert's weights belong to which of its parts.
pub(crate) fn columns(parts: &[Place]) -> SurvivingExpert {
    let mut expert = SurvivingExpert::default();
    for place in parts {
        let columns = if place.shape.len() == 2 { place.shape[1] } else { 1 };
        let first = expert.features;
        expert.features += columns;
        expert.parts.push((place.part, first..expert.features));
    }
    expert
}

/// The weights of an expert side by side, `[width, features]`, from what `read` returns per part.
pub(crate) fn join<'a>(
    parts: &[Place],
    mut read: impl FnMut(&Place) -> Result<TensorBytes<'a>, StageError>,
) -> Result<Vec<f32>, StageError> {
    let values = parts.iter().map(|place| decode(&read(place)?)).collect::<Result<_, _>>()?;
    Ok(side_by_side(parts, values))
}

/// The weights of an expert side by side, `[width, features]`, from the weights of each part.
pub(crate) fn side_by_side(parts: &[Place], mut values: Vec<Vec<f32>>) -> Vec<f32> {
    if values.len() == 1 {
        return values.swap_remove(0);
    }
    let SurvivingExpert { features, parts: columns, .. } = columns(parts);
    let mut joined = Vec::new();
    for (values, (_, columns)) in values.iter().zip(columns) {
        joined.resize(values.len() / columns.len().max(1) * features, 0.0);
        let rows = joined.chunks_exact_mut(features).zip(values.chunks_exact(columns.len().max(1)));
        rows.for_each(|(row, values)| row[columns.clone()].copy_from_slice(values));
    }
    joined
}

/// Weights that one thread decodes or encodes at a time.
const PIECE: usize = 1 << 16;

/// All weights of a part.
fn decode(part: &TensorBytes<'_>) -> Result<Vec<f32>, StageError> {
    let mut values = vec![0.0; part.elements()];
    let pieces = values.par_chunks_mut(PIECE).enumerate();
    pieces.try_for_each(|(piece, values)| part.decode_f32(piece * PIECE, values))?;
    Ok(values)
}

/// The part of an expert's weights that belongs to `place`, in the type that it is stored in, and what it
/// is then.
pub(crate) fn encode(
    place: &Place,
    columns: std::ops::Range<usize>,
    features: usize,
    weights: &[f32],
) -> Result<(TensorBytes<'static>, Vec<f32>), StageError> {
    let width = columns.len();
    let mut own = vec![0.0; weights.len() / features.max(1) * width];
    let rows = own.par_chunks_mut(width.max(1)).zip(weights.par_chunks(features.max(1)));
    rows.for_each(|(own, row)| own.copy_from_slice(&row[columns.clone()]));
    if let Some(at) = first_not_finite(&own) {
        return Err(format!("{}: weight {at} became {}", place.part, own[at]).into());
    }
    let size = place.dtype.bits() / 8;
    let mut bytes = vec![0; own.len() * size];
    let pieces = bytes.par_chunks_mut(PIECE * size).zip(own.par_chunks(PIECE));
    pieces.try_for_each(|(bytes, values)| -> Result<(), StageError> {
        let encoded = TensorBytes::encode(place.dtype, [values.len()], values)?;
        bytes.copy_from_slice(encoded.bytes());
        Ok(())
    })?;
    let encoded = TensorBytes::new(place.dtype, place.shape.clone(), bytes)?;
    let stored = decode(&encoded)?;
    if let Some(at) = first_not_finite(&stored) {
        let (part, weight, dtype) = (place.part, own[at], place.dtype);
        return Err(format!("{part}: weight {at} became {weight}, too large for {dtype}").into());
    }
    Ok((encoded, stored))
}

/// What a repair comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Experts went.
    Experts,
    /// Weights were zeroed.
    Masks,
}

/// Refuses new weights that are no longer zero where the old ones were.
pub(crate) fn check_zeros(
    place: &Place,
    old: &TensorBytes<'_>,
    new: &[f32],
) -> Result<(), StageError> {
    if place.shape.len() < 2 {
        return Ok(());
    }
    let old = decode(old)?;
    match old.iter().zip(new).position(|(&old, &new)| old == 0.0 && new != 0.0) {
        None => Ok(()),
        Some(at) => Err(format!(
            "{}: weight {at} was zeroed and became {}; a repair after weights were zeroed has to leave \
             zeros as they are",
            place.part, new[at]
        )
        .into()),
    }
}

/// The file of a layer's repaired parts.
pub(crate) fn file(folder: &Path, after: After, layer: usize) -> PathBuf {
    folder.join(match after {
        After::Experts => format!("repaired-{layer:04}"),
        After::Masks => format!("refitted-{layer:04}"),
    })
}

/// The parts of a model that were repaired, read from the files of the run that did it.
#[derive(Clone, Default)]
pub(crate) struct RepairedParts {
    layers: BTreeMap<usize, Arc<RepairedLayerParts>>,
    /// A folder that lives as long as the parts.
    folder: Option<Arc<TemporaryFolder>>,
}

struct RepairedLayerParts {
    file: Scratch,
    places: BTreeMap<LayerTensor, Place>,
}

impl fmt::Debug for RepairedParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers.iter().map(|(layer, parts)| (layer, parts.places.len()));
        f.debug_map().entries(layers).finish()
    }
}

impl RepairedParts {
    /// Those in a temporary folder, which is removed with them.
    pub(crate) fn in_folder(folder: Arc<TemporaryFolder>) -> Self {
        Self { layers: BTreeMap::new(), folder: Some(folder) }
    }

    /// The temporary folder; none of parts in a run's state.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().map_or_else(|| Path::new(""), |folder| folder.path())
    }

    /// Adds a layer of which these experts were changed.
    pub(crate) fn add(
        &mut self,
        kept: &KeptExperts<'_>,
        (folder, after): (&Path, After),
        (layer, replaced): (usize, &[usize]),
    ) -> Result<(), Error> {
        let replaced: BTreeSet<usize> = replaced.iter().copied().collect();
        let parts = places(kept, layer)?.into_iter().enumerate();
        let parts = parts.filter(|(expert, _)| replaced.contains(expert)).flat_map(|(_, p)| p);
        let places = parts.map(|place| (place.part, place)).collect();
        let file = Scratch::open(&file(folder, after, layer))?;
        self.layers.insert(layer, Arc::new(RepairedLayerParts { file, places }));
        Ok(())
    }

    /// The parts that were repaired, by layer.
    pub(crate) fn parts(&self) -> impl Iterator<Item = TensorId> + '_ {
        let layers = self.layers.iter();
        layers.flat_map(|(&layer, of)| {
            of.places.keys().map(move |&part| TensorId::Layer(layer, part))
        })
    }

    /// Whether a part was repaired.
    pub(crate) fn has(&self, id: TensorId) -> bool {
        self.place(id).is_some()
    }

    /// A part, if it was repaired.
    pub(crate) fn tensor(&self, id: TensorId) -> Result<Option<TensorBytes<'static>>, StageError> {
        let Some((layer, place)) = self.place(id) else { return Ok(None) };
        let mut bytes = vec![0; place.bytes];
        layer.file.read(place.at, &mut bytes)?;
        Ok(Some(TensorBytes::new(place.dtype, place.shape.clone(), bytes)?))
    }

    fn place(&self, id: TensorId) -> Option<(&RepairedLayerParts, &Place)> {
        let TensorId::Layer(layer, tensor) = id else { return None };
        let layer = self.layers.get(&layer)?;
        layer.places.get(&tensor).map(|place| (&**layer, place))
    }
}
