//! Numbers and switches in the spellings that configs have: `8`, `8.0`, `"8"`, `8e0`; `true`, `"true"`, `1`.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// No dimension of a model is near this; larger numbers are damage, and products of three below
/// it cannot overflow the arithmetic that follows the shape checks.
pub(crate) const MAX_INTEGER: u64 = 1 << 31;

/// The text of a value without the quotes around it, if it has such.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    if !text.starts_with('"') {
        return Some(Cow::Borrowed(text));
    }
    let inner: String = serde_json::from_str(text).ok()?;
    Some(Cow::Owned(inner.trim().to_owned()))
}

/// A whole number that is not negative, if the value is exactly one: written with a point, an exponent or in
/// quotes too.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let text = unquoted(text)?;
    if let Ok(number) = serde_json::from_str::<u64>(&text) {
        return Some(number);
    }
    // The number is one of JSON, and the arithmetic below may go by that.
    serde_json::from_str::<f64>(&text).ok()?;
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (&*text, 0),
    };
    let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let shift = exponent.checked_sub(i32::try_from(behind.len()).ok()?)?;
    let digits = format!("{before}{behind}");
    let number = match usize::try_from(shift.unsigned_abs()).ok()? {
        0 => digits,
        zeros if shift > 0 => format!("{digits}{}", "0".repeat(zeros.min(20))),
        zeros => {
            let (kept, cut) = digits.split_at(digits.len().saturating_sub(zeros));
            if cut.bytes().any(|digit| digit != b'0') {
                return None;
            }
            format!("0{kept}")
        }
    };
    number.parse().ok()
}

/// A list of such numbers.
pub(crate) fn wholes(text: &str) -> Option<Vec<u64>> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    items.into_iter().map(|item| whole(item.get())).collect()
}

/// A number, in quotes too, if it is finite.
pub(crate) fn real(text: &str) -> Option<f64> {
    let text = unquoted(text)?;
    serde_json::from_str(&text).ok()
}

/// True or false, as Python and YAML spell them too, or as 1 or 0.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match unquoted(text)?.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Whole numbers in the spelling of those that they take the place of: in quotes, or with a point.
///
/// `new` is a number or a list of them.
pub(crate) fn spelled_like(old: &str, new: &str) -> String {
    let first = old.trim_start_matches(['[', ' ', '\n', '\r', '\t']);
    let quote = if first.starts_with('"') { "\"" } else { "" };
    let first = first.trim_start_matches('"');
    let end = first.find(['"', ',', ']', ' ']).unwrap_or(first.len());
    let point = if first[..end].contains(['.', 'e', 'E']) { ".0" } else { "" };
    let mut spelled = String::with_capacity(new.len());
    let mut rest = new;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = &rest[start..];
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        spelled.push_str(&rest[..start]);
        spelled.push_str(&format!("{quote}{}{point}{quote}", &digits[..end]));
        rest = &digits[end..];
    }
    spelled + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(whole(text), expected, "{text}");
        for text in
            ["8", "8.0", "8.000", "\"8\"", "\" 8 \"", "\"8.0\"", "8e0", "0.8e1", "800e-2", "8E+0"]
        {
            check(text, Some(8));
        }
        check("1e3", Some(1000));
        check("1.5e3", Some(1500));
        check("0", Some(0));
        check("0.0", Some(0));
        check("0e99999", Some(0));
        for text in [
            "8.5",
            "-8",
            "-8.0",
            "\"-8\"",
            "8e-1",
            "1e99",
            "1e999999999999",
            "1.0e9999",
            "true",
            "null",
            "\"\"",
            "\"eight\"",
            "\"N\"",
            "[8]",
            "8.00000000000000000001",
            "\"0x8\"",
            "\"08\"",
            "\"8_0\"",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn real_numbers() {
        let check = |text: &str, expected: Option<f64>| assert_eq!(real(text), expected, "{text}");
        check("1e-5", Some(1e-5));
        check("\"1e-5\"", Some(1e-5));
        check("2", Some(2.0));
        check("\"2.0\"", Some(2.0));
        check("\"N\"", None);
        check("\"NaN\"", None);
        check("\"Infinity\"", None);
        check("true", None);
    }

    #[test]
    fn switches() {
        let check =
            |text: &str, expected: Option<bool>| assert_eq!(switch(text), expected, "{text}");
        for text in ["true", "\"true\"", "\"True\"", "1", "\"1\""] {
            check(text, Some(true));
        }
        for text in ["false", "\"false\"", "\"FALSE\"", "0", "\"0\""] {
            check(text, Some(false));
        }
        for text in ["null", "2", "\"\"", "\"yes\"", "\"N\"", "[]"] {
            check(text, None);
        }
    }

    #[test]
    fn spellings_are_kept() {
        let check = |old: &str, new: &str, expected: &str| {
            assert_eq!(spelled_like(old, new), expected, "{old}");
        };
        check("8", "6", "6");
        check("\"8\"", "6", "\"6\"");
        check("8.0", "6", "6.0");
        check("8e0", "6", "6.0");
        check("\"8.0\"", "16", "\"16.0\"");
        check("[8, 8]", "6", "6");
        check("[8, 8]", "[6, 4]", "[6, 4]");
        check("[\n  \"8\", \"8\"]", "[6, 14]", "[\"6\", \"14\"]");
        check("[8.0]", "[6, 4]", "[6.0, 4.0]");
    }

    proptest! {
        #[test]
        fn a_number_is_the_same_in_any_spelling(number in 0_u64..1 << 31, zeros in 0..5_usize) {
            let zeros = "0".repeat(zeros);
            for text in [
                format!("{number}"), format!("{number}.0{zeros}"), format!("\"{number}\""),
                format!("\"{number}.0\""), format!("{number}{zeros}e-{}", zeros.len()),
            ] {
                prop_assert_eq!(whole(&text), Some(number), "{}", text);
                let spelled = spelled_like(&text, "7");
                prop_assert_eq!(whole(&spelled), Some(7));
                prop_assert_eq!(spelled.starts_with('"'), text.starts_with('"'));
            }
        }

        #[test]
        fn any_text_is_read_or_not(text: String) {
            let quoted = serde_json::to_string(&text).expect("a string");
            for text in [&text, &quoted] {
                let _ = (whole(text), real(text), switch(text), spelled_like(text, "7"));
            }
        }

        #[test]
        fn what_is_read_is_exact(text in "[0-9]{1,4}(\\.[0-9]{1,4})?(e[+-]?[0-9])?") {
            let exact: Option<f64> = text.parse().ok();
            match (whole(&text), exact) {
                (Some(read), Some(exact)) => prop_assert_eq!(read as f64, exact),
                (None, Some(exact)) => {
                    let valid = serde_json::from_str::<f64>(&text).is_ok();
                    prop_assert!(!valid || exact.fract() != 0.0, "{}", text);
                }
                _ => {}
            }
        }
    }
}
