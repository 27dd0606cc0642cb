//! Layers behind the decoder's: how many there are, and what they are made of.

use moeprune_core::{
    AttentionSpec, ExtraLayers, FeedForward, LayerSpec, LinearId, MlpProjection, TensorId,
};

use super::{Blocks, count_layers, norms_of, other_of};
use crate::{
    Error, Family,
    config::Config,
    family::{Count, Descriptor, Model, Sequence},
    named_tensors::StoredExtra,
};

/// The layers behind the decoder's that a config announces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnnouncedExtra<'a> {
    /// The number of the first.
    pub(crate) first: usize,
    /// How many there are; `None`: as many as are stored, as the config counts none.
    pub(crate) count: Option<usize>,
    /// The key that says so.
    pub(crate) key: &'a str,
}

/// What the config says of extra layers; `None` if the family has none.
///
/// A config may leave their number out, or say that there are none: what is stored says how many there
/// are then.
pub(crate) fn announced_extra<'a>(
    family: &'a Family,
    config: &'a Config,
) -> Result<Option<AnnouncedExtra<'a>>, Error> {
    let form = family.descriptor();
    let Some(extra) = &form.extra else { return Ok(None) };
    let first = count_layers(&form.layers, config)?;
    let key = match config.find(&extra.count.keys)? {
        Some(found) => found.key,
        None => extra.count.keys.first().map_or("", String::as_str),
    };
    let count = match extra.count.optional(config)? {
        None | Some(Count(0)) => return Ok(Some(AnnouncedExtra { first, count: None, key })),
        Some(Count(count)) => count,
    };
    let sequence = match &extra.sequence {
        Some(sequence) => sequence.optional(config)?,
        None => None,
    };
    let Sequence(each) = sequence.unwrap_or(Sequence(1));
    let Some(count) = count.checked_mul(each) else {
        return Err(config.refuse(format!("`{key}` is {count}, and each has {each} layers")));
    };
    Ok(Some(AnnouncedExtra { first, count: Some(count), key }))
}

/// The layers behind the decoder's that are stored. They have experts if they have a router, as many as
/// its rows.
pub(super) fn read(
    form: &Descriptor,
    model: Model<'_>,
    decoder: &[LayerSpec],
) -> Result<Option<ExtraLayers>, Error> {
    let Model { config, named, layers: first, .. } = model;
    let (Some(extra), Some(stored)) = (&form.extra, named.extra) else { return Ok(None) };
    let policy = extra.policy.into();
    let StoredExtra::Layers(stored) = stored else {
        let is_stored = stored == StoredExtra::Unknown;
        return Ok(Some(ExtraLayers { layers: Vec::new(), names: Vec::new(), is_stored, policy }));
    };
    let router = |layer| TensorId::linear(layer, LinearId::Router);
    let rows = |layer| named.shapes.get(&router(layer)).map(|shape| shape.first().copied());
    let numbers = first..first + stored;
    // Of layers with one mixer, what is stored says which.
    let has_dense = |layer| {
        let up = TensorId::linear(layer, LinearId::Dense(MlpProjection::Up));
        model.mixers.is_none() || named.shapes.contains_key(&up)
    };
    let is_dense = |layer| rows(layer).is_none() && has_dense(layer) && !form.layers.bare;
    let blocks = Blocks::read(form, config, numbers.clone().any(is_dense))?;
    let mut layers = Vec::with_capacity(stored);
    for layer in numbers {
        let feed_forward = match rows(layer) {
            Some(rows) => {
                let experts = rows.unwrap_or_default();
                blocks.check_choice(form, config, layer, experts)?;
                FeedForward::Moe(blocks.moe(form, named, layer, experts)?)
            }
            None if is_dense(layer) => FeedForward::Dense(blocks.dense_of(config, layer)?),
            None => FeedForward::None,
        };
        let kind = extra.attention.as_deref();
        let attention = match (model.mixers, form.attention.stored_kind(named, layer)?) {
            (Some(_), None) => AttentionSpec::None,
            (Some(_), kind) => form.attention.read_extra(kind, model, decoder, layer)?,
            (None, _) => form.attention.read_extra(kind, model, decoder, layer)?,
        };
        let (norms, other) = (norms_of(&form.layers), other_of(form, named, layer)?);
        layers.push(LayerSpec { attention, feed_forward, norms, other });
    }
    let prefix = extra.prefix.iter().map(|prefix| form.full_name(prefix));
    let name = |(prefix, layer): (&String, usize)| {
        prefix.replace("{layer}", &layer.to_string()).trim_end_matches('.').to_owned()
    };
    let names = prefix.flat_map(|prefix| {
        (0..stored).map(move |layer| name((&prefix, layer))).collect::<Vec<String>>()
    });
    Ok(Some(ExtraLayers { layers, names: names.collect(), is_stored: true, policy }))
}
