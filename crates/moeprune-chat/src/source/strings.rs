//! String literals as Python reads them.

/// A literal with Python's escapes in those that the engine knows. What Python keeps as it is
/// (`'\d'`) stays two characters.
pub(super) fn literal(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = escape(&rest[at + 1..], out);
    }
    out.push_str(rest);
}

/// Writes what an escape stands for, and returns what is behind it.
fn escape<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let Some(first) = rest.chars().next() else {
        out.push('\\');
        return rest;
    };
    let behind = &rest[first.len_utf8()..];
    match first {
        'n' | 't' | 'r' | '\\' | '\'' | '"' => {
            out.push('\\');
            out.push(first);
            behind
        }
        '\n' => behind,
        'a' => unit(0x07, behind, out),
        'b' => unit(0x08, behind, out),
        'f' => unit(0x0c, behind, out),
        'v' => unit(0x0b, behind, out),
        '0'..='7' => digits(rest, 1, 3, 8, out),
        'x' => digits(behind, 2, 2, 16, out),
        'u' => digits(behind, 4, 4, 16, out),
        'U' => digits(behind, 8, 8, 16, out),
        _ => {
            out.push_str("\\\\");
            out.push(first);
            behind
        }
    }
}

/// Writes the character of so many digits. Without them it is an escape that the engine refuses, as
/// Python does; halves of a pair of surrogates are left to the engine.
fn digits<'a>(rest: &'a str, least: usize, most: usize, radix: u32, out: &mut String) -> &'a str {
    let count = rest.chars().take(most).take_while(|digit| digit.is_digit(radix)).count();
    let (number, behind) = rest.split_at(count);
    match u32::from_str_radix(number, radix) {
        Ok(code) if count >= least => unit(code, behind, out),
        _ => {
            out.push_str("\\u");
            rest
        }
    }
}

fn unit<'a>(code: u32, behind: &'a str, out: &mut String) -> &'a str {
    match char::from_u32(code) {
        Some(character) if code > 0xffff => out.push(character),
        _ => out.push_str(&format!("\\u{code:04x}")),
    }
    behind
}
