//! Cards of the models that a pruned model was made of.

use std::path::{Path, PathBuf};

/// The file that the Hugging Face Hub shows as a model's card.
pub const CARD_FILE: &str = "README.md";

/// Where the card of the model that was pruned lies in the result.
pub const BASE_CARD_FILE: &str = "README.base.md";

/// How many models back cards are kept.
const FURTHEST: u32 = 999;

/// Where in a pruned model the copy of a file of its source is, both relative to the model.
///
/// Names stay, but for cards. `README.md` tells of the source, scores included, and is no card of the result, so it
/// becomes `README.base.md`. A model that was pruned before has one of these already, which becomes
/// `README.base.2.md`, and so on.
///
/// ```
/// use std::path::Path;
/// use moeprune_checkpoint::place_of_copy;
///
/// assert_eq!(place_of_copy(Path::new("README.md")), Path::new("README.base.md"));
/// assert_eq!(place_of_copy(Path::new("docs/README.md")), Path::new("docs/README.md"));
/// ```
#[must_use]
pub fn place_of_copy(relative: &Path) -> PathBuf {
    let mut parts = relative.components();
    let first = parts.next().and_then(|first| first.as_os_str().to_str());
    let Some((stem, back)) = first.and_then(card) else { return relative.to_owned() };
    let name = match back {
        0 => format!("{stem}.base.md"),
        _ => format!("{stem}.base.{}.md", back + 1),
    };
    // A folder may have the name of a card, and must not lie where that is to be.
    [Path::new(&name), parts.as_path()].iter().filter(|part| **part != Path::new("")).collect()
}

/// Whether a file is a card that is not kept any more.
pub(super) fn is_too_far_back(relative: &Path) -> bool {
    let back = relative.to_str().and_then(card).map(|(_, back)| back);
    back == Some(FURTHEST)
}

/// `README` as the name of a card spells it, and how many models that card is back from the one that it lies in.
fn card(name: &str) -> Option<(&str, u32)> {
    let name = name.strip_suffix(".md")?;
    let stem = name.get(.."README".len()).filter(|stem| stem.eq_ignore_ascii_case("README"))?;
    let back = match &name[stem.len()..] {
        "" => 0,
        ".base" => 1,
        rest => {
            let digits = rest.strip_prefix(".base.")?;
            digits.parse().ok().filter(|back: &u32| *back > 1 && back.to_string() == digits)?
        }
    };
    (back <= FURTHEST).then_some((stem, back))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_move_back_by_one_and_other_files_stay() {
        let check = |from: &str, to: &str| {
            assert_eq!(place_of_copy(Path::new(from)), Path::new(to), "{from}");
        };
        check("README.md", "README.base.md");
        check("README.base.md", "README.base.2.md");
        check("README.base.2.md", "README.base.3.md");
        check("README.base.998.md", "README.base.999.md");
        // Some file systems take no notice of case.
        check("Readme.md", "Readme.base.md");
        check("README.md/notes.txt", "README.base.md/notes.txt");
        for other in [
            "README",
            "README.txt",
            "README_zh.md",
            "README.base.0.md",
            "README.base.1.md",
            "README.base.02.md",
            "README.base.+2.md",
            "README.base.1000.md",
            "README.base.99999999999.md",
            "READ.md",
            "READMÉ.md",
            "docs/README.md",
            "LICENSE",
            "",
        ] {
            check(other, other);
        }
    }

    #[test]
    fn no_two_files_come_to_one_place() {
        assert!(is_too_far_back(Path::new("README.base.999.md")));
        let names = (0..1100).map(|back| format!("README.base.{back}.md"));
        let names = names.chain(["README.md".into(), "README.base.md".into()]);
        let kept: Vec<_> = names.filter(|name| !is_too_far_back(Path::new(name))).collect();
        let places = kept.iter().map(|name| place_of_copy(Path::new(name)));
        let places: std::collections::BTreeSet<_> = places.collect();
        assert_eq!(places.len(), kept.len());
    }
}
