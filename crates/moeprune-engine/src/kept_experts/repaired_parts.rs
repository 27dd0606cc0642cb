//! The parts that a repair may change, and those that it has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use moeprune_core::{
    Dtype, LayerTensor, StageError, StoredWeight, SurvivingExpert, TensorBytes, TensorId,
    encoding::{self, SharedEncoding},
    repair::RepairablePart,
};
use rayon::prelude::*;

use super::{
    KeptExperts, Scratch, TemporaryFolder,
    requantise::{NewWeights, requantise},
};
use crate::{Error, finite::first_not_finite};

/// Where a part that may be repaired stands in a layer's file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) part: LayerTensor,
    pub(crate) encoding: SharedEncoding,
    /// Of the weight.
    pub(crate) shape: Vec<usize>,
    /// The main tensor, and what it is read with.
    tensors: Vec<TensorPlace>,
}

/// Where one of the tensors of a part stands in a layer's file.
#[derive(Debug, Clone)]
struct TensorPlace {
    dtype: Dtype,
    shape: Vec<usize>,
    at: u64,
    bytes: usize,
}

impl Place {
    fn new(part: LayerTensor, weight: &StoredWeight<'_>, end: &mut u64) -> Self {
        let place = |tensor: &TensorBytes<'_>| {
            let (at, bytes) = (*end, tensor.bytes().len());
            *end += bytes as u64;
            TensorPlace { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), at, bytes }
        };
        let tensors = [weight.main()].into_iter().chain(weight.companions()).map(place).collect();
        let (encoding, shape) = (weight.encoding().clone(), weight.shape().to_vec());
        Self { part, encoding, shape, tensors }
    }

    /// Of a part whose elements are numbers by themselves; nothing of it is read.
    fn plain(part: LayerTensor, shape: Vec<usize>, dtype: Dtype, end: &mut u64) -> Option<Self> {
        let (encoding, bytes) = (encoding::of(dtype).ok()?.into(), dtype.bytes_of_shape(&shape)?);
        let at = *end;
        *end += bytes as u64;
        let tensors = vec![TensorPlace { dtype, shape: shape.clone(), at, bytes }];
        Some(Self { part, encoding, shape, tensors })
    }

    pub(crate) fn write(
        &self,
        file: &Scratch,
        weight: &StoredWeight<'_>,
    ) -> Result<(), StageError> {
        let tensors = [weight.main()].into_iter().chain(weight.companions());
        for (place, tensor) in self.tensors.iter().zip(tensors) {
            file.write(place.at, tensor.bytes())?;
        }
        Ok(())
    }

    pub(crate) fn read(&self, file: &Scratch) -> Result<StoredWeight<'static>, StageError> {
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for TensorPlace { dtype, shape, at, bytes } in &self.tensors {
            let mut stored = vec![0; *bytes];
            file.read(*at, &mut stored)?;
            tensors.push(TensorBytes::new(*dtype, shape.clone(), stored)?);
        }
        let main = tensors.remove(0);
        Ok(StoredWeight::new(self.encoding.clone(), main, tensors)?)
    }
}

/// The parts of a layer that may be repaired, in the order of their file, per surviving expert.
pub(crate) fn places(kept: &KeptExperts<'_>, layer: usize) -> Result<Vec<Vec<Place>>, Error> {
    let spec = kept.spec();
    let Some(moe) = spec.moe_of(layer) else { return Ok(Vec::new()) };
    let mut end = 0;
    let mut experts = Vec::with_capacity(moe.experts);
    for expert in 0..moe.experts {
        let mut parts = Vec::new();
        for part in RepairablePart::of_expert(expert).map(RepairablePart::tensor) {
            let id = TensorId::Layer(layer, part);
            let Some(shape) = spec.part(id).map(|part| part.shape) else { continue };
            let reading = || Error::stage("reading weights", layer);
            let dtype = kept.dtype_of(id).map_err(reading())?;
            let place = match Place::plain(part, shape, dtype, &mut end) {
                Some(place) => place,
                None => {
                    let weight = kept.source().weight(kept.first_source(id)).map_err(reading())?;
                    if weight.encoding().requantising(weight.shape()).is_none() {
                        return Err(not_encodable(kept, id, &weight));
                    }
                    Place::new(part, &weight, &mut end)
                }
            };
            parts.push(place);
        }
        experts.push(parts);
    }
    Ok(experts)
}

fn not_encodable(kept: &KeptExperts<'_>, id: TensorId, weight: &StoredWeight<'_>) -> Error {
    let name = kept.source().name_of(id).unwrap_or_else(|_| id.to_string());
    let stored = weight.encoding().name();
    Error::refused(
        format!("`{name}` is stored as {stored}, and new weights are {REPAIRABLE_ENCODINGS} only"),
        crate::Remedy::NoRepair,
    )
}

/// The encodings that a repair writes new weights in, in words.
pub const REPAIRABLE_ENCODINGS: &str =
    "numbers (BF16, F16, F32), FP8 (F8_E4M3), INT4 (pack-quantized, symmetric), MXFP4 or NVFP4";

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
    mut read: impl FnMut(&Place) -> Result<StoredWeight<'a>, StageError>,
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
pub(crate) fn decode(part: &StoredWeight<'_>) -> Result<Vec<f32>, StageError> {
    let mut values = vec![0.0; part.elements()];
    let pieces = values.par_chunks_mut(PIECE).enumerate();
    pieces.try_for_each(|(piece, values)| part.decode(piece * PIECE, values))?;
    Ok(values)
}

/// The part of an expert's new weights that belongs to `place`, as `old` is stored, and what it is then.
pub(crate) fn encode(
    place: &Place,
    columns: std::ops::Range<usize>,
    new: &mut NewWeights<'_>,
    old: &StoredWeight<'_>,
) -> Result<(StoredWeight<'static>, Vec<f32>), StageError> {
    let (width, features) = (columns.len(), new.features.max(1));
    if place.encoding.float().is_none() {
        check_finite(place.part, &new.weights)?;
        // Other codes can stand for the same weights, so those that come back have the old ones.
        let before = decode(old)?;
        let rows = before.par_chunks(width.max(1)).zip(new.weights.par_chunks(features));
        if rows.all(|(before, row)| before == &row[columns.clone()]) {
            return Ok((owned(old)?, before));
        }
        let weight = requantise(old, new)?;
        let stored = decode(&weight)?;
        check_finite(place.part, &stored)?;
        return Ok((weight, stored));
    }
    let mut own = vec![0.0; new.weights.len() / features * width];
    let rows = own.par_chunks_mut(width.max(1)).zip(new.weights.par_chunks(features));
    rows.for_each(|(own, row)| own.copy_from_slice(&row[columns.clone()]));
    check_finite(place.part, &own)?;
    let dtype = place.encoding.dtype();
    let size = dtype.bytes_of(1).ok_or(moeprune_core::Error::NotFloat(dtype))?;
    let mut bytes = vec![0; own.len() * size];
    let pieces = bytes.par_chunks_mut(PIECE * size).zip(own.par_chunks(PIECE));
    pieces.try_for_each(|(bytes, values)| -> Result<(), StageError> {
        let encoded = TensorBytes::encode(dtype, [values.len()], values)?;
        bytes.copy_from_slice(encoded.bytes());
        Ok(())
    })?;
    let encoded = StoredWeight::alone(TensorBytes::new(dtype, place.shape.clone(), bytes)?)?;
    let stored = decode(&encoded)?;
    if let Some(at) = first_not_finite(&stored) {
        let (part, weight) = (place.part, own[at]);
        return Err(format!("{part}: weight {at} became {weight}, too large for {dtype}").into());
    }
    Ok((encoded, stored))
}

/// The same weight with bytes of its own.
fn owned(weight: &StoredWeight<'_>) -> Result<StoredWeight<'static>, StageError> {
    let copy = |tensor: &TensorBytes<'_>| {
        TensorBytes::new(tensor.dtype(), tensor.shape(), tensor.bytes().to_vec())
    };
    let companions = weight.companions().iter().map(copy).collect::<Result<_, _>>()?;
    Ok(StoredWeight::new(weight.encoding().clone(), copy(weight.main())?, companions)?)
}

fn check_finite(part: LayerTensor, weights: &[f32]) -> Result<(), StageError> {
    match first_not_finite(weights) {
        None => Ok(()),
        Some(at) => Err(format!("{part}: weight {at} became {}", weights[at]).into()),
    }
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
    old: &StoredWeight<'_>,
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
    pub(crate) fn weight(&self, id: TensorId) -> Result<Option<StoredWeight<'static>>, StageError> {
        self.place(id).map(|(layer, place)| place.read(&layer.file)).transpose()
    }

    fn place(&self, id: TensorId) -> Option<(&RepairedLayerParts, &Place)> {
        let TensorId::Layer(layer, tensor) = id else { return None };
        let layer = self.layers.get(&layer)?;
        layer.places.get(&tensor).map(|place| (&**layer, place))
    }
}
