//! The modules of a model that loses experts, and what they are called afterwards.

use std::collections::BTreeMap;

/// The modules that experts are made of, before and after some are gone.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// The new number of each expert, or `None` of one that is gone, by what stands in names before
    /// the number: `model.layers.3.mlp.experts`.
    experts: BTreeMap<String, Vec<Option<usize>>>,
    /// Modules of experts that stay: the name before and the name afterwards.
    stay: Vec<(String, String)>,
    /// All other modules.
    others: Vec<String>,
}

/// Where a name says which expert it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbered<'a> {
    /// What stands before the number.
    pub(super) before: &'a str,
    pub(super) expert: usize,
    /// What follows the number, with its dot; empty if nothing does.
    pub(super) after: &'a str,
    /// The new number.
    pub(super) renamed: Option<usize>,
    /// Whether `before` is what stands in the names of tensors, and not an end of it.
    pub(super) exact: bool,
}

impl Modules {
    /// The modules of these names, given by layer what stands before an expert's number and the new
    /// number of each.
    pub(crate) fn new<'a>(
        experts: BTreeMap<String, Vec<Option<usize>>>,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut modules = Self { experts, ..Self::default() };
        for name in names {
            match modules.numbered_exactly(name).map(|at| (at.renamed, at.renumbered())) {
                Some((Some(_), Some(new))) => modules.stay.push((name.to_owned(), new)),
                Some(_) => {}
                None => modules.others.push(name.to_owned()),
            }
        }
        modules
    }

    /// Whether every expert keeps its number.
    pub(super) fn all_stay(&self) -> bool {
        let stays = |(old, new): (usize, &Option<usize>)| *new == Some(old);
        self.experts.values().all(|numbers| numbers.iter().enumerate().all(stays))
    }

    /// Modules of experts that stay: the name before and the name afterwards.
    pub(super) fn of_experts(&self) -> &[(String, String)] {
        &self.stay
    }

    /// All modules that are of no expert.
    pub(super) fn others(&self) -> &[String] {
        &self.others
    }

    /// The most experts that a layer has afterwards.
    pub(super) fn most_experts(&self) -> usize {
        let left = |numbers: &Vec<Option<usize>>| numbers.iter().flatten().count();
        self.experts.values().map(left).max().unwrap_or_default()
    }

    /// The new numbers, if they are the same in all layers.
    pub(super) fn same_everywhere(&self) -> Option<&[Option<usize>]> {
        let mut layers = self.experts.values();
        let first = layers.next()?;
        layers.all(|numbers| numbers == first).then_some(first)
    }

    /// Where a name says which expert it is of. The name may begin otherwise than the tensors' names,
    /// as long as the layer's number and what follows it is the same.
    pub(super) fn numbered<'a>(&self, name: &'a str) -> Option<Numbered<'a>> {
        self.numbered_exactly(name).or_else(|| {
            let split = splits(name).find_map(|(before, expert, after)| {
                let numbers = self.ending_with(before)?;
                Some((before, expert, after, *numbers.get(expert)?))
            });
            let (before, expert, after, renamed) = split?;
            Some(Numbered { before, expert, after, renamed, exact: false })
        })
    }

    /// The number of the expert in a name that does not say which layer it is of: `mlp.experts.3.up_proj`.
    pub(super) fn relative<'a>(&self, name: &'a str) -> Option<(&'a str, usize, &'a str)> {
        splits(name).find(|(before, ..)| {
            self.experts.keys().any(|of_layer| {
                of_layer.strip_suffix(before).is_some_and(|rest| rest.ends_with('.'))
            })
        })
    }

    fn numbered_exactly<'a>(&self, name: &'a str) -> Option<Numbered<'a>> {
        splits(name).find_map(|(before, expert, after)| {
            let renamed = *self.experts.get(before)?.get(expert)?;
            Some(Numbered { before, expert, after, renamed, exact: true })
        })
    }

    /// The new numbers of the only layer whose names have the same end before an expert's number, the
    /// layer's number included.
    fn ending_with(&self, before: &str) -> Option<&Vec<Option<usize>>> {
        let starts = before.match_indices('.').map(|(at, _)| at + 1);
        for start in [0].into_iter().chain(starts) {
            let end = &before[start..];
            if !end.split('.').any(is_number) {
                return None;
            }
            let ends = |of_layer: &&String| {
                of_layer
                    .strip_suffix(end)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            let mut found = self.experts.keys().filter(ends);
            if let Some(only) = found.next() {
                return if found.next().is_none() { self.experts.get(only) } else { None };
            }
        }
        None
    }
}

impl Numbered<'_> {
    /// The name afterwards.
    pub(super) fn renumbered(&self) -> Option<String> {
        self.renamed.map(|new| format!("{}.{new}{}", self.before, self.after))
    }
}

/// The numbers in a name, each with what stands before and after it.
fn splits(name: &str) -> impl Iterator<Item = (&str, usize, &str)> {
    name.match_indices('.').filter_map(|(at, _)| {
        let rest = &name[at + 1..];
        let number = rest.split('.').next().filter(|part| is_number(part))?;
        Some((&name[..at], number.parse().ok()?, &rest[number.len()..]))
    })
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Modules {
        let layer = |at: usize| format!("model.layers.{at}.mlp.experts");
        let numbers = vec![Some(0), None, Some(1)];
        Modules::new(BTreeMap::from([(layer(1), numbers), (layer(11), vec![Some(0); 1])]), [])
    }

    #[test]
    fn names_say_which_expert_they_are_of() {
        let check = |name: &str, expected: Option<Option<&str>>| {
            let modules = modules();
            let got = modules.numbered(name).map(|at| at.renumbered());
            assert_eq!(got, expected.map(|new| new.map(str::to_owned)), "{name}");
        };
        let up = "model.layers.1.mlp.experts.2.up_proj";
        check(up, Some(Some("model.layers.1.mlp.experts.1.up_proj")));
        check("model.layers.1.mlp.experts.1.up_proj", Some(None));
        check("model.layers.1.mlp.experts.2", Some(Some("model.layers.1.mlp.experts.1")));
        check("model.layers.1.mlp.experts.3", None);
        check("model.layers.1.mlp.gate", None);
        check("x.layers.1.mlp.experts.2.a.b", Some(Some("x.layers.1.mlp.experts.1.a.b")));
        check("layers.1.mlp.experts.2.up", Some(Some("layers.1.mlp.experts.1.up")));
        check("1.mlp.experts.2.up", Some(Some("1.mlp.experts.1.up")));
        check("mlp.experts.2.up", None);
        check("layers.7.mlp.experts.2.up", None);
    }
}
