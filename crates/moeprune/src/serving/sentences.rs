//! A cut as plain sentences: what `plan` prints and reports hold.

use super::{Cut, EngineContainer, Verdict, YesNo, parallel::listed};

impl Cut {
    /// Which engines load it, and over how many devices it divides evenly.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        let of = |answer: YesNo| self.engines.iter().filter(move |v| v.loads == answer);
        let loads: Vec<String> = of(YesNo::Yes).map(with_forms).collect();
        if !loads.is_empty() {
            sentences.push(format!("Engines that load it: {}.", loads.join(", ")));
        }
        let not: Vec<String> = of(YesNo::No).map(with_notes).collect();
        if !not.is_empty() {
            sentences.push(format!("Engines that do not load it: {}.", not.join("; ")));
        }
        let unknown: Vec<String> = of(YesNo::Unknown).map(with_notes).collect();
        if !unknown.is_empty() {
            sentences.push(format!(
                "Whether these engines load it is not known: {}.",
                unknown.join("; ")
            ));
        }
        if !self.experts.is_empty() {
            sentences.push(self.devices());
        }
        sentences
    }

    fn devices(&self) -> String {
        let experts = match self.experts[..] {
            [1] => "1 expert per layer divides".into(),
            [count] => format!("{count} experts per layer divide"),
            _ => "The experts of every layer divide".into(),
        };
        format!(
            "{experts} evenly over these usual numbers of devices: {} (expert parallel); widths and \
             heads over {} (tensor parallel).",
            listed(&self.parallel.experts),
            listed(&self.parallel.tensors)
        )
    }
}

fn name(verdict: &Verdict) -> String {
    match verdict.container {
        EngineContainer::Gguf if verdict.converts => {
            format!("{} {} once converted to GGUF", verdict.engine, verdict.version)
        }
        _ => format!("{} {}", verdict.engine, verdict.version),
    }
}

/// The name, with what there is to say of the forms of the weights.
fn with_forms(verdict: &Verdict) -> String {
    let name = name(verdict);
    match &verdict.of_forms[..] {
        [] => name,
        forms => format!("{name} ({})", forms.join("; ")),
    }
}

fn with_notes(verdict: &Verdict) -> String {
    let name = format!("{} {}", verdict.engine, verdict.version);
    if verdict.notes.is_empty() { name } else { format!("{name} ({})", verdict.notes.join("; ")) }
}
