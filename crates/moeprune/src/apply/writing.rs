//! Writing the pruned checkpoint, and counting what is written.

use moeprune_checkpoint::{
    OutputDirectory, PlannedTensor, ShardedWriter, StoredTensor, check_finite, count_zeros,
};
use moeprune_core::{LayerTensor, LinearId, TensorBytes, TensorId, TensorSink, TensorSource};

use super::{KeptExperts, MaskedLayer, layer_masks::MaskedSource};
use crate::{Error, Progress, Report};

/// The checkpoint being written, in a hidden sibling of its final place.
pub(crate) struct Output {
    directory: OutputDirectory,
    writer: ShardedWriter,
    zeros: Vec<LayerZeros>,
}

/// Exact zeros in the bytes written for a layer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LayerZeros {
    pub(crate) experts: u64,
    /// Experts included, router not.
    pub(crate) linears: u64,
    pub(crate) router: u64,
}

impl Output {
    /// Puts everything but the weights into the directory, and plans the shards.
    pub(crate) fn create(
        directory: OutputDirectory,
        kept: &KeptExperts<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        let source = kept.source();
        let layers = kept.spec().layers.len();
        let experts: Vec<usize> =
            kept.spec().layers.iter().map(|l| l.moe().map_or(0, |m| m.experts)).collect();
        let config = source.config_with_experts(&experts)?;
        let mut tensors = Vec::new();
        let outside = outside_layers(kept).map(|stored| planned(kept, stored, None));
        for tensor in outside {
            tensors.push(tensor?);
        }
        for layer in 0..layers {
            for (stored, part) in layer_tensors(kept, layer) {
                tensors.push(planned(kept, stored, Some(part))?);
            }
        }
        for (path, why) in directory.copy_auxiliary(source)?.left_out {
            progress.note(&format!("not copied: {} ({why})", path.display()));
        }
        directory.write("config.json", config.as_bytes())?;
        let writer = ShardedWriter::create(directory.path(), source.max_shard_bytes(), tensors)?;
        Ok(Self { directory, writer, zeros: vec![LayerZeros::default(); layers] })
    }

    /// Copies embeddings, final norm, head, and tensors that play no known part.
    pub(crate) fn put_outside_layers(&mut self, kept: &KeptExperts<'_>) -> Result<(), Error> {
        for stored in outside_layers(kept) {
            let tensor = kept.source().tensor_by_name(&stored.name)?;
            if tensor.dtype().is_weight() {
                check_finite(&stored.name, &tensor)?;
            }
            self.put(&stored.name, &tensor)?;
        }
        Ok(())
    }

    /// Writes a layer in its final form.
    pub(crate) fn put_layer(
        &mut self,
        kept: &KeptExperts<'_>,
        masked: &MaskedLayer,
        layer: usize,
    ) -> Result<(), Error> {
        let source = MaskedSource { kept, masked };
        for (_, part) in layer_tensors(kept, layer) {
            let tensor = source.tensor(part).map_err(Error::stage("reading weights", layer))?;
            self.put(&kept.source().name_of(part)?, &tensor)?;
            if let TensorId::Layer(_, LayerTensor::Linear(linear)) = part {
                let zeros = count_zeros(&tensor)?;
                let sums = &mut self.zeros[layer];
                if linear == LinearId::Router {
                    sums.router += zeros;
                } else {
                    sums.linears += zeros;
                }
                if linear.expert().is_some() {
                    sums.experts += zeros;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, name: &str, tensor: &TensorBytes<'_>) -> Result<(), Error> {
        self.writer.put(name, tensor).map_err(Error::stage("writing", None))
    }

    /// Makes the shards durable. Nothing is visible under the final name yet.
    pub(crate) fn finish(self) -> Result<Written, Error> {
        let Self { directory, writer, zeros } = self;
        let bytes = writer.finish()?.bytes;
        Ok(Written { directory, zeros, bytes })
    }
}

/// A complete checkpoint that still lies in the hidden directory.
pub(crate) struct Written {
    directory: OutputDirectory,
    pub(crate) zeros: Vec<LayerZeros>,
    /// Bytes of all shards.
    pub(crate) bytes: u64,
}

impl Written {
    /// Adds the report and moves the directory to its final name.
    pub(crate) fn publish(self, report: &Report) -> Result<(), Error> {
        report.write(self.directory.path())?;
        Ok(self.directory.publish()?)
    }
}

/// Tensors that belong to no layer, or to none that is understood, in the source's order.
fn outside_layers<'a>(kept: &KeptExperts<'a>) -> impl Iterator<Item = &'a StoredTensor> {
    kept.source().tensors().filter(|t| !matches!(t.part, Some(TensorId::Layer(..))))
}

/// The tensors a layer still has, in the source's order, and the part each plays in the pruned
/// model.
fn layer_tensors<'a>(kept: &KeptExperts<'a>, layer: usize) -> Vec<(&'a StoredTensor, TensorId)> {
    kept.source()
        .tensors()
        .filter_map(|stored| match stored.part? {
            TensorId::Layer(l, _) if l != layer => None,
            TensorId::Layer(_, LayerTensor::Linear(linear)) => {
                let linear = match linear.expert() {
                    None => linear,
                    Some(source) => linear.with_expert(kept.index_of(layer, source)?),
                };
                Some((stored, TensorId::linear(layer, linear)))
            }
            part @ TensorId::Layer(..) => Some((stored, part)),
            _ => None,
        })
        .collect()
}

fn planned(
    kept: &KeptExperts<'_>,
    stored: &StoredTensor,
    part: Option<TensorId>,
) -> Result<PlannedTensor, Error> {
    let mut shape = stored.shape.clone();
    if let Some(TensorId::Layer(layer, LayerTensor::Linear(LinearId::Router))) = part {
        shape[0] = kept.spec().layers[layer].moe().map_or(shape[0], |m| m.experts);
    }
    let name = match part {
        None => stored.name.clone(),
        Some(part) => kept.source().name_of(part)?,
    };
    Ok(PlannedTensor { name, dtype: stored.dtype, shape })
}
