//! What an engine loads and what it asks of a cut, as data: the files of the folder `engines`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Every file of the folder `engines` of this crate.
const BUILT_IN: [&str; 4] = [
    include_str!("../../engines/transformers.toml"),
    include_str!("../../engines/vllm.toml"),
    include_str!("../../engines/sglang.toml"),
    include_str!("../../engines/llama_cpp.toml"),
];

/// A program that serves models, in the version that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Engine {
    /// Its name.
    pub name: String,
    /// The version that the answers are of.
    pub version: String,
    /// Which files it loads.
    pub container: EngineContainer,
    /// What it asks of numbers of experts.
    pub counts: CountRules,
    /// What single kernels of it ask; where one cannot be used, another may be.
    pub kernels: Vec<KernelRule>,
    /// Whether it loads a family, by the family's name.
    pub families: BTreeMap<String, FamilyAnswer>,
    /// The same by `model_type` of config.json, of types that it does not treat as their family.
    pub model_types: BTreeMap<String, FamilyAnswer>,
}

/// Files of weights that an engine loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new one must be answered")]
pub enum EngineContainer {
    /// What models are published as.
    #[default]
    Safetensors,
    /// What the engine's converter makes of that.
    Gguf,
}

/// What was read or tried, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Source {
    /// The issue, the package and file, or the trial.
    pub what: String,
    /// Year and month, and the day if it is known: `2026-11-28`.
    pub date: String,
}

/// An answer. It has a source unless it is that nothing is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The answer.
    pub answer: T,
    /// The same in words, or what there is besides.
    pub says: Option<String>,
    /// Where it comes from.
    pub source: Option<Source>,
}

/// Whether something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between")]
pub enum YesNo {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// No source was found.
    Unknown,
}

/// Whether a count must be a multiple of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between")]
pub enum Multiple {
    /// It must.
    Divides,
    /// It need not.
    Any,
    /// No source was found.
    Unknown,
}

/// What an engine makes of layers behind the decoder's (multi-token prediction).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new one must be answered")]
pub enum ExtraHandling {
    /// It builds them with the decoder's number of experts.
    Same,
    /// It does not load them.
    Ignored,
    /// No source was found.
    Unknown,
}

/// What an engine asks of numbers of experts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountRules {
    /// The most experts of a layer, if there is a limit that is known.
    pub at_most: Option<(usize, Source)>,
    /// Whether layers may have different numbers, listed in the config.
    pub per_layer: Answer<YesNo>,
    /// Whether the count must be a multiple of the expert-parallel size.
    pub expert_parallel: Answer<Multiple>,
    /// Whether the count must be a multiple of a router's groups.
    pub groups: Answer<Multiple>,
    /// What it makes of layers behind the decoder's.
    pub extra_layers: Answer<ExtraHandling>,
}

/// What one kernel asks of the number of experts of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelRule {
    /// Which kernel.
    pub name: String,
    /// The most experts.
    pub at_most: Option<usize>,
    /// What the number must be a multiple of; 1 if of nothing.
    pub multiple_of: usize,
    /// The form of weights that it is for, as `quantization_config.quant_method` of config.json says;
    /// `None`: any.
    pub weights: Option<String>,
    /// The same in words.
    pub says: String,
    /// Where it comes from.
    pub source: Source,
}

/// Whether an engine loads a family.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FamilyAnswer {
    /// Whether it does.
    pub loads: Answer<YesNo>,
    /// The last version that did, of an engine that does no longer.
    pub until: Option<String>,
}

/// A file of the folder `engines` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// It is no TOML, or has other keys.
    #[error("an engine's file: {0}")]
    Toml(#[from] toml::de::Error),
    /// It contradicts itself.
    #[error("the file of engine {engine}: {problem}")]
    Wrong {
        /// Its name.
        engine: String,
        /// What is wrong.
        problem: String,
    },
}

impl Engine {
    /// The engines that are built in.
    #[must_use]
    pub fn built_in() -> Vec<Self> {
        let parse = |text| Self::from_toml(text).expect("built-in files are tested");
        BUILT_IN.into_iter().map(parse).collect()
    }

    /// Reads a file of the folder `engines`.
    ///
    /// ```
    /// let engine = moeprune::serving::Engine::from_toml(r#"
    ///     name = "mine"
    ///     version = "1.0"
    ///     container = "safetensors"
    ///     [counts]
    ///     per_layer = { answer = "no", source = "code" }
    ///     expert_parallel = { answer = "unknown" }
    ///     groups = { answer = "unknown" }
    ///     extra_layers = { answer = "unknown" }
    ///     [sources.code]
    ///     what = "src/experts.py of mine 1.0"
    ///     date = "2026-11"
    ///     [families]
    ///     mixtral = { loads = "yes", source = "code" }
    /// "#)?;
    /// assert_eq!(engine.families["mixtral"].loads.source.as_ref().unwrap().date, "2026-11");
    /// # Ok::<(), moeprune::serving::EngineError>(())
    /// ```
    ///
    /// # Errors
    /// If a key is unknown or missing, an answer other than "unknown" has no source, a source is not
    /// listed or has no date, or a listed one is never used.
    pub fn from_toml(text: &str) -> Result<Self, EngineError> {
        let file: EngineFile = toml::from_str(text)?;
        let engine = file.name.clone();
        file.resolve().map_err(|problem| EngineError::Wrong { engine, problem })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EngineFile {
    name: String,
    version: String,
    container: EngineContainer,
    counts: CountsTable,
    #[serde(default)]
    kernels: Vec<KernelTable>,
    sources: BTreeMap<String, Source>,
    families: BTreeMap<String, FamilyTable>,
    #[serde(default)]
    model_types: BTreeMap<String, FamilyTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountsTable {
    at_most: Option<AtMostTable>,
    per_layer: AnswerTable<YesNo>,
    expert_parallel: AnswerTable<Multiple>,
    groups: AnswerTable<Multiple>,
    extra_layers: AnswerTable<ExtraHandling>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AtMostTable {
    experts: usize,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "T: DeserializeOwned")]
struct AnswerTable<T> {
    answer: T,
    says: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelTable {
    name: String,
    at_most: Option<usize>,
    #[serde(default = "one")]
    multiple_of: usize,
    weights: Option<String>,
    says: String,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FamilyTable {
    loads: YesNo,
    until: Option<String>,
    says: Option<String>,
    source: Option<String>,
}

fn one() -> usize {
    1
}

/// The sources of a file, and which of them were asked for.
struct Sources {
    listed: BTreeMap<String, Source>,
    used: Vec<String>,
}

impl EngineFile {
    fn resolve(self) -> Result<Engine, String> {
        let mut sources = Sources { listed: self.sources, used: Vec::new() };
        sources.check_dates()?;
        let CountsTable { at_most, per_layer, expert_parallel, groups, extra_layers } = self.counts;
        let at_most =
            at_most.map(|most| Ok::<_, String>((most.experts, sources.named(&most.source)?)));
        let counts = CountRules {
            at_most: at_most.transpose()?,
            per_layer: sources.answer(per_layer, YesNo::Unknown)?,
            expert_parallel: sources.answer(expert_parallel, Multiple::Unknown)?,
            groups: sources.answer(groups, Multiple::Unknown)?,
            extra_layers: sources.answer(extra_layers, ExtraHandling::Unknown)?,
        };
        let mut kernels = Vec::new();
        for KernelTable { name, at_most, multiple_of, weights, says, source } in self.kernels {
            if multiple_of == 0 {
                return Err(format!("{name}: a number cannot be a multiple of 0"));
            }
            let source = sources.named(&source)?;
            kernels.push(KernelRule { name, at_most, multiple_of, weights, says, source });
        }
        let families = sources.families(self.families)?;
        let model_types = sources.families(self.model_types)?;
        sources.check_used()?;
        let Self { name, version, container, .. } = self;
        Ok(Engine { name, version, container, counts, kernels, families, model_types })
    }
}

impl Sources {
    fn named(&mut self, key: &str) -> Result<Source, String> {
        self.used.push(key.to_owned());
        let source = self.listed.get(key).cloned();
        source.ok_or_else(|| format!("there is no [sources.{key}]"))
    }

    fn answer<T: PartialEq>(
        &mut self,
        table: AnswerTable<T>,
        unknown: T,
    ) -> Result<Answer<T>, String> {
        let AnswerTable { answer, says, source } = table;
        if source.is_none() && answer != unknown {
            return Err("an answer other than \"unknown\" has no source".into());
        }
        let source = source.map(|key| self.named(&key)).transpose()?;
        Ok(Answer { answer, says, source })
    }

    fn families(
        &mut self,
        tables: BTreeMap<String, FamilyTable>,
    ) -> Result<BTreeMap<String, FamilyAnswer>, String> {
        let mut answers = BTreeMap::new();
        for (name, FamilyTable { loads, until, says, source }) in tables {
            if until.is_some() && loads != YesNo::No {
                return Err(format!("{name}: `until` is for what is loaded no longer"));
            }
            let table = AnswerTable { answer: loads, says, source };
            let loads = self.answer(table, YesNo::Unknown)?;
            answers.insert(name, FamilyAnswer { loads, until });
        }
        Ok(answers)
    }

    fn check_dates(&self) -> Result<(), String> {
        for (key, Source { what, date }) in &self.listed {
            if what.is_empty() || !is_date(date) {
                return Err(format!(
                    "[sources.{key}] has the date `{date}`; write what was read, and YYYY-MM-DD or YYYY-MM"
                ));
            }
        }
        Ok(())
    }

    fn check_used(&self) -> Result<(), String> {
        let unused = self.listed.keys().find(|key| !self.used.contains(key));
        unused.map_or(Ok(()), |key| Err(format!("nothing refers to [sources.{key}]")))
    }
}

fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut number = |digits: usize, most: u32| {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
        let value: u32 = part.parse().ok().filter(|_| is_number)?;
        (1..=most).contains(&value).then_some(())
    };
    let is_month = number(4, 9999).is_some() && number(2, 12).is_some();
    let is_day = text.len() == 7 || number(2, 31).is_some();
    is_month && is_day && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let check = |text, expected| assert_eq!(is_date(text), expected, "{text}");
        check("2026-11-28", true);
        check("2026-11", true);
        check("2026", false);
        check("2026-13", false);
        check("2026-11-32", false);
        check("2026-11-28-1", false);
        check("26-11-2028", false);
        check("", false);
    }

    const FILE: &str = r#"
        name = "mine"
        version = "1"
        container = "gguf"
        [counts]
        per_layer = { answer = "no", source = "code" }
        expert_parallel = { answer = "unknown" }
        groups = { answer = "unknown" }
        extra_layers = { answer = "unknown" }
        [sources.code]
        what = "its code"
        date = "2026-11"
        [families]
        mixtral = { loads = "unknown" }
    "#;

    #[test]
    fn what_is_refused() {
        assert!(Engine::from_toml(FILE).is_ok());
        let check = |from: &str, to: &str, expected: &str| {
            assert!(FILE.contains(from), "{from}");
            let error = Engine::from_toml(&FILE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("loads = \"unknown\"", "loads = \"yes\"", "has no source");
        check("source = \"code\"", "source = \"other\"", "no [sources.other]");
        check("2026-11", "November", "YYYY-MM-DD");
        check("answer = \"no\", source = \"code\"", "answer = \"unknown\"", "nothing refers to");
        check("loads = \"unknown\"", "loads = \"unknown\", until = \"0\"", "loaded no longer");
        check("container", "containers", "containers");
    }
}
