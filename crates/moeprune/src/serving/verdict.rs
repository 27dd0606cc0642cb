//! Whether an engine loads a model that was cut.

use std::collections::BTreeSet;

use moeprune_core::{ModelSpec, plural};
use serde::Serialize;

use super::{
    Declared, GroupRule, WeightForm,
    engine::{Answer, Engine, EngineContainer, FamilyAnswer, KernelRule, YesNo},
    experts::experts_of,
};

/// What one engine makes of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The engine.
    pub engine: String,
    /// The version that was looked at.
    pub version: String,
    /// Whether it loads the model with these numbers of experts.
    pub loads: YesNo,
    /// Files that it loads.
    pub container: EngineContainer,
    /// Whether the model has to be converted to such files first.
    #[serde(skip)]
    pub converts: bool,
    /// Why not, or what there is besides; empty if there is nothing.
    pub notes: Vec<String>,
    /// What it asks of the number of experts and makes of layers for multi-token prediction, where that
    /// matters to this model; empty if it does not load the model.
    pub rules: Vec<String>,
    /// Where the answer about the family comes from, `what (date)`.
    pub source: Option<String>,
    /// Those of the notes that are about the forms in which weights are stored.
    #[serde(skip)]
    pub(super) of_forms: Vec<String>,
}

impl Verdict {
    /// Of `engine` about a model with the experts that `spec` says, and a config that says `declared`.
    #[must_use]
    pub fn of(engine: &Engine, spec: &ModelSpec, declared: &Declared) -> Self {
        let counts = experts_of(spec);
        let most = counts.iter().copied().max().unwrap_or(0);
        let of_type = declared.model_type.as_ref().and_then(|of| engine.model_types.get(of));
        let family = of_type.or_else(|| engine.families.get(&spec.family));
        let mut loads = family.map_or(YesNo::Unknown, |family| family.loads.answer);
        let mut notes: Vec<String> = family.map(family_note).unwrap_or_default();
        if declared.container == EngineContainer::Gguf {
            // An engine made for such files loads the model that it loaded before; others were not looked at.
            (loads, notes) = match engine.container {
                EngineContainer::Gguf => (YesNo::Yes, Vec::new()),
                EngineContainer::Safetensors => {
                    (YesNo::Unknown, vec!["of GGUF files it was not looked at".to_owned()])
                }
            };
        }
        if loads != YesNo::No {
            let rules = &engine.counts;
            if counts.iter().any(|&count| count != most) {
                loads = uneven(loads, &rules.per_layer, &mut notes);
            }
            if let Some((limit, _)) = rules.at_most.as_ref().filter(|(limit, _)| most > *limit) {
                loads = YesNo::No;
                notes.push(format!("it takes at most {}", plural(*limit, "expert")));
            }
            notes.extend(kernel_notes(engine, &counts, declared.form()));
        }
        let is_foreign = declared.container == EngineContainer::Gguf
            && engine.container != EngineContainer::Gguf;
        let source = family.and_then(|family| family.loads.source.as_ref());
        Self {
            engine: engine.name.clone(),
            version: engine.version.clone(),
            loads,
            container: engine.container,
            converts: engine.container != declared.container,
            notes,
            rules: if loads == YesNo::No || is_foreign { Vec::new() } else { rules(engine, spec) },
            source: source.map(|source| format!("{} ({})", source.what, source.date)),
            of_forms: Vec::new(),
        }
    }

    /// The same of weights that are stored in `forms`.
    #[must_use]
    pub fn stored_in(mut self, engine: &Engine, forms: &BTreeSet<WeightForm>) -> Self {
        if self.loads == YesNo::No {
            return self;
        }
        for form in forms {
            let answer = engine.forms.get(form);
            let (loads, says) = match answer.map(|answer| (answer.answer, &answer.says)) {
                None | Some((YesNo::Unknown, None)) => (YesNo::Unknown, Some("not looked at")),
                Some((loads, says)) => (loads, says.as_deref()),
            };
            self.loads = match (self.loads, loads) {
                (YesNo::No, _) | (_, YesNo::No) => YesNo::No,
                (YesNo::Unknown, _) | (_, YesNo::Unknown) => YesNo::Unknown,
                (YesNo::Yes, YesNo::Yes) => YesNo::Yes,
            };
            self.of_forms.extend(says.map(|says| format!("{form}: {says}")));
        }
        if self.loads == YesNo::No {
            self.rules.clear();
        }
        self.notes.extend(self.of_forms.iter().cloned());
        self
    }
}

/// What the engine says of what the model has.
fn rules(engine: &Engine, spec: &ModelSpec) -> Vec<String> {
    let rules = &engine.counts;
    let has_groups = GroupRule::of(spec).is_some();
    let has_extra = spec.extra.as_ref().is_some_and(|extra| extra.is_stored);
    let said = [
        (true, &rules.expert_parallel.says),
        (has_groups, &rules.groups.says),
        (has_extra, &rules.extra_layers.says),
    ];
    said.into_iter().filter(|(matters, _)| *matters).filter_map(|(_, says)| says.clone()).collect()
}

fn family_note(family: &FamilyAnswer) -> Vec<String> {
    let until = family.until.as_ref().map(|version| format!("up to {version} only"));
    until.into_iter().chain(family.loads.says.clone()).collect()
}

/// Layers have different numbers of experts.
fn uneven(loads: YesNo, rule: &Answer<YesNo>, notes: &mut Vec<String>) -> YesNo {
    let says = || rule.says.clone().unwrap_or_default();
    match rule.answer {
        YesNo::Yes => loads,
        YesNo::No => {
            notes.push(format!("layers have different numbers of experts: {}", says()));
            YesNo::No
        }
        YesNo::Unknown => {
            notes.push("layers have different numbers of experts".into());
            YesNo::Unknown
        }
    }
}

/// Kernels that cannot be used for these numbers.
fn kernel_notes(engine: &Engine, counts: &[usize], form: Option<&str>) -> Vec<String> {
    let cannot = |&&count: &&usize, kernel: &KernelRule| {
        kernel.at_most.is_some_and(|most| count > most) || count % kernel.multiple_of != 0
    };
    let is_for = |kernel: &&KernelRule| {
        kernel.weights.as_deref().is_none_or(|weights| form == Some(weights))
    };
    let unused = engine.kernels.iter().filter(is_for).filter_map(|kernel| {
        let count = counts.iter().find(|count| cannot(count, kernel))?;
        let experts = plural(*count, "expert");
        Some(format!("{} does not take {experts}: {}", kernel.name, kernel.says))
    });
    unused.collect()
}
