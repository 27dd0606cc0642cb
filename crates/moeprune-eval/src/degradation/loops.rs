//! Whether an answer ends in a loop.

/// How often a piece of text must stand at the end, one right after the other, for the end to be a loop.
///
/// People say a thing twice; the same piece of text thrice in a row, with nothing after it, is what a model writes that
/// has no way out.
pub const LOOP_REPETITIONS: usize = 3;

/// How many characters the repetitions must have together, for a short piece to be a loop.
///
/// What stands at the end of good answers is shorter: a recurring decimal (17 digits), three dots, a line of dashes
/// under a sum.
pub const LOOP_CHARACTERS: usize = 60;

/// Whether a text ends in a loop: in a piece of text that stands there at least [`LOOP_REPETITIONS`] times, one right
/// after the other, over at least [`LOOP_CHARACTERS`] characters.
///
/// With `c₁ … cₙ` the characters (Unicode scalar values) of the text, it is a loop if there is a period `p ≥ 1` and a
/// length `m ≥ max(3 p, 60)`, `m ≤ n`, so that `cᵢ = cᵢ₋ₚ` for the last `m - p` characters. The last repetition may be cut
/// off, as it is where an answer was as long as it might be. White space at the end, and what is left of a character
/// that was cut off there (U+FFFD), may be ignored.
///
/// It takes time in proportion to the text's length.
///
/// ```
/// # use moeprune_eval::ends_in_loop;
/// assert!(ends_in_loop(&"So he has 18 eggs left. ".repeat(4)));
/// assert!(ends_in_loop(&format!("The answer is {}", "0".repeat(80))));
/// assert!(!ends_in_loop("9 * 2 = <<9*2=18>>18 dollars a day.\n#### 18"));
/// assert!(!ends_in_loop("1 / 3 = 0.3333333333333333"));
/// ```
pub fn ends_in_loop(text: &str) -> bool {
    let mut backwards: Vec<char> = text.chars().rev().collect();
    if is_periodic(&backwards) {
        return true;
    }
    // A character that was cut off becomes one such sign, or one for each of its bytes but the last.
    let cut = backwards.iter().take(3).take_while(|&&c| c == char::REPLACEMENT_CHARACTER).count();
    let blank = backwards[cut..].iter().take_while(|c| c.is_whitespace()).count();
    if cut + blank == 0 {
        return false;
    }
    backwards.drain(..cut + blank);
    is_periodic(&backwards)
}

/// Whether a beginning of these characters that is long enough has a short enough period.
fn is_periodic(characters: &[char]) -> bool {
    let common = common_beginnings(characters);
    let long_enough = |(period, common): (usize, &usize)| {
        period + common >= (LOOP_REPETITIONS * period).max(LOOP_CHARACTERS)
    };
    common.iter().enumerate().skip(1).any(long_enough)
}

/// For each place, how many characters from there on are those from the beginning on (the Z-function), in linear time:
/// what was compared before is not compared again.
fn common_beginnings(characters: &[char]) -> Vec<usize> {
    let mut common = vec![0; characters.len()];
    // The stretch that is known to be a beginning and reaches furthest.
    let (mut start, mut end) = (0, 0);
    for place in 1..characters.len() {
        let mut known = if place < end { common[place - start].min(end - place) } else { 0 };
        while characters.get(place + known).is_some_and(|c| *c == characters[known]) {
            known += 1;
        }
        common[place] = known;
        if place + known > end {
            (start, end) = (place, place + known);
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: bool) {
        assert_eq!(ends_in_loop(text), expected, "{text:?}");
    }

    #[test]
    fn ends_of_answers() {
        check("", false);
        check("18", false);
        check("#### 18\n\n", false);
        check("= 0.3333333333333333", false);
        check("Total:\n--------------------", false);
        check(&"no ".repeat(19), false);
        check(&"no ".repeat(20), true);
        check(&"=".repeat(59), false);
        check(&"=".repeat(60), true);
        check(&"\n".repeat(60), true);
        check(&format!("#### 18{}", "\n".repeat(59)), false);
        check(&format!("{}end", "no ".repeat(100)), false);
    }

    #[test]
    fn long_pieces_are_a_loop_the_third_time() {
        let sentence =
            "She sells the rest of her eggs at the farmers' market for two dollars each day. ";
        check(&sentence.repeat(2), false);
        check(&sentence.repeat(3), true);
        check(&format!("First. {}She sells the", sentence.repeat(3)), true);
        // The third one is not complete.
        check(&format!("{}She sells the rest", sentence.repeat(2)), false);
        // Each differs from the one before.
        let counted: String = (0..40).map(|n| format!("Step {n}: add one. ")).collect();
        check(&counted, false);
    }

    #[test]
    fn ends_that_are_cut_off() {
        let emoji = "🐑".repeat(80);
        check(&format!("{emoji}\u{fffd}"), true);
        check(&format!("{emoji}\u{fffd}\u{fffd}\u{fffd}"), true);
        check(&format!("{emoji}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"), false);
        check(&"\u{fffd}".repeat(80), true);
        check(&format!("{} \n\n", "no way. ".repeat(10)), true);
        check("三分之一，三分之一，", false);
        check(&"三分之一，".repeat(12), true);
    }

    #[test]
    fn common_beginnings_of_known_texts() {
        let check = |text: &str, expected: &[usize]| {
            let characters: Vec<char> = text.chars().collect();
            assert_eq!(common_beginnings(&characters), expected, "{text}");
        };
        check("", &[]);
        check("a", &[0]);
        check("aaaa", &[0, 3, 2, 1]);
        check("abab", &[0, 0, 2, 0]);
        check("aabaab", &[0, 1, 0, 3, 1, 0]);
    }
}
