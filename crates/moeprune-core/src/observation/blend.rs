//! Observations counted several times, and mixed in proportions.

use super::{Observation, statistic};
use crate::Error;

impl Observation {
    /// Counts every token `times` times, as if the texts had been read as often.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if a count overflows; `self` should then be dropped.
    pub fn repeat(&mut self, times: u64) -> Result<(), Error> {
        for corpus in &mut self.corpora {
            corpus.repeated = statistic::counted(corpus.repeated, times)?;
        }
        for layer in &mut self.layers {
            if let Some(routing) = &mut layer.routing {
                statistic::repeat(routing, times)?;
            }
            layer.inputs.values_mut().try_for_each(|moments| statistic::repeat(moments, times))?;
        }
        Ok(())
    }

    /// Observations of one model as if their texts had been read in the given proportions, token
    /// for token: of weights 3 and 1, three quarters of the tokens are of the first text, however
    /// long either is.
    ///
    /// Counts stay whole numbers: each observation is [repeated](Self::repeat) so often that the
    /// proportions come out, within 1 part in 30,000 where no small numbers do it.
    ///
    /// # Errors
    /// [`Error::ObservationMismatch`] if there is nothing to blend, a weight is not finite or
    /// negative, all are zero, or the observations do not [add up](Self::add).
    pub fn blend(parts: &[(&Self, f64)]) -> Result<Self, Error> {
        let bad = |problem: String| Err(Error::ObservationMismatch(problem));
        let mut rates = Vec::with_capacity(parts.len());
        for (part, weight) in parts {
            if !(weight.is_finite() && *weight >= 0.0) {
                return bad(format!("a weight is {weight}; it must be at least 0"));
            }
            let tokens: u64 = part.corpora.iter().map(|c| c.tokens() * c.repeated).sum();
            if tokens == 0 && *weight > 0.0 {
                return bad("one is of no tokens".into());
            }
            rates.push(weight / tokens.max(1) as f64);
        }
        let mut blend: Option<Self> = None;
        for ((part, _), times) in parts.iter().zip(whole_proportions(&rates)) {
            if times == 0 {
                continue;
            }
            let mut repeated = (*part).clone();
            repeated.repeat(times)?;
            match &mut blend {
                None => blend = Some(repeated),
                Some(blend) => blend.add(&repeated)?,
            }
        }
        blend.map_or_else(|| bad("all weights are zero".into()), Ok)
    }
}

/// The smallest whole numbers in these proportions, or nearly so.
fn whole_proportions(rates: &[f64]) -> Vec<u64> {
    let least = rates.iter().copied().filter(|&rate| rate > 0.0).fold(f64::INFINITY, f64::min);
    let exact = |factor: &u32| {
        let off = |rate: &f64| {
            let times = rate / least * f64::from(*factor);
            (times - times.round()).abs() > 1e-9 * times
        };
        !rates.iter().any(off)
    };
    let factor = (1..=1000).find(exact).unwrap_or(1 << 15);
    rates.iter().map(|rate| (rate / least * f64::from(factor)).round() as u64).collect()
}
