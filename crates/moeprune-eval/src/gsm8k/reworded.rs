//! GSM8K's own solutions in the words of the chain-of-thought tasks.

use crate::whitespace::strip;

/// A solution without its calculator annotations, `<<48/2=24>>`, whose last line, `#### 24`, says
/// the answer between the words of `conclusion`. Without `####` the last line is left as it is.
pub(super) fn reworded(solution: &str, conclusion: (&str, &str)) -> String {
    let solution = without_annotations(solution);
    let Some((steps, answer)) = solution.rsplit_once("####") else {
        return solution;
    };
    let (before, after) = conclusion;
    let steps = steps.trim_end();
    let newline = if steps.is_empty() { "" } else { "\n" };
    [steps, newline, before.trim_start(), strip(answer), after].concat()
}

fn without_annotations(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, opened)) = rest.split_once("<<") {
        let Some((_, closed)) = opened.split_once(">>") else {
            break;
        };
        kept.push_str(before);
        rest = closed;
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_the_answer() {
        let check = |solution, expected: &str| {
            assert_eq!(reworded(solution, (" The answer is ", ".")), expected, "{solution:?}");
        };
        check("2 + 3 = <<2+3=5>>5\n#### 5", "2 + 3 = 5\nThe answer is 5.");
        check("<<1=1>>1\n<<2=2>>2\n####  1,080 \n", "1\n2\nThe answer is 1,080.");
        check("#### 5", "The answer is 5.");
        check("five #### 5", "five\nThe answer is 5.");
        check("#### 4\n#### 5", "#### 4\nThe answer is 5.");
        check("five\n####", "five\nThe answer is .");
        check("<<2+3=5>>five", "five");
        check("2 << 3 = 16\n#### 16", "2 << 3 = 16\nThe answer is 16.");
        check("8 >> 2 <<8>>2 = 2 << 0", "8 >> 2 2 = 2 << 0");
        check("", "");
    }

    #[test]
    fn the_words_are_the_task_s() {
        let check = |conclusion, expected: &str| {
            assert_eq!(reworded("five\n#### 5", conclusion), expected);
        };
        check((" The final answer is ", ""), "five\nThe final answer is 5");
        check(("\n#### ", ""), "five\n#### 5");
    }
}
