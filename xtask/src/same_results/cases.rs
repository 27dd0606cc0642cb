//! What is recorded: models, recipes, calibration text.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::embedded;

/// A model and how much calibration text it reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    /// Its folder in a record.
    pub(super) name: &'static str,
    /// Its folder below the repository's root.
    folder: &'static str,
    /// Calibration blocks and tokens in each. Most experts see more tokens than they have inputs, so SparseGPT has
    /// work to do.
    pub(super) blocks: [usize; 2],
}

/// Arctic's shape with a tokenizer; Arctic's and Mixtral's with neither tokenizer nor training, the latter in
/// shards.
pub(super) const MODELS: [Model; 3] = [
    Model { name: "nano", folder: "assets/nano", blocks: [16, 128] },
    Model { name: "arctic", folder: "assets/parity/arctic", blocks: [12, 64] },
    Model { name: "mixtral_sharded", folder: "assets/parity/mixtral_sharded", blocks: [12, 64] },
];

impl Model {
    /// Where it is.
    pub(super) fn directory(&self) -> PathBuf {
        embedded::root().join(self.folder)
    }

    /// Writes the calibration text to `file`: the model's own if it has a tokenizer, else lines of token ids that
    /// are always the same.
    pub(super) fn write_calibration(&self, file: &Path) -> Result<()> {
        let directory = self.directory();
        if directory.join("tokenizer.json").exists() {
            let own = embedded::calibration();
            fs::copy(&own, file).with_context(|| format!("cannot copy {}", own.display()))?;
            return Ok(());
        }
        let config = directory.join("config.json");
        let config = fs::read(&config).with_context(|| format!("no {}", config.display()))?;
        let config: Value = serde_json::from_slice(&config)?;
        let vocabulary = config["vocab_size"].as_u64().context("config.json has no vocab_size")?;
        fs::write(file, token_lines(vocabulary, 32, 2 * self.blocks[1]))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// JSON lines of token ids. Low ids are more frequent, as in text.
fn token_lines(vocabulary: u64, lines: usize, tokens: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) % n
    };
    let mut text = String::new();
    for _ in 0..lines {
        let ids: Vec<u64> = (0..tokens).map(|_| below(vocabulary).min(below(vocabulary))).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", json!({ "tokens": ids }));
    }
    text
}

/// A recipe, as options of the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    /// Its folder below a model's.
    pub(super) name: &'static str,
    /// Options for `plan` and `prune`.
    pub(super) options: &'static [&'static str],
    /// What `apply` gets.
    pub(super) statistics: Statistics,
    /// Calibration blocks and tokens in each, if not the model's.
    pub(super) blocks: Option<[usize; 2]>,
}

/// What `apply` knows of the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statistics {
    /// It runs the calibration text.
    Calibration,
    /// It reads the observation.
    Observation,
    /// Nothing.
    None,
}

const fn recipe(name: &'static str, options: &'static [&'static str]) -> Recipe {
    Recipe { name, options, statistics: Statistics::Calibration, blocks: None }
}

/// One for each way through the pipeline. Each names its recipe, without which `prune` may repair experts.
pub(super) const RECIPES: [Recipe; 12] = [
    recipe("default", &["--recipe", "arctic"]),
    recipe("reap", &["--recipe", "reap"]),
    Recipe {
        statistics: Statistics::Observation,
        ..recipe("stored", &["--recipe", "arctic", "--statistics", "stored"])
    },
    recipe("sparsegpt", &["--recipe", "arctic", "--scorer", "sparsegpt"]),
    recipe("two-of-four", &["--recipe", "arctic", "--pattern", "2:4"]),
    recipe("hc-smoe", &["--recipe", "hc-smoe"]),
    recipe("reference", &["--recipe", "reference"]),
    Recipe {
        statistics: Statistics::None,
        ..recipe(
            "experts-only",
            &["--recipe", "arctic", "--sparsity", "0.25", "--expert-sparsity", "0.25"],
        )
    },
    recipe("weights-only", &["--recipe", "arctic", "--sparsity", "0.5", "--expert-sparsity", "0"]),
    // Layers that differ, hence a list in config.json.
    recipe("global", &["--recipe", "arctic", "--budget", "global", "--similarity", "mixed"]),
    recipe(
        "averages",
        &["--recipe", "arctic", "--survivor", "average", "--similarity", "coactivation"],
    ),
    // Few tokens: experts that none of them reaches.
    Recipe { blocks: Some([1, 8]), ..recipe("idle", &["--recipe", "arctic"]) },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_lines_are_always_the_same_and_within_the_vocabulary() {
        let lines = token_lines(50, 4, 30);
        assert_eq!(lines, token_lines(50, 4, 30));
        assert_eq!(lines.lines().count(), 4);
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let tokens = line["tokens"].as_array().unwrap();
            assert_eq!(tokens.len(), 30);
            assert!(tokens.iter().all(|id| id.as_u64().unwrap() < 50));
        }
    }

    #[test]
    fn cases_have_folders_of_their_own() {
        let names: std::collections::BTreeSet<_> = RECIPES.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), RECIPES.len());
        assert!(MODELS.iter().all(|model| model.directory().join("config.json").exists()));
    }
}
