//! One tensor of a pruned model against what it must be.

use moeprune_core::{
    Dtype, LayerTensor, LinearId, StoredWeight, TensorBytes, TensorId, encoding::Comparison,
};

pub(super) use super::difference::difference;
use super::{
    difference::{alike, became_zero},
    origin::{Average, Origin, Origins},
    repaired::{NewWeights, Repairs, check_hash, companion_index},
};
use crate::{
    Checkpoint, Error, StoredTensor, average_of, check_finite, count_zeros, join_along,
    select_along, weighted_average_of, weights::position,
};

/// What there is to say about one tensor.
#[derive(Debug, Default)]
pub(super) struct Finding {
    pub(super) shape: Vec<usize>,
    /// How it differs from what it must be.
    pub(super) difference: Option<String>,
    /// Weights that are zero here and were not in the source.
    pub(super) zeroed: u64,
    /// Whether its weights are new, to make up for experts that went.
    pub(super) repaired: bool,
    /// Whether these are those that the report says.
    pub(super) confirmed: bool,
    /// Zeros that the new weights have more than the old.
    pub(super) fresh_zeros: u64,
    /// Exact zeros in a Linear.
    pub(super) zeros: Option<u64>,
    /// Weights of codes that have none that is zero.
    pub(super) without_zero: u64,
    /// A weight that is NaN or infinite.
    pub(super) not_finite: Option<Error>,
    /// Whether all of it is byte for byte what the source gives.
    pub(super) is_copy: bool,
}

/// Where weights of the source may have become zero, or others.
#[derive(Debug, Clone, Copy)]
pub(super) struct MayZero<'a> {
    /// In the Linears of decoder layers.
    pub(super) linears: bool,
    /// In the routers.
    pub(super) routers: bool,
    /// Whether the other weights of such a tensor were changed to make up for it.
    pub(super) changed: bool,
    /// Which parts were changed before that.
    pub(super) repairs: Repairs<'a>,
}

impl MayZero<'_> {
    /// Whether weights of this item may have become zero.
    fn in_item(self, item: Item<'_>) -> bool {
        match item.linear() {
            Some((_, LinearId::Router)) => self.routers,
            Some(_) => self.linears,
            None => false,
        }
    }

    /// The same for one layer: nothing may have become zero behind the decoder's.
    pub(super) fn in_layer(self, source: &Checkpoint, layer: usize) -> Self {
        match layer < source.spec().layers.len() {
            true => self,
            false => Self { linears: false, routers: false, changed: false, ..self },
        }
    }
}

/// What is compared as one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    /// A part of the model.
    Part(TensorId),
    /// A tensor that plays no part.
    Tensor(&'a StoredTensor),
    /// One of the tensors that hold a part together.
    OfModule(TensorId, &'a StoredTensor),
}

/// The two models, and what was done to one to make the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Models<'a> {
    pub(super) source: &'a Checkpoint,
    pub(super) pruned: &'a Checkpoint,
    pub(super) origins: &'a Origins,
    pub(super) may_zero: MayZero<'a>,
}

/// Everything of a model, in the order in which it is stored.
pub(super) fn items(pruned: &Checkpoint) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    for tensor in pruned.tensors() {
        match (tensor.part, &tensor.experts) {
            (Some(part), _) if !pruned.is_plain(tensor) => {
                items.push(Item::OfModule(part, tensor));
            }
            (Some(part), _) => items.push(Item::Part(part)),
            (None, Some(held)) => {
                let experts = 0..held.experts().experts;
                let item = |part| match &tensor.suffix {
                    Some(_) => Item::OfModule(part, tensor),
                    None => Item::Part(part),
                };
                items.extend(experts.flat_map(|expert| held.parts(expert)).map(item));
            }
            (None, None) => items.push(Item::Tensor(tensor)),
        }
    }
    items
}

impl Item<'_> {
    /// The part that it is.
    pub(super) fn part(self) -> Option<TensorId> {
        match self {
            Self::Part(part) => Some(part),
            Self::OfModule(part, tensor) => tensor.is_main.then_some(part),
            Self::Tensor(_) => None,
        }
    }

    /// The codes of a weight that are not decoded, or blocks.
    pub(super) fn is_undecoded(self, pruned: &Checkpoint) -> bool {
        let in_blocks = |tensor: &StoredTensor| matches!(tensor.dtype, Dtype::Ggml(_));
        match self {
            Self::Part(TensorId::Layer(_, LayerTensor::OfExpert(..))) => true,
            Self::Part(_) => self.tensor(pruned).is_some_and(in_blocks),
            Self::OfModule(part, _) => !pruned.is_decoded(part),
            Self::Tensor(tensor) => in_blocks(tensor),
        }
    }

    /// Whether it is one of the tensors that hold a part together.
    pub(super) fn is_in_codes(self) -> bool {
        matches!(self, Self::OfModule(..))
    }

    /// The tensor that it is in.
    pub(super) fn tensor(self, pruned: &Checkpoint) -> Option<&StoredTensor> {
        match self {
            Self::Part(part) => Some(pruned.tensor_at(pruned.place_of(part).ok()?)),
            Self::Tensor(tensor) | Self::OfModule(_, tensor) => pruned.by_name(&tensor.name),
        }
    }

    /// The layer and the Linear whose weight it is.
    pub(super) fn linear(self) -> Option<(usize, LinearId)> {
        match self {
            Self::Part(TensorId::Layer(layer, LayerTensor::Linear(linear)))
            | Self::OfModule(TensorId::Layer(layer, LayerTensor::Linear(linear)), _) => {
                Some((layer, linear))
            }
            _ => None,
        }
    }

    /// What messages call it.
    fn name(self, pruned: &Checkpoint) -> Result<String, Error> {
        let part = match self {
            Self::Tensor(tensor) | Self::OfModule(_, tensor) => return Ok(tensor.name.clone()),
            Self::Part(part) => part,
        };
        let tensor = pruned.tensor_at(pruned.place_of(part)?);
        Ok(match &tensor.experts {
            Some(_) => format!("{} ({part})", tensor.name),
            None => tensor.name.clone(),
        })
    }
}

pub(super) fn examine(item: Item<'_>, models: Models<'_>) -> Result<Finding, Error> {
    let Models { source, pruned, mut may_zero, .. } = models;
    if let Item::OfModule(part, tensor) = item {
        return examine_module(part, tensor, models);
    }
    if let Some(TensorId::Layer(layer, _)) = item.part() {
        may_zero = may_zero.in_layer(source, layer);
    }
    let got = match item {
        Item::Part(part) => pruned.read_place(pruned.place_of(part)?)?,
        Item::Tensor(tensor) | Item::OfModule(_, tensor) => pruned.read(tensor)?,
    };
    let name = item.name(pruned)?;
    let mut finding = Finding { shape: got.shape().to_vec(), ..Finding::default() };
    // Blocks are compared as they are stored: nothing computes with them.
    if !matches!(got.dtype(), Dtype::Ggml(_))
        && let Err(e @ Error::NotFinite { .. }) = check_finite(&name, &got)
    {
        finding.not_finite = Some(e);
    }
    if item.linear().is_some() && got.dtype().is_weight() {
        finding.zeros = Some(count_zeros(&got)?);
    }
    let maskable = may_zero.in_item(item);
    let expected = expected(item, models)?;
    finding.is_copy = expected.as_ref().is_some_and(|expected| expected.bytes() == got.bytes());
    match expected {
        None => {
            finding.difference = Some(format!("`{name}` matches nothing of the source"));
        }
        Some(expected) if new_weights(item, models) != NewWeights::None => {
            let new = new_weights(item, models);
            if let Err(what) = finding.repaired(&got, &expected, (new, maskable, may_zero.changed))
            {
                finding.difference = Some(format!("`{name}` {what}"));
            }
        }
        Some(expected) if maskable && may_zero.changed => match became_zero(&got, &expected) {
            Ok(zeroed) => finding.zeroed = zeroed,
            Err(what) => finding.difference = Some(format!("`{name}` {what}")),
        },
        Some(expected) => match difference(&got, &expected, maskable) {
            Ok(zeroed) => finding.zeroed = zeroed,
            Err(what) => finding.difference = Some(format!("`{name}` {what}")),
        },
    }
    Ok(finding)
}

/// Compares one of the tensors that hold a part together with the same of the source: codes as weights,
/// some of which may be zero now, and the others byte for byte.
fn examine_module(
    part: TensorId,
    tensor: &StoredTensor,
    models: Models<'_>,
) -> Result<Finding, Error> {
    let Models { source, pruned, origins, mut may_zero } = models;
    if let TensorId::Layer(layer, _) = part {
        may_zero = may_zero.in_layer(source, layer);
    }
    let weight = pruned.spec().part(part).filter(|_| tensor.is_main);
    let shape = weight.map_or_else(|| vec![0], |weight| weight.shape);
    let mut finding = Finding { shape, ..Finding::default() };
    let from = match (part, part.expert()) {
        (TensorId::Layer(layer, _), Some(expert)) => match origins.of(layer, expert) {
            Origin::Kept(from) => Some(part.with_expert(*from)),
            _ => None,
        },
        _ => Some(part),
    };
    let stored = from.and_then(|from| source.stored_part(from));
    let tensors = stored.as_ref().map_or(&[][..], |stored| &stored.tensors);
    let same = |(suffix, _): &&(&str, &StoredTensor)| Some(*suffix) == tensor.suffix.as_deref();
    let of_part = pruned.stored_part(part).map_or(0, |stored| stored.tensors.len());
    let name = &tensor.name;
    finding.difference = match tensors.iter().find(same) {
        None => Some(format!("`{name}` matches nothing of the source")),
        Some(_) if of_part != tensors.len() => {
            let expected = tensors.len();
            Some(format!("`{name}` is one of {of_part} tensors of its module, expected {expected}"))
        }
        Some(_) if tensor.is_main && pruned.is_decoded(part) => {
            let maskable = may_zero.in_item(Item::OfModule(part, tensor));
            let weights = [(pruned, part), (source, from.unwrap_or(part))];
            let compared = match may_zero.repairs.new_weights(source, pruned, part) {
                NewWeights::None => finding.codes(weights, maskable)?,
                new => finding.repaired_codes(weights, (new, maskable, may_zero.changed))?,
            };
            compared.err().map(|what| format!("`{name}` {what}"))
        }
        Some((suffix, _)) => {
            let piece = |model, id| read_piece(model, id, suffix);
            let (got, expected) = (piece(pruned, part)?, piece(source, from.unwrap_or(part))?);
            let new = may_zero.repairs.new_weights(source, pruned, part);
            let differs = match companion_index(pruned, part, suffix) {
                Some(index) if new != NewWeights::None => {
                    new_companion(&got, &expected, (new, index))
                }
                _ => difference(&got, &expected, false).map(|_| ()),
            };
            differs.err().map(|what| format!("`{name}` {what}"))
        }
    };
    Ok(finding)
}

/// What one of a part's tensors holds of it.
fn read_piece<'a>(
    model: &'a Checkpoint,
    id: TensorId,
    suffix: &str,
) -> Result<TensorBytes<'a>, Error> {
    match model.companion(id, suffix)? {
        Some((_, place)) => model.read_place(&place),
        None => model.read_place(model.place_of(id)?),
    }
}

/// Compares what new codes are read with.
fn new_companion(
    got: &TensorBytes<'_>,
    expected: &TensorBytes<'_>,
    (new, index): (NewWeights<'_>, usize),
) -> Result<(), String> {
    alike(got, expected)?;
    match new {
        NewWeights::None => difference(got, expected, false).map(|_| ()),
        NewWeights::Any => Ok(()),
        NewWeights::Of { companions, .. } => match companions.get(index) {
            Some(sha256) => check_hash(got, sha256),
            None => difference(got, expected, false).map(|_| ()),
        },
    }
}

impl Finding {
    /// Compares codes that a repair may have changed, as [`repaired`](Self::repaired).
    fn repaired_codes(
        &mut self,
        [(pruned, part), (source, from)]: [(&Checkpoint, TensorId); 2],
        (new, maskable, changed): (NewWeights<'_>, bool, bool),
    ) -> Result<Result<(), String>, Error> {
        let (now, was) = (pruned.stored_weight(part)?, source.stored_weight(from)?);
        let zeros = now.count_zeros();
        self.zeros = Some(zeros);
        if let Err(what) = alike(now.main(), was.main()) {
            return Ok(Err(what));
        }
        self.fresh_zeros = zeros.saturating_sub(was.count_zeros());
        self.zeroed = if maskable { self.fresh_zeros } else { 0 };
        let mut companions = now.companions().iter().zip(was.companions());
        self.repaired = now.main().bytes() != was.main().bytes()
            || companions.any(|(now, was)| now.bytes() != was.bytes());
        Ok(self.confirm(now.main(), (new, maskable, changed)))
    }

    /// Holds a part to what the report says of it, if it is as the repair left it.
    fn confirm(
        &mut self,
        got: &TensorBytes<'_>,
        (new, maskable, changed): (NewWeights<'_>, bool, bool),
    ) -> Result<(), String> {
        if let NewWeights::Of { sha256, last, .. } = new
            && (last || !(maskable || changed))
        {
            check_hash(got, sha256)?;
            self.confirmed = true;
        }
        Ok(())
    }

    /// Counts codes that say zero, and weights that could not where others could become it.
    fn count_codes(&mut self, weight: &StoredWeight<'_>, maskable: bool) {
        self.zeros = Some(weight.count_zeros());
        let mut marks = vec![false; weight.cols()];
        let rows = 0..if maskable { weight.rows() } else { 0 };
        let stay = |row| weight.encoding().mark_without_zero(weight.some(row, 1), &mut marks);
        self.without_zero = rows.map(stay).sum();
    }

    /// Compares codes, and counts those that say zero.
    fn codes(
        &mut self,
        [(pruned, part), (source, from)]: [(&Checkpoint, TensorId); 2],
        maskable: bool,
    ) -> Result<Result<(), String>, Error> {
        let (got, expected) = (
            pruned.read_place(pruned.place_of(part)?)?,
            source.read_place(source.place_of(from)?)?,
        );
        if let Err(what) = alike(&got, &expected) {
            return Ok(Err(what));
        }
        if got.bytes() == expected.bytes() {
            // Its companions are compared by themselves. What cannot be decoded has no count of zeros.
            if let Ok(now) = pruned.stored_weight(part) {
                self.count_codes(&now, maskable);
            }
            return Ok(Ok(()));
        }
        let (now, was) = (pruned.stored_weight(part)?, source.stored_weight(from)?);
        self.count_codes(&now, maskable);
        let at = |element| position(now.shape(), element);
        Ok(match was.encoding().compare(was.all(), now.main().bytes()) {
            Comparison::Zeroed { count } if maskable => {
                self.zeroed = count;
                Ok(())
            }
            Comparison::Zeroed { .. } => Err("differs from the source".to_owned()),
            Comparison::Changed { first } => {
                Err(format!("differs from the source at {} and is not zero", at(first)))
            }
        })
    }

    /// Compares a part that a repair may have changed, if weights of it may have been zeroed or changed
    /// after that only in their number of zeros.
    fn repaired(
        &mut self,
        got: &TensorBytes<'_>,
        expected: &TensorBytes<'_>,
        (new, maskable, changed): (NewWeights<'_>, bool, bool),
    ) -> Result<(), String> {
        self.fresh_zeros = became_zero(got, expected)?;
        self.zeroed = if maskable { self.fresh_zeros } else { 0 };
        self.repaired = got.bytes() != expected.bytes();
        self.confirm(got, (new, maskable, changed))
    }
}

/// What a repair may have made of it.
fn new_weights<'a>(item: Item<'_>, models: Models<'a>) -> NewWeights<'a> {
    let Models { source, pruned, may_zero, .. } = models;
    let of_part = |part| may_zero.repairs.new_weights(source, pruned, part);
    item.part().map_or(NewWeights::None, of_part)
}

/// What it must be before weights are zeroed; `None` if the source has nothing like it.
fn expected<'a>(item: Item<'_>, models: Models<'a>) -> Result<Option<TensorBytes<'a>>, Error> {
    let Models { source, origins, .. } = models;
    let part = match item {
        Item::Part(part) | Item::OfModule(part, _) => part,
        Item::Tensor(tensor) => {
            return source.by_name(&tensor.name).map(|stored| source.read(stored)).transpose();
        }
    };
    if let TensorId::Layer(layer, _) = part {
        if let Some(expert) = part.expert() {
            return expected_expert(source, part, origins.of(layer, expert));
        }
        if let Some(axis) = source.spec().part(part).and_then(|part| part.expert_axis) {
            return expected_shared(source, part, axis, origins.of_layer(layer));
        }
    }
    source.place_of(part).ok().map(|place| source.read_place(place)).transpose()
}

/// A tensor of an expert that comes from `origin`.
pub(super) fn expected_expert<'a>(
    source: &'a Checkpoint,
    id: TensorId,
    origin: &Origin,
) -> Result<Option<TensorBytes<'a>>, Error> {
    let read = |e: &usize| source.read_place(source.place_of(id.with_expert(*e))?);
    match origin {
        Origin::Kept(e) => read(e).map(Some),
        Origin::Average(average) => mean(average, |e| read(&e)).map(Some),
        Origin::Unknown => Ok(None),
    }
}

/// A tensor that has an entry per expert along `axis`.
fn expected_shared<'a>(
    source: &Checkpoint,
    id: TensorId,
    axis: usize,
    origins: &[Origin],
) -> Result<Option<TensorBytes<'a>>, Error> {
    let shared = source.read_place(source.place_of(id)?)?;
    let mut entries = Vec::with_capacity(origins.len());
    for origin in origins {
        let Some(entry) = expected_entry(&shared, axis, origin)? else { return Ok(None) };
        entries.push(entry);
    }
    join_along(axis, &entries).map(Some)
}

/// The entry of an expert that comes from `origin`, along `axis` of a tensor of the source.
pub(super) fn expected_entry(
    shared: &TensorBytes<'_>,
    axis: usize,
    origin: &Origin,
) -> Result<Option<TensorBytes<'static>>, Error> {
    match origin {
        Origin::Kept(e) => select_along(shared, axis, &[*e]).map(Some),
        Origin::Average(average) => mean(average, |e| select_along(shared, axis, &[e])).map(Some),
        Origin::Unknown => Ok(None),
    }
}

fn mean<'a>(
    Average { members, weights }: &Average,
    mut read: impl FnMut(usize) -> Result<TensorBytes<'a>, Error>,
) -> Result<TensorBytes<'static>, Error> {
    let member = |index: usize| read(members[index]);
    match weights.as_slice() {
        [] => average_of(members.len(), member),
        weights => weighted_average_of(weights, member),
    }
}
