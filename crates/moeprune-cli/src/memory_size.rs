//! Sizes of memory as people write them.

/// A number of bytes: `24G`, `1.5GiB`, `500 MB`.
pub(crate) fn memory_size(text: &str) -> Result<u64, String> {
    let bad = || {
        format!(
            "`{text}` is no size of memory, as 24G, 24GiB (both 24 times 1024 to the third), 24GB or \
             25769803776 are"
        )
    };
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let (power, base) = match unit.as_str() {
        "" | "b" => (0, 1024_f64),
        unit => {
            let mut prefixes = ["k", "m", "g", "t"].iter().zip(1..);
            let found =
                prefixes.find_map(|(prefix, power)| Some((power, unit.strip_prefix(prefix)?)));
            match found.ok_or_else(bad)? {
                (power, "" | "ib") => (power, 1024.0),
                (power, "b") => (power, 1000.0),
                _ => return Err(bad()),
            }
        }
    };
    let bytes = number.parse::<f64>().map_err(|_| bad())? * base.powi(power);
    if bytes >= 1.0 && bytes < 2_f64.powi(63) { Ok(bytes as u64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(memory_size(text).ok(), expected, "{text}");
        };
        check("1", Some(1));
        check("25769803776", Some(24 << 30));
        for text in ["24G", "24g", "24GiB", "24 GiB", " 24gib ", "24.0G"] {
            check(text, Some(24 << 30));
        }
        check("24GB", Some(24_000_000_000));
        check("500M", Some(500 << 20));
        check("500 MB", Some(500_000_000));
        check("1.5K", Some(1536));
        check("2T", Some(2 << 40));
        check("7b", Some(7));
        for text in [
            "",
            " ",
            "0",
            "0G",
            "-1",
            "-1G",
            "G",
            "1X",
            "1Gi",
            "1GBB",
            "1e3",
            "inf",
            "NaN",
            "1.2.3",
            "0.5",
            "1 2G",
            "9999999999T",
            "٣G",
            "1é",
            "é",
        ] {
            check(text, None);
        }
    }
}
