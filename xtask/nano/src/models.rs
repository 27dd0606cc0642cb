//! The models that this crate trains, by name: shape and training of each.

use crate::config::Config;
use crate::train::Origin;
use clap::ValueEnum;

/// A model that can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// The embedded model: Arctic's layers, experts that are noisy copies of one MLP
    Nano,
    /// Arctic's layers, experts that were random at the first step: no two are alike
    ArcticScratch,
    /// GLM-4.5's layers: four experts per token, a shared expert, a sigmoid router with correction biases
    SigmoidShared,
}

/// The settings of one model; seed and output directory are the caller's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The shape.
    pub config: Config,
    /// What the experts are before the mixture phase.
    pub origin: Origin,
    /// Steps as a mixture of experts.
    pub steps: usize,
    /// The learning rate that the mixture phase starts from.
    pub rate: f64,
}

impl Name {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nano => "nano",
            Self::ArcticScratch => "arctic-scratch",
            Self::SigmoidShared => "sigmoid-shared",
        }
    }

    /// How the model is made.
    pub fn settings(self) -> Settings {
        match self {
            Self::Nano => Settings {
                config: Config::nano(),
                origin: Origin::Upcycled { steps: 1000, rate: 3e-3, noise: 0.3 },
                steps: 1200,
                rate: 2e-3,
            },
            Self::ArcticScratch => {
                Settings { config: Config::nano(), origin: Origin::Random, steps: 1600, rate: 3e-3 }
            }
            Self::SigmoidShared => Settings {
                config: Config::sigmoid_shared(),
                origin: Origin::Random,
                steps: 2000,
                rate: 3e-3,
            },
        }
    }
}
