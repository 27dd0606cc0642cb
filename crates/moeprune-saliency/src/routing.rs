//! The sums that every saliency but one looks at.

use moeprune_core::{LayerBehaviour, RoutingSums};

use crate::Error;

/// The layer's routing sums, one entry per expert.
pub(crate) fn routing<'a>(layer: &LayerBehaviour<'a>) -> Result<&'a RoutingSums, Error> {
    let routing = layer.routing.ok_or(Error::NoObservation)?;
    check(routing.experts(), layer)?;
    Ok(routing)
}

/// Sums that only a run of the model shows, one per expert; `what` says of what.
pub(crate) fn of_runs<'a>(
    layer: &LayerBehaviour<'a>,
    sums: fn(&RoutingSums) -> &Vec<f64>,
    what: &'static str,
) -> Result<&'a [f64], Error> {
    let sums = sums(routing(layer)?);
    if sums.is_empty() && layer.experts() > 0 {
        return Err(Error::NotRun { what });
    }
    check(sums.len(), layer)?;
    Ok(sums)
}

fn check(observed: usize, layer: &LayerBehaviour<'_>) -> Result<(), Error> {
    match layer.experts() {
        router if router == observed => Ok(()),
        router => Err(Error::ExpertCount { observed, router }),
    }
}

/// Peaks of the experts' outputs.
pub(crate) fn peaks<'a>(layer: &LayerBehaviour<'a>) -> Result<&'a [f64], Error> {
    let peaks = &routing(layer)?.output_peaks;
    if peaks.is_empty() && layer.experts() > 0 {
        of_runs(layer, |sums| &sums.output_norms, "peaks of the experts' outputs")?;
        return Err(Error::NoPeaks);
    }
    check(peaks.len(), layer)?;
    Ok(peaks)
}

/// Sums divided by the tokens they are over; 0 for an expert that got none.
pub(crate) fn means(sums: &[f64], counts: &[u64]) -> Vec<f64> {
    sums.iter().zip(counts).map(|(sum, &count)| sum / count.max(1) as f64).collect()
}
