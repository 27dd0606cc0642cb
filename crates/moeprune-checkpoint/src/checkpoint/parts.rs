//! Which tensor plays which part, and whether every part is there in its shape.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use moeprune_core::{
    Dtype, LayerTensor, LinearId, ModelSpec, Part, TensorId,
    encoding::{QuantConfig, StoredForm},
};

use super::{
    StoredTensor,
    extra::assign_extra,
    fused,
    layout::Layout,
    modules::{self, Module},
};
use crate::{
    Error,
    config::Config,
    family::{Names, Slab},
    model_directory::ModelDirectory,
    named_tensors::NamedTensors,
    place::Place,
    spec::{AnnouncedExtra, expert_count},
};

/// Gives each tensor its part by name, and finds the layers that are named. What is stored of layers
/// behind the decoder's has parts if whole layers are stored, and is carried over if not.
pub(super) fn assign(
    layout: &mut Layout,
    names: &Names,
    announced: Option<AnnouncedExtra<'_>>,
    directory: &ModelDirectory,
) -> Result<(NamedTensors, BTreeMap<TensorId, Module>), Error> {
    let bad = |reason: String| Error::Weights { dir: directory.path.clone(), reason };
    let mut layers = BTreeSet::new();
    let has_codes = modules::has_codes(layout);
    fused::name_slabs(layout, names);
    for tensor in &mut layout.tensors {
        if names.extra_layer_of(&tensor.name).is_some() {
            continue;
        }
        tensor.part = names.part_of(&tensor.name);
        let known = tensor.part.is_some()
            || names.is_carried(&tensor.name)
            || tensor.slab.is_some()
            || modules::assign(tensor, names, has_codes);
        if !known {
            refuse_unknown_in_layer(tensor, names, directory)?;
        }
        layers.extend(names.decoder_layer_of(&tensor.name));
    }
    let missing = layers.iter().zip(0..).find(|(layer, at)| *layer != at);
    if let Some((next, missing)) = missing {
        return Err(bad(format!(
            "the weight files have tensors of decoder layer {next} but none of layer {missing}"
        )));
    }
    let extra = announced.map_or(Ok(None), |extra| assign_extra(layout, names, extra));
    let modules = modules::group(layout, directory)?;
    for module in modules.values() {
        layout.tensors[module.main].is_main = true;
    }
    let shape = |tensor: &StoredTensor| match tensor.part.and_then(|part| modules.get(&part)) {
        Some(module) => module.shape(layout),
        None => tensor.shape.clone(),
    };
    let named = layout.tensors.iter().filter(|t| t.suffix.is_none() || t.is_main);
    let shapes = named.filter_map(|t| Some((t.part?, shape(t)))).collect();
    let opaque = layout.tensors.iter().filter_map(|tensor| match tensor.slab? {
        (layer, Slab::Opaque(part)) => Some(((layer, part), tensor.shape.get(1..)?.to_vec())),
        _ => None,
    });
    let opaque: BTreeMap<_, _> = opaque.collect();
    let fused_codes = fused::codes(layout);
    let stranger = if layers.is_empty() { stranger(layout, names) } else { None };
    let extra = extra.map_err(bad)?;
    let fused = layout.tensors.iter().any(|t| t.slab.is_some() && t.suffix.is_some());
    let of_expert = |id: &TensorId| matches!(id, TensorId::Layer(_, LayerTensor::OfExpert(..)));
    let separate = layout.tensors.iter().any(|t| t.part.as_ref().is_some_and(of_expert));
    let quantised = !opaque.is_empty() || !modules.is_empty() || fused || separate;
    let layers = layers.len();
    let named = NamedTensors { layers, stranger, extra, shapes, opaque, fused_codes, quantised };
    Ok((named, modules))
}

/// Of tensors of which none is a decoder layer's, the one that is most like the first that was expected,
/// and what that is called. Names that end alike are more alike than any that do not.
fn stranger(layout: &Layout, names: &Names) -> Option<(String, String)> {
    let expected = names.name_of(TensorId::Layer(0, LayerTensor::InputNorm))?;
    let stored = layout.tensors.iter().map(|tensor| &tensor.name);
    let same_end = |name: &str| {
        let pairs = name.rsplit('.').zip(expected.rsplit('.'));
        pairs.take_while(|(stored, expected)| stored == expected).count()
    };
    let nearest = stored
        .min_by_key(|name| (Reverse(same_end(name)), strsim::levenshtein(name, &expected)))?;
    Some((nearest.clone(), expected))
}

/// More than any model has; a shape that says more is wrong, and not worth counting out.
const MOST_EXPERTS: usize = 1 << 16;

/// Checks that config, routers and tensor names agree about the number of experts.
pub(super) fn check_experts(
    layout: &Layout,
    names: &Names,
    spec: &ModelSpec,
    directory: &ModelDirectory,
    config: &Config,
) -> Result<(), Error> {
    let mut named: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut router_rows = BTreeMap::new();
    for tensor in &layout.tensors {
        if let Some((layer, experts)) = fused::experts_in(tensor) {
            named.entry(layer).or_default().extend(0..experts.min(MOST_EXPERTS));
        }
        let Some(TensorId::Layer(layer, part)) = tensor.part else { continue };
        if let Some(expert) = part.expert() {
            named.entry(layer).or_default().insert(expert);
        } else if part == LayerTensor::Linear(LinearId::Router) {
            router_rows.insert(layer, tensor.shape.first().copied().unwrap_or_default());
        }
    }
    let none = BTreeSet::new();
    for layer in 0..spec.extra_layers().end {
        let Some(moe) = spec.moe_of(layer) else { continue };
        let named = named.get(&layer).unwrap_or(&none);
        let gap = named.iter().zip(0..).find(|(e, at)| *e != at).map(|(_, at)| at);
        let rows = router_rows.get(&layer).copied();
        let agree = named.len() == moe.experts && gap.is_none();
        if agree && rows.is_none_or(|rows| rows == moe.experts) {
            continue;
        }
        let key = expert_count(names.family(), config)?.key.to_owned();
        let rows = rows.map_or_else(|| "is missing".to_owned(), |rows| format!("has {rows} rows"));
        let gap = gap.map_or(String::new(), |gap| format!(" (expert {gap} is missing)"));
        let named = named.len();
        let reason = match layer < spec.layers.len() {
            true => format!(
                "layer {layer}: `{key}` in {} says {} experts, the router {rows}, and there are \
                 tensors of {named} experts{gap}; the three must agree",
                layout.config_name(),
                moe.experts,
            ),
            false => format!(
                "{}, behind the decoder's: the router {rows}, and there are tensors of {named} \
                 experts{gap}; the two must agree",
                spec.layer_name(layer)
            ),
        };
        return Err(Error::Experts { dir: directory.path.clone(), reason });
    }
    Ok(())
}

/// Finds the tensors that hold all experts of a layer.
pub(super) fn assign_experts(
    layout: &mut Layout,
    names: &Names,
    spec: &ModelSpec,
    directory: &ModelDirectory,
) -> Result<(), Error> {
    let found = fused::find(layout, names, spec).map_err(|(at, reason)| Error::Tensor {
        dir: directory.path.clone(),
        name: layout.tensors[at].name.clone(),
        reason,
    })?;
    for (at, experts) in found {
        layout.tensors[at].experts = Some(experts);
    }
    Ok(())
}

/// Where each part is, and how those are stored that are modules.
pub(super) struct Found {
    pub(super) places: BTreeMap<TensorId, Place>,
    pub(super) forms: BTreeMap<TensorId, StoredForm>,
}

/// Checks that every part of the specification is there, in its shape and as floating point or codes,
/// and that there is no part besides.
pub(super) fn check(
    layout: &Layout,
    names: &Names,
    spec: &ModelSpec,
    (modules, said, directory): (&BTreeMap<TensorId, Module>, &QuantConfig, &ModelDirectory),
) -> Result<Found, Error> {
    let bad = |name: &str, reason: String| {
        let (dir, name) = (directory.path.clone(), name.to_owned());
        Error::Tensor { dir, name, reason }
    };
    let places = places(layout, directory)?;
    let mut besides: BTreeSet<TensorId> = places.keys().copied().collect();
    let mut forms = BTreeMap::new();
    for Part { id: part, shape: expected, .. } in spec.parts().into_iter().chain(spec.extra_parts())
    {
        besides.remove(&part);
        let Some(place) = places.get(&part) else {
            let name = name_of_missing(layout, names, part);
            let instead = in_place_of(part, &name, layout, names);
            return Err(bad(&name, format!("is missing; expected as `{part}`{instead}")));
        };
        let StoredTensor { name, dtype, file, .. } = &layout.tensors[place.tensor()];
        if let Some(module) = modules.get(&part) {
            forms.insert(part, module.form(layout, (&expected, said), directory)?);
            continue;
        }
        let shape = place.shape();
        if shape != expected {
            return Err(bad(
                name,
                format!(
                    "is {shape:?} in {file}, but {} asks for {expected:?}",
                    layout.config_name()
                ),
            ));
        }
        if !is_carried(part, layout) && !dtype.is_weight() {
            return Err(bad(name, unsupported(*dtype)));
        }
    }
    modules::check_alike((modules, &forms), layout, directory)?;
    besides.remove(&TensorId::LmHead); // may be stored though it is tied
    match besides.first() {
        None => Ok(Found { places, forms }),
        Some(part) => Err(bad(
            &layout.tensors[places[part].tensor()].name,
            format!("is the {part}, but a model with {} has no such part", layout.said_by()),
        )),
    }
}

/// Whether a part may be stored in any type, since nothing computes with it: of a model that is cut and not run,
/// all but its routers.
fn is_carried(part: TensorId, layout: &Layout) -> bool {
    match part {
        TensorId::Layer(_, LayerTensor::OfExpert(..)) => true,
        TensorId::Layer(_, LayerTensor::Linear(LinearId::Router)) => false,
        _ => layout.model.is_some(),
    }
}

/// Where each part is that a tensor holds; of modules, where their codes are.
fn places(layout: &Layout, directory: &ModelDirectory) -> Result<BTreeMap<TensorId, Place>, Error> {
    let bad = |name: &str, reason: String| {
        let (dir, name) = (directory.path.clone(), name.to_owned());
        Error::Tensor { dir, name, reason }
    };
    let mut found: BTreeMap<TensorId, Place> = BTreeMap::new();
    for tensor in &layout.tensors {
        let places = match (tensor.part, &tensor.experts) {
            _ if tensor.suffix.is_some() && !tensor.is_main => continue,
            (Some(part), _) => vec![(part, Place::separate(tensor.form())?)],
            (None, Some(experts))
                if !experts.is_opaque()
                    && !tensor.dtype.is_weight()
                    && tensor.suffix.is_none()
                    && layout.model.is_none() =>
            {
                return Err(bad(&tensor.name, unsupported(tensor.dtype)));
            }
            (None, Some(experts)) => experts.places(tensor.form())?,
            (None, None) => continue,
        };
        for (part, place) in places {
            if let Some(other) = found.insert(part, place) {
                let other = &layout.tensors[other.tensor()].name;
                return Err(bad(&tensor.name, format!("holds the {part}, and so does `{other}`")));
            }
        }
    }
    Ok(found)
}

/// What is said of a tensor whose element type is no floating point.
fn unsupported(dtype: Dtype) -> String {
    format!(
        "is stored as {dtype}; only F32, F16 and BF16 can be pruned, so start from a checkpoint in \
         one of these"
    )
}

/// What is there in place of a part that is missing, or what a config says of a model without it.
fn in_place_of(part: TensorId, name: &str, layout: &Layout, names: &Names) -> String {
    let end = name.rmatch_indices('.').nth(1).map_or(name, |(dot, _)| &name[dot + 1..]);
    let is_alike = |tensor: &&StoredTensor| {
        let beginning = tensor.name.strip_suffix(end);
        tensor.part.is_none()
            && beginning.is_some_and(|begin| begin.is_empty() || begin.ends_with('.'))
    };
    if let TensorId::Layer(..) = part {
        return String::new();
    }
    if let Some(other) = layout.tensors.iter().find(is_alike) {
        return format!("; there is `{}`", other.name);
    }
    let tied = names.family().descriptor().model.tied_embeddings.shown();
    match part {
        TensorId::LmHead => format!("; config.json says that there is one (`{tied}` is not true)"),
        _ => String::new(),
    }
}

/// The name of the tensor that a missing part would be in: one of all experts, if the layer has others
/// such.
fn name_of_missing(layout: &Layout, names: &Names, part: TensorId) -> String {
    let fuses = |layer| {
        let mut layers = layout.tensors.iter().filter_map(|t| t.slab);
        layers.any(|(of, _)| of == layer)
    };
    let fused = match part {
        TensorId::Layer(layer, _) if fuses(layer) => names.fused_name_of(part),
        _ => None,
    };
    fused.or_else(|| names.name_of(part)).unwrap_or_else(|| part.to_string())
}

/// A tensor of a decoder layer that no template names would silently be left out of the forward
/// pass, and one that belongs to an expert would not be renumbered with it.
fn refuse_unknown_in_layer(
    tensor: &StoredTensor,
    names: &Names,
    directory: &ModelDirectory,
) -> Result<(), Error> {
    let Some(layer) = names.decoder_layer_of(&tensor.name) else { return Ok(()) };
    let nearest = names.nearest(&tensor.name).map(|name| format!(" (the nearest is `{name}`)"));
    Err(Error::Tensor {
        dir: directory.path.clone(),
        name: tensor.name.clone(),
        reason: format!(
            "belongs to decoder layer {layer}, but the family `{}` knows no such part{}; if the \
             forward pass does not need it, list it under `layers.carried` in a family \
             descriptor of your own",
            names.family().name(),
            nearest.unwrap_or_default()
        ),
    })
}
