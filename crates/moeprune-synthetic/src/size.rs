//! Sizes as published models give them: numbers, keys of the config, and arithmetic.

use std::str::Chars;

/// The value of `expression` with `value_of` for its keys, or what is wrong with it. It has `+`, `*`,
/// `/` without a remainder, and parentheses.
pub(crate) fn size(
    expression: &str,
    value_of: &dyn Fn(&str) -> Option<usize>,
) -> Result<usize, String> {
    let mut reader = Reader { rest: expression.chars(), value_of };
    let value = reader.sum();
    let value = value.and_then(|value| match reader.peek() {
        None => Ok(value),
        Some(c) => Err(format!("an unexpected `{c}`")),
    });
    value.map_err(|problem| format!("`{expression}` has {problem}"))
}

struct Reader<'a> {
    rest: Chars<'a>,
    value_of: &'a dyn Fn(&str) -> Option<usize>,
}

impl Reader<'_> {
    fn sum(&mut self) -> Result<usize, String> {
        let mut value = self.product()?;
        while self.take('+') {
            value = value.checked_add(self.product()?).ok_or("a sum that is too large")?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<usize, String> {
        let mut value = self.factor()?;
        loop {
            if self.take('*') {
                let factor = self.factor()?;
                value = value.checked_mul(factor).ok_or("a product that is too large")?;
            } else if self.take('/') {
                let divisor = self.factor()?;
                let whole = divisor > 0 && value.is_multiple_of(divisor);
                value = whole.then(|| value / divisor).ok_or("a division with a remainder")?;
            } else {
                return Ok(value);
            }
        }
    }

    fn factor(&mut self) -> Result<usize, String> {
        if self.take('(') {
            let value = self.sum()?;
            return if self.take(')') { Ok(value) } else { Err("no `)`".to_owned()) };
        }
        self.peek();
        let text = self.rest.as_str();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let word = &text[..end.unwrap_or(text.len())];
        self.rest = text[word.len()..].chars();
        let value = word.parse().ok().or_else(|| (self.value_of)(word));
        value.ok_or_else(|| format!("`{word}`, which is neither a number nor one of the config's"))
    }

    fn take(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.rest.next();
        }
        there
    }

    /// What follows after spaces.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.as_str().trim_start().chars();
        self.rest.clone().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic() {
        fn check(expression: &str, expected: Option<usize>) {
            let value_of = |key: &str| (key == "width").then_some(6);
            assert_eq!(size(expression, &value_of).ok(), expected, "{expression}");
        }
        check("7", Some(7));
        check("width", Some(6));
        check(" 2*width + 1 ", Some(13));
        check("2 * (width + 1)", Some(14));
        check("width / 3 * 2", Some(4));
        check("width / 4", None);
        check("1 / 0", None);
        check("", None);
        check("height", None);
        check("2 * (width", None);
        check("2 width", None);
        check("width - 1", None);
        check("18446744073709551615 + 1", None);
        check("18446744073709551615 * 2", None);
    }
}
