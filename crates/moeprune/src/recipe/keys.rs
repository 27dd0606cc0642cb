//! Unknown keys, and what was probably meant.

/// The known name most like this one, if any is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let like = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), other);
    known
        .into_iter()
        .map(|other| (like(other), other))
        .filter(|(likeness, _)| *likeness > 0.75)
        // The first of equally near ones, which a maximum would not give.
        .reduce(|best, other| if other.0 > best.0 { other } else { best })
        .map(|(_, other)| other)
}

/// Says that a name is not among those known.
pub(crate) fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let guess = nearest(name, known.iter().copied());
    let guess = guess.map(|guess| format!("; did you mean `{guess}`?")).unwrap_or_default();
    if known.is_empty() {
        return format!("{what}: there is no `{name}`, as it takes none");
    }
    format!("{what}: there is no `{name}`{guess} There are: {}", known.join(", "))
        .replacen("` There", "`. There", 1)
}

/// Refuses keys of a recipe that `known` lacks. Tables of a stage's parameters are the stage's
/// business.
pub(super) fn check(given: &toml::Table, known: &toml::Table, path: &str) -> Result<(), String> {
    for (key, value) in given {
        match (known.get(key), value) {
            (None, _) => {
                let what = if path.is_empty() { "unknown key" } else { path };
                return Err(unknown(what, key, known.keys().map(String::as_str)));
            }
            (Some(toml::Value::Table(inner)), toml::Value::Table(given))
                if !inner.contains_key("name") =>
            {
                let dot = if path.is_empty() { "" } else { "." };
                check(given, inner, &format!("{path}{dot}{key}"))?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let known = ["similarity", "clustering", "sparsity", "budget"];
        assert_eq!(nearest("similarty", known), Some("similarity"));
        assert_eq!(nearest("Sparsity", known), Some("sparsity"));
        assert_eq!(nearest("zzz", known), None);
        let text = unknown("experts", "similarty", known);
        assert_eq!(
            text,
            "experts: there is no `similarty`; did you mean `similarity`? There are: similarity, \
             clustering, sparsity, budget"
        );
        assert_eq!(unknown("x", "zzz", ["a"]), "x: there is no `zzz`. There are: a");
    }
}
