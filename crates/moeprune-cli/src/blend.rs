//! `moeprune blend`, and observations with weights.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use moeprune_capture::{read_observation, write_observation_to};
use moeprune_files::{OutputKind, RunFiles};

use crate::table::{percent, table};
use moeprune::{Coverage, Domain, Error, blend as blend_domains};

/// A file, or `FILE=WEIGHT`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WeighedFile {
    /// What `observe` stored.
    pub(crate) path: PathBuf,
    /// How much it counts; 1 if it was left out.
    pub(crate) weight: f64,
}

impl FromStr for WeighedFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A name may have an equals sign in it; what follows a weight's is a number.
        let (path, weight) = match text.rsplit_once('=') {
            Some((path, weight)) if !path.is_empty() && !PathBuf::from(text).exists() => {
                let weight = weight.parse().ok().filter(|w: &f64| w.is_finite() && *w >= 0.0);
                (path, weight.ok_or_else(|| format!("`{text}` is not FILE=WEIGHT"))?)
            }
            _ => (text, 1.0),
        };
        Ok(Self { path: path.into(), weight })
    }
}

impl WeighedFile {
    /// Reads the observation. Its texts name the domain.
    pub(crate) fn read(&self) -> Result<Domain, Error> {
        let observation = read_observation(&self.path)?;
        let mut names: Vec<&str> = observation.corpora.iter().map(|c| c.name.as_str()).collect();
        names.dedup();
        let name = match names.as_slice() {
            [] => self.path.display().to_string(),
            names => names.join(" + "),
        };
        Ok(Domain { name, observation, weight: self.weight })
    }
}

/// Prints how much of each text survives.
pub(crate) fn print_coverage(covered: &[Coverage]) -> Result<(), Error> {
    let rows: Vec<Vec<String>> = covered
        .iter()
        .map(|c| {
            vec![
                c.domain.clone(),
                percent(c.weight),
                percent(c.routed),
                c.saliency.map_or_else(|| "-".into(), percent),
                format!("{} in layer {}", percent(c.worst), c.worst_layer),
            ]
        })
        .collect();
    line!(
        "\nwhat is kept of each text\n{}",
        table(&["text", "counts", "routed", "saliency", "least"], &rows)
    )
}

/// Options of `blend`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune blend code.obs.safetensors=0.7 prose.obs.safetensors=0.3 -o mix.obs.safetensors

Weights are for tokens: of 0.7 and 0.3, seven of ten tokens are of the first text, however long
either is. No model is run.")]
pub(crate) struct BlendArgs {
    /// What `observe` stored, each with its weight (1 if it is left out)
    #[arg(required = true, value_name = "FILE=WEIGHT")]
    observations: Vec<WeighedFile>,
    /// Where the blend goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn blend(args: &BlendArgs) -> Result<(), Error> {
    let mut files = RunFiles::new();
    files.reads_all(args.observations.iter().map(|file| &file.path));
    let output = files.claim("-o", &args.output, OutputKind::Observation)?;
    let domains = args.observations.iter().map(WeighedFile::read).collect::<Result<Vec<_>, _>>()?;
    let Some(blended) = blend_domains(&domains)? else { return Ok(()) };
    crate::interrupt::deliver(&output, |file| write_observation_to(&blended, file))?;
    let total: f64 = domains.iter().map(|domain| domain.weight).sum();
    for domain in &domains {
        line!("{}  {}", percent(domain.weight / total), domain.name)?;
    }
    line!("→ {}", args.output.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_weights() {
        let check = |text: &str, path: &str, weight: f64| {
            assert_eq!(text.parse(), Ok(WeighedFile { path: path.into(), weight }));
        };
        check("a.obs", "a.obs", 1.0);
        check("a.obs=0.25", "a.obs", 0.25);
        check("a=b.obs=2", "a=b.obs", 2.0);
        for text in ["a=b", "a=-1", "a=inf", "a="] {
            assert!(text.parse::<WeighedFile>().is_err(), "{text}");
        }
    }
}
