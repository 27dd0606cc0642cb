//! What an evaluation found.

use moeprune_eval::{DivergenceReport, PerplexityReport};
use serde_json::{Map, Value, json};

use super::PERPLEXITY;
use crate::Error;

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "what tasks and perplexity give")]
pub enum Score {
    /// Answers and how many were right.
    Answers(moeprune_eval::EvalReport),
    /// Mean negative log-likelihood.
    Perplexity(PerplexityReport),
    /// How far predictions are from another model's.
    Divergence(DivergenceReport),
}

impl Score {
    /// The result as JSON: `task`, `n`, one key per metric with its mean and one with its standard
    /// error, what answers are as texts under `degradation`, and every answer; for perplexity `tokens`, `nll` and
    /// `perplexity`; of a model held against another the fields of [`DivergenceReport`].
    ///
    /// # Errors
    /// If a number is not finite, which no score has.
    pub fn to_json(&self) -> Result<Value, Error> {
        let bad = |e: serde_json::Error| Error::Request(format!("not JSON: {e}"));
        match self {
            Self::Answers(report) => {
                let mut json = Map::new();
                json.insert("task".into(), json!(report.task));
                json.insert("n".into(), json!(report.n));
                json.insert("fewshot".into(), json!(report.fewshot));
                for (metric, estimate) in &report.metrics {
                    json.insert(metric.clone(), json!(estimate.mean));
                    json.insert(format!("{metric}_stderr"), json!(estimate.stderr));
                }
                for (key, parts) in [("groups", &report.groups), ("subjects", &report.subjects)] {
                    if !parts.is_empty() {
                        json.insert(key.into(), serde_json::to_value(parts).map_err(bad)?);
                    }
                }
                if let Some(texts) = report.degradation() {
                    json.insert("degradation".into(), json!(texts));
                }
                let answers = serde_json::to_value(&report.answers).map_err(bad)?;
                json.insert("answers".into(), answers);
                Ok(Value::Object(json))
            }
            Self::Perplexity(report) => {
                let mut json = serde_json::to_value(report).map_err(bad)?;
                json["task"] = json!(PERPLEXITY);
                Ok(json)
            }
            Self::Divergence(report) => {
                let mut json = serde_json::to_value(report).map_err(bad)?;
                json["task"] = json!(PERPLEXITY);
                Ok(json)
            }
        }
    }

    /// The mean of a metric, for example `strict-match`.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        match self {
            Self::Answers(report) => report.metrics.get(name).map(|estimate| estimate.mean),
            Self::Perplexity(report) => (name == PERPLEXITY).then_some(report.perplexity),
            Self::Divergence(report) => (name == PERPLEXITY).then_some(report.perplexity),
        }
    }
}
