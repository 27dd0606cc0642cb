//! The sums that every saliency but one looks at.

use moeprune_core::{LayerBehaviour, RoutingSums};

use crate::Error;

/// The layer's routing sums, one entry per expert.
pub(crate) fn routing<'a>(layer: &LayerBehaviour<'a>) -> Result<&'a RoutingSums, Error> {
    let routing = layer.routing.ok_or(Error::NoObservation)?;
    let sums = [&routing.gate_sums, &routing.gated_output_norms, &routing.output_norms];
    let lengths = sums.map(Vec::len).into_iter().chain([routing.experts()]);
    match lengths.into_iter().find(|&length| length != layer.experts()) {
        None => Ok(routing),
        Some(observed) => Err(Error::ExpertCount { observed, router: layer.experts() }),
    }
}

/// Peaks of the experts' outputs.
pub(crate) fn peaks<'a>(layer: &LayerBehaviour<'a>) -> Result<&'a [f64], Error> {
    let peaks = &routing(layer)?.output_peaks;
    if peaks.is_empty() && layer.experts() > 0 {
        return Err(Error::NoPeaks);
    }
    if peaks.len() != layer.experts() {
        return Err(Error::ExpertCount { observed: peaks.len(), router: layer.experts() });
    }
    Ok(peaks)
}

/// Sums divided by the tokens they are over; 0 for an expert that got none.
pub(crate) fn means(sums: &[f64], counts: &[u64]) -> Vec<f64> {
    sums.iter().zip(counts).map(|(sum, &count)| sum / count.max(1) as f64).collect()
}
