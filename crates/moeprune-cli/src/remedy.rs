//! What to do about an error, with the options of the command line.

use moeprune::{
    Error, Remedy,
    engine::{BudgetSpread, Error as EngineError},
    recipe::Budget,
};

/// An error as it is printed: what is wrong, and which options would help.
#[must_use]
pub fn explain(error: &Error) -> String {
    match error {
        Error::Engine(error) => of_engine(error),
        Error::Variant { name, error } => format!("{name}: {}", explain(error)),
        error => error.to_string(),
    }
}

fn of_engine(error: &EngineError) -> String {
    match error {
        EngineError::Refused { problem, remedy } => format!("{problem}; {}", in_options(*remedy)),
        EngineError::DeviceMemory { remedy, .. } => {
            // The remedy ends the message.
            let message = error.to_string();
            let problem = message.strip_suffix(&remedy.to_string()).unwrap_or(&message);
            format!("{problem}{}", in_options(*remedy))
        }
        EngineError::Kept { error, folder } => format!(
            "{}\n  what is done is kept in {folder}: run the same command with --resume to continue \
             it, or delete that folder",
            of_engine(error)
        ),
        EngineError::Unfinished { folder } => format!(
            "an interrupted run left finished work in {folder}: run with --resume to continue it, \
             or delete that folder to start over"
        ),
        error => error.to_string(),
    }
}

const WHOLE_EXPERTS: &str = "remove whole experts only: `moeprune plan` with --sparsity equal to \
                             --expert-sparsity and then `moeprune apply`, or --keep FILE";

fn in_options(remedy: Remedy) -> String {
    match remedy {
        Remedy::FewerExperts { at_most: Some(share) } => {
            format!("lower --expert-sparsity to at most {share:.4}")
        }
        Remedy::MoreExperts { at_least } => {
            format!("raise --expert-sparsity, and --sparsity with it, to at least {at_least:.4}")
        }
        Remedy::FewerExperts { at_most: None } => "lower --expert-sparsity".into(),
        Remedy::FewerExpertsOrNoProtection => {
            "lower --expert-sparsity or leave --protect-super-experts out".into()
        }
        Remedy::LargerTotal => "raise --sparsity, lower --expert-sparsity, or give both the same \
                                share to remove experts only"
            .into(),
        Remedy::Spread(spread) => {
            let budget = match spread {
                BudgetSpread::Uniform => Budget::Uniform,
                BudgetSpread::Global => Budget::Global,
            };
            format!("use --budget {budget}")
        }
        Remedy::MoreSubsets => "allow more with --criterion exhaustive:most_subsets=N, or rank or \
                                group experts instead"
            .into(),
        Remedy::PruneOrDropExtra => "use --mtp prune, or --mtp drop to leave it out".into(),
        Remedy::DropExtra => "use --mtp drop to leave it out".into(),
        Remedy::WholeExperts => WHOLE_EXPERTS.into(),
        Remedy::KeepList => "pass it with --keep FILE".into(),
        Remedy::NoRepair => "pass --repair none".into(),
        Remedy::Requantise => "pass --requantise to write them so, or --repair none".into(),
        Remedy::MaskOnly => "make the plan with --scorer wanda or --scorer magnitude (`plan`, `prune`)".into(),
        Remedy::SelectOne => "make the plan with --survivor nearest or --survivor busiest, without parameters (`plan`, `prune`)".into(),
        Remedy::ScoreOrWrite => {
            "use --scorer wanda or magnitude, or write the model with `moeprune prune`".into()
        }
        Remedy::DefaultType => "leave --dtype out".into(),
        Remedy::MicroBatch(blocks) => format!("--micro-batch {blocks} would fit"),
        Remedy::FewerTokens { percent } => format!(
            "with --micro-batch 1, hidden states of {percent:.0} % as many tokens would fit: use \
             fewer --samples or a shorter --seq-len"
        ),
        Remedy::LargerDevice { needed } => format!(
            "one expert at a time with a single block already needs {:.1} GB: use a shorter \
             --seq-len, a larger device, or --device cpu",
            needed as f64 / 1e9
        ),
        Remedy::NotOneDevice => "evaluate with --device cpu, or in an engine that spreads a model \
                                 over several devices"
            .into(),
        other => of_statistics(other),
    }
}

/// Where sums come from.
fn of_statistics(remedy: Remedy) -> String {
    match remedy {
        Remedy::Calibration => "pass --calibration FILE".into(),
        Remedy::IndependentStatistics => "use --expert-statistics independent".into(),
        Remedy::Observation => "run `moeprune observe` first and pass --observation FILE".into(),
        Remedy::Statistics => {
            "pass --calibration FILE, or --observation FILE for statistics of the unpruned model"
                .into()
        }
        other => of_parts(other),
    }
}

/// What is done in one piece, and all that has no option.
fn of_parts(remedy: Remedy) -> String {
    match remedy {
        Remedy::ObservationOrNoParts => {
            "pass --observation FILE, which `moeprune observe --part` and `moeprune merge` make on several machines, in \
             place of --calibration; or leave --part out, to write the model in one piece on one machine"
                .into()
        }
        Remedy::NoParts => {
            "leave --part out, to write the model in one piece on one machine".into()
        }
        other => other.to_string(),
    }
}
