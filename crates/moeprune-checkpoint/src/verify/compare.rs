//! One tensor of a pruned model against what it must be.

use moeprune_core::{
    LayerTensor, LinearId, TensorBytes, TensorId,
    encoding::{self, Comparison},
};

use super::{Origin, Origins, origin::Average};
use crate::{
    Checkpoint, Error, StoredTensor, average_of, check_finite, count_zeros, select_rows,
    weighted_average_of, weights::position,
};

/// What there is to say about one tensor.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// How it differs from what it must be.
    pub(super) difference: Option<String>,
    /// Weights that are zero here and were not in the source.
    pub(super) zeroed: u64,
    /// Exact zeros in a Linear.
    pub(super) zeros: Option<u64>,
    pub(super) not_finite: Option<String>,
}

/// Where weights of the source may have become zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct MayZero {
    /// In the Linears of decoder layers.
    pub(super) linears: bool,
    /// In the routers.
    pub(super) routers: bool,
    /// Whether the other weights of such a tensor were changed to make up for it.
    pub(super) changed: bool,
}

pub(super) fn examine(
    source: &Checkpoint,
    pruned: &Checkpoint,
    tensor: &StoredTensor,
    origins: &Origins,
    may_zero: MayZero,
) -> Result<Finding, Error> {
    let got = pruned.read(tensor)?;
    let mut finding = Finding::default();
    if let Err(e @ Error::NotFinite { .. }) = check_finite(&tensor.name, &got) {
        finding.not_finite = Some(e.to_string());
    }
    let linear = match tensor.part {
        Some(TensorId::Layer(layer, LayerTensor::Linear(linear))) => Some((layer, linear)),
        _ => None,
    };
    if linear.is_some() {
        finding.zeros = Some(count_zeros(&got)?);
    }
    let maskable = match linear {
        Some((_, LinearId::Router)) => may_zero.routers,
        Some(_) => may_zero.linears,
        None => false,
    };
    match expected(source, tensor, linear, origins)? {
        None => {
            finding.difference = Some(format!("`{}` comes from nowhere known", tensor.name));
        }
        Some(expected) if maskable && may_zero.changed => match became_zero(&got, &expected) {
            Ok(zeroed) => finding.zeroed = zeroed,
            Err(what) => finding.difference = Some(format!("`{}` {what}", tensor.name)),
        },
        Some(expected) => match difference(&got, &expected, maskable) {
            Ok(zeroed) => finding.zeroed = zeroed,
            Err(what) => finding.difference = Some(format!("`{}` {what}", tensor.name)),
        },
    }
    Ok(finding)
}

/// What the tensor must be before weights are zeroed; `None` if the source has nothing like it.
fn expected<'a>(
    source: &'a Checkpoint,
    tensor: &StoredTensor,
    linear: Option<(usize, LinearId)>,
    origins: &Origins,
) -> Result<Option<TensorBytes<'a>>, Error> {
    match linear {
        Some((layer, LinearId::Router)) => expected_router(source, tensor, layer, origins),
        Some((layer, linear @ LinearId::Expert(expert, _))) => {
            expected_expert(source, layer, linear, origins.of(layer, expert))
        }
        _ => source.by_name(&tensor.name).map(|stored| source.read(stored)).transpose(),
    }
}

/// A Linear of an expert that comes from `origin`.
pub(super) fn expected_expert<'a>(
    source: &'a Checkpoint,
    layer: usize,
    linear: LinearId,
    origin: &Origin,
) -> Result<Option<TensorBytes<'a>>, Error> {
    let read = |e: &usize| {
        let id = TensorId::linear(layer, linear.with_expert(*e));
        source.tensor_by_name(&source.name_of(id)?)
    };
    match origin {
        Origin::Kept(e) => read(e).map(Some),
        Origin::Average(average) => mean(average, |e| read(&e)).map(Some),
        Origin::Unknown => Ok(None),
    }
}

fn expected_router<'a>(
    source: &Checkpoint,
    tensor: &StoredTensor,
    layer: usize,
    origins: &Origins,
) -> Result<Option<TensorBytes<'a>>, Error> {
    let router = source.tensor_by_name(&tensor.name)?;
    let mut bytes = Vec::new();
    for origin in origins.of_layer(layer) {
        let Some(row) = expected_row(&router, origin)? else { return Ok(None) };
        bytes.extend_from_slice(row.bytes());
    }
    let mut shape = router.shape().to_vec();
    shape[0] = origins.of_layer(layer).len();
    Ok(Some(TensorBytes::new(router.dtype(), shape, bytes)?))
}

/// The router row of an expert that comes from `origin`, given the router of the source.
pub(super) fn expected_row(
    router: &TensorBytes<'_>,
    origin: &Origin,
) -> Result<Option<TensorBytes<'static>>, Error> {
    match origin {
        Origin::Kept(e) => select_rows(router, &[*e]).map(Some),
        Origin::Average(average) => mean(average, |e| select_rows(router, &[e])).map(Some),
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

/// Number of weights that became zero in a tensor whose other weights may be anything.
fn became_zero(got: &TensorBytes<'_>, expected: &TensorBytes<'_>) -> Result<u64, String> {
    let zeros = |of: &TensorBytes<'_>| count_zeros(of).map_err(|e| e.to_string());
    alike(got, expected)?;
    Ok(zeros(got)?.saturating_sub(zeros(expected)?))
}

fn alike(got: &TensorBytes<'_>, expected: &TensorBytes<'_>) -> Result<(), String> {
    if got.shape() == expected.shape() && got.dtype() == expected.dtype() {
        return Ok(());
    }
    Err(format!(
        "is {} {:?}, expected {} {:?}",
        got.dtype(),
        got.shape(),
        expected.dtype(),
        expected.shape()
    ))
}

/// Number of weights that became zero, or how the tensors differ otherwise.
pub(super) fn difference(
    got: &TensorBytes<'_>,
    expected: &TensorBytes<'_>,
    may_zero: bool,
) -> Result<u64, String> {
    alike(got, expected)?;
    if got.bytes() == expected.bytes() {
        return Ok(0);
    }
    let at = |element| position(got.shape(), element);
    if may_zero && let Ok(encoding) = encoding::of(got.dtype()) {
        return match encoding.compare(expected.bytes(), got.bytes(), got.elements()) {
            Comparison::Zeroed { count } => Ok(count),
            Comparison::Changed { first } => {
                Err(format!("differs from the source at {} and is not zero", at(first)))
            }
        };
    }
    let mut bytes = got.bytes().iter().zip(expected.bytes());
    let first = bytes.position(|(got, expected)| got != expected).unwrap_or_default();
    Err(format!("differs from the source at {}", at(first * 8 / got.dtype().bits())))
}
