//! Entries that select modules, after experts are gone.

use std::collections::BTreeSet;

use super::{
    modules::Modules,
    pattern::{Dialect, Pattern, is_plain},
};

/// What becomes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays as it is.
    Same,
    /// The same module has another name.
    Renamed(String),
    /// Entries that select one module each; none if all that it selected is gone.
    Names(Vec<String>),
}

/// What becomes of an entry such that each module that stays is selected as it was.
///
/// # Errors
/// If the entry is a regular expression that is none, or takes too long.
pub(super) fn fate(entry: &str, dialect: Dialect, modules: &Modules) -> Result<Fate, String> {
    let plain = is_plain(entry);
    if plain && !entry.bytes().any(|b| b.is_ascii_digit()) {
        return Ok(Fate::Same); // It cannot tell one expert from another.
    }
    let numbered = if plain { modules.numbered(entry) } else { None };
    if let Some(at) = numbered
        && (at.exact && !at.after.is_empty() || dialect == Dialect::Exact)
    {
        return Ok(at.renumbered().map_or(Fate::Names(Vec::new()), Fate::Renamed));
    }
    if dialect == Dialect::Exact && !plain {
        return Ok(Fate::Same);
    }
    let pattern = dialect.pattern(entry)?;
    if let Some(at) = numbered {
        let new = at.renumbered();
        let renamed = match &new {
            Some(new) => Some(dialect.pattern(new)?),
            None => None,
        };
        if same(&pattern, renamed.as_ref(), modules)? {
            return Ok(new.map_or(Fate::Names(Vec::new()), Fate::Renamed));
        }
    } else if same(&pattern, Some(&pattern), modules)? {
        return Ok(Fate::Same);
    }
    let names = selected(&pattern, modules)?.into_iter().map(|name| dialect.one(entry, name));
    Ok(Fate::Names(names.collect()))
}

/// Whether one pattern selects of the new names what another selects of the old; `None` selects
/// nothing.
fn same(old: &Pattern, new: Option<&Pattern>, modules: &Modules) -> Result<bool, String> {
    for (before, after) in modules.of_experts() {
        let is = match new {
            Some(new) => new.selects(after)?,
            None => false,
        };
        if old.selects(before)? != is {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The new names of what a pattern selects.
fn selected<'a>(pattern: &Pattern, modules: &'a Modules) -> Result<Vec<&'a str>, String> {
    let others = modules.others().iter().map(|name| (name, name));
    let all = others.chain(modules.of_experts().iter().map(|(before, after)| (before, after)));
    let mut names = Vec::new();
    for (before, after) in all {
        if pattern.selects(before)? {
            names.push(after.as_str());
        }
    }
    Ok(names)
}

/// The entries of a list afterwards; `None` if all stay as they are.
///
/// # Errors
/// As [`fate`].
pub(super) fn list(
    entries: &[String],
    dialect: Dialect,
    modules: &Modules,
) -> Result<Option<Vec<String>>, String> {
    if dialect == Dialect::End {
        return of_each_layer(entries, modules);
    }
    let fates = fates(entries, dialect, modules)?;
    if fates.iter().all(|fate| *fate == Fate::Same) {
        return Ok(None);
    }
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut left = Vec::new();
    for (entry, fate) in entries.iter().zip(fates) {
        let entries = match fate {
            Fate::Same => vec![entry.clone()],
            Fate::Renamed(name) => vec![name],
            Fate::Names(names) => names,
        };
        left.extend(entries.into_iter().filter(|entry| known.insert(entry.clone())));
    }
    Ok(Some(left))
}

/// What becomes of each of several entries.
///
/// # Errors
/// As [`fate`].
pub(super) fn fates(
    entries: &[String],
    dialect: Dialect,
    modules: &Modules,
) -> Result<Vec<Fate>, String> {
    entries.iter().map(|entry| fate(entry, dialect, modules)).collect()
}

/// A list of ends of names, which mean the same in each layer. Most often all experts are listed; then
/// those that there are still. Else the ends get new numbers, or, where layers differ, whole names stand
/// in their place.
fn of_each_layer(entries: &[String], modules: &Modules) -> Result<Option<Vec<String>>, String> {
    let mean_the_same = |left: &[String]| {
        let any = |entries: &[String], name: &str| {
            entries.iter().any(|entry| name.ends_with(entry.as_str()))
        };
        let mut all = modules.of_experts().iter();
        all.all(|(before, after)| any(entries, before) == any(left, after))
    };
    let relative: Vec<_> = entries.iter().map(|entry| modules.relative(entry)).collect();
    let most = modules.most_experts();
    let is_left = |at: &Option<(&str, usize, &str)>| at.is_none_or(|(_, expert, _)| expert < most);
    let cut = entries.iter().zip(&relative).filter(|(_, at)| is_left(at));
    let cut: Vec<String> = cut.map(|(entry, _)| entry.clone()).collect();
    if mean_the_same(&cut) {
        return Ok((cut.len() < entries.len()).then_some(cut));
    }
    if let Some(numbers) = modules.same_everywhere() {
        let renumbered = entries.iter().zip(&relative).filter_map(|(entry, at)| {
            let Some((before, expert, after)) = at else { return Some(entry.clone()) };
            let new = numbers.get(*expert).copied().flatten()?;
            Some(format!("{before}.{new}{after}"))
        });
        let renumbered: Vec<String> = renumbered.collect();
        if mean_the_same(&renumbered) {
            return Ok(Some(renumbered));
        }
    }
    let mut named = Vec::new();
    for (entry, at) in entries.iter().zip(relative) {
        if at.is_none() && modules.numbered(entry).is_none() {
            named.push(entry.clone());
            continue;
        }
        let pattern = Dialect::End.pattern(entry)?;
        named.extend(selected(&pattern, modules)?.into_iter().map(str::to_owned));
    }
    Ok(Some(named))
}
