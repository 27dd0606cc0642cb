//! How sparse each layer becomes.

use moeprune_core::{LayerProfile, LinearShape, Sparsity, UnstructuredPlan};

use super::{
    layer::{Stages, measure_layer},
    statistics::Statistics,
};
use crate::{
    Error, Progress,
    session::{Pass, Record, Session},
    steps::Steps,
};

/// The plan's ratios, or what the allocator makes of the layers; for one that looks at outliers,
/// all layers are gone through once.
pub(super) fn layer_ratios(
    asked: &UnstructuredPlan,
    stages: Stages<'_>,
    statistics: &Statistics<'_>,
    session: &mut Session,
    progress: &mut dyn Progress,
) -> Result<Vec<Sparsity>, Error> {
    if !asked.layer_ratios.is_empty() {
        return asked.layer_ratios.iter().map(|&r| Ok(Sparsity::new(r)?)).collect();
    }
    let layers = stages.kept.spec().layers.len();
    let outliers = match stages.pipeline.allocator.outlier_threshold() {
        None => vec![None; layers],
        Some(multiplier) => {
            let percents = outliers(multiplier, stages, statistics, session, progress)?;
            percents.into_iter().map(Some).collect()
        }
    };
    let profiles: Vec<LayerProfile> = outliers
        .into_iter()
        .enumerate()
        .map(|(layer, outlier_percent)| LayerProfile {
            layer,
            prunable: stages.prunable(layer).iter().map(LinearShape::parameters).sum(),
            outlier_percent,
        })
        .collect();
    let ratios = stages
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
    stages: Stages<'_>,
    statistics: &Statistics<'_>,
    session: &mut Session,
    progress: &mut dyn Progress,
) -> Result<Vec<f64>, Error> {
    let layers = stages.kept.spec().layers.len();
    let mut percents = session.measured()?;
    let done = percents.len();
    if done >= layers {
        return Ok(percents);
    }
    let mut walk = statistics.start(stages, session, Pass::Measure, done)?;
    let mut steps = if walk.is_forward() {
        Steps::tokens("measuring outliers", layers, statistics.tokens(), done, progress)
    } else {
        let bytes = (0..layers).map(|l| stages.weight_bytes(l)).sum();
        Steps::megabytes("measuring outliers", layers, bytes, done, progress)
    };
    for layer in done..layers {
        let work = match walk.is_forward() {
            true => statistics.passes(stages.kept, layer),
            false => stages.weight_bytes(layer),
        };
        steps.begin_layer(layer, work);
        let watch = &mut |more| steps.watch(more);
        let outlier_percent = measure_layer(stages, &mut walk, layer, multiplier, watch)?;
        percents.push(outlier_percent);
        let hidden = walk.hidden().filter(|_| layer + 1 < layers);
        let record = Record::Measured { layer, outlier_percent };
        session.layer_done(Pass::Measure, layer, hidden, record)?;
        steps.end_layer();
    }
    steps.end();
    Ok(percents)
}
