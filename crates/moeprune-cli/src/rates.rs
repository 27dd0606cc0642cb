//! How fast the machine is, for estimates of time and what a repair keeps in files.

use clap::Args;
use moeprune::{Estimate, Execution, Rates};

use crate::table::bytes;

/// How fast the machine is.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Estimate")]
#[non_exhaustive]
pub struct RateArgs {
    /// What the disk reads and writes [default: 1.4], for the estimate of time and what a repair keeps in files
    /// [env: MOEPRUNE_DISK_RATE]
    #[arg(long, value_name = "GB/s", value_parser = rate)]
    pub disk_rate: Option<f64>,
    /// What matrix products do [default: 200, two CPU cores with AVX-512], for the same [env: MOEPRUNE_COMPUTE_RATE]
    #[arg(long, value_name = "GFLOP/s", value_parser = rate)]
    pub compute_rate: Option<f64>,
}

/// A positive number.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err(format!("`{text}` is not a positive number")),
    }
}

impl RateArgs {
    /// The rates, with the usual ones for what is not given.
    #[must_use]
    pub fn rates(&self, usual: Rates) -> Rates {
        let given = |rate: Option<f64>, usual: f64| rate.map_or(usual, |rate| rate * 1e9);
        Rates {
            disk: given(self.disk_rate, usual.disk),
            compute: given(self.compute_rate, usual.compute),
        }
    }

    /// A device with the rates of the machine.
    #[must_use]
    pub fn on(&self, execution: Execution) -> Execution {
        let rates = self.rates(execution.rates());
        execution.with_rates(rates)
    }

    /// The note before a run about what it takes besides memory, of which a run says more itself. There is no
    /// usual rate of a device, so there is no time without one that was given.
    #[must_use]
    pub fn note(&self, estimate: &Estimate, execution: &Execution) -> String {
        let disk = bytes(estimate.disk_bytes);
        if !execution.is_on_cpu() && self.compute_rate.is_none() {
            return format!(
                "takes about {disk} of disk; --compute-rate GFLOP/s of the device has the time estimated"
            );
        }
        let rates = said(execution.rates());
        format!("takes about {disk} of disk and {} at {rates}", estimate.time())
    }
}

/// Rates in the units of the options.
pub(crate) fn said(rates: Rates) -> String {
    format!(
        "{} GB/s and {} GFLOP/s (--disk-rate, --compute-rate)",
        rates.disk / 1e9,
        rates.compute / 1e9
    )
}
