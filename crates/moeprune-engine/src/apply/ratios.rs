//! How sparse each layer becomes.

use moeprune_core::{LayerProfile, LinearShape, Sparsity, UnstructuredPlan};

use super::{layer_job::LayerJob, statistics::Statistics, work::work_of};
use crate::{
    Error,
    session::{Pass, Record},
    walk::{Resumed, Walker},
};

/// The plan's ratios, or what the allocator makes of the layers; for one that looks at outliers,
/// all layers are gone through once.
pub(super) fn layer_ratios(
    asked: &UnstructuredPlan,
    layer_job: LayerJob<'_>,
    statistics: &Statistics<'_>,
    walker: &mut Walker<'_>,
) -> Result<Vec<Sparsity>, Error> {
    if !asked.layer_ratios.is_empty() {
        return asked.layer_ratios.iter().map(|&r| Ok(Sparsity::new(r)?)).collect();
    }
    let layers = layer_job.kept.spec().layers.len();
    let outliers = match layer_job.pipeline.allocator.outlier_threshold() {
        None => vec![None; layers],
        Some(multiplier) => {
            let percents = outliers(multiplier, layer_job, statistics, walker)?;
            percents.into_iter().map(Some).collect()
        }
    };
    let profiles: Vec<LayerProfile> = outliers
        .into_iter()
        .enumerate()
        .map(|(layer, outlier_percent)| LayerProfile {
            layer,
            prunable: layer_job.prunable(layer).iter().map(LinearShape::parameters).sum(),
            outlier_percent,
        })
        .collect();
    let ratios = layer_job
        .pipeline
        .allocator
        .allocate(&profiles, Sparsity::new(asked.ratio)?)
        .map_err(Error::stage("allocation", None))?;
    if ratios.len() != layers {
        return Err(Error::Contract {
            stage: "allocation",
            layer: 0,
            problem: format!("{} ratios for {layers} layers", ratios.len()),
        });
    }
    Ok(ratios)
}

/// The percentage of outliers among each layer's scores.
fn outliers(
    multiplier: f64,
    layer_job: LayerJob<'_>,
    statistics: &Statistics<'_>,
    walker: &mut Walker<'_>,
) -> Result<Vec<f64>, Error> {
    let layers = layer_job.kept.spec().layers.len();
    let mut percents = walker.session.measured()?;
    let done = percents.len();
    if done >= layers {
        return Ok(percents);
    }
    let blocks = statistics.blocks();
    let work = |layer| match blocks {
        Some(_) => statistics.passes(layer_job.kept, layer),
        None => layer_job.weight_bytes(layer),
    };
    let work: Vec<u64> = (0..layers).map(work).collect();
    let work_on_layer = work_of(layer_job);
    let route = layer_job.route("measuring outliers", blocks, &work);
    let resumed = Some(Resumed { pass: Pass::Measure, done });
    walker.walk(&route, resumed, |mut at| {
        let layer = at.layer;
        let stored = statistics.stored(layer_job.kept, layer);
        let outlier_percent =
            work_on_layer.measure(layer_job, &mut at, stored.as_ref(), multiplier)?;
        percents.push(outlier_percent);
        Ok(Some(Record::Measured { layer, outlier_percent }))
    })?;
    Ok(percents)
}
