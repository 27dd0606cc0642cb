//! Where the experts of a model are while it answers questions.

use clap::Args;
use moeprune::Execution;

use crate::rates::RateArgs;

/// Where the experts of a model are while it answers questions.
#[derive(Debug, Clone, Copy, Default, Args)]
#[non_exhaustive]
pub struct StreamingArgs {
    /// Read experts when they are needed, even if the whole model fits into memory: each once per step for all
    /// questions that are answered together. It is slower and changes no answer; a model that does not fit is
    /// read so without it
    #[arg(long, help_heading = "Device")]
    pub stream_experts: bool,
    /// How fast the machine is, for the estimate before such a run.
    #[command(flatten)]
    pub rates: RateArgs,
}

impl StreamingArgs {
    /// A device on which experts are where these options say.
    #[must_use]
    pub fn on(&self, execution: Execution) -> Execution {
        self.rates.on(execution).with_streamed_experts(self.stream_experts)
    }
}
