//! What a run says about its memory before it works.

/// The largest amount that messages say is needed of memory; `None` if none does.
///
/// Amounts are what stands between `up to` and `of memory`, as in `needs up to 1.25 GB of memory`.
pub(super) fn announced(messages: &str) -> Option<u64> {
    let amounts = messages.lines().flat_map(|line| line.split("up to ").skip(1));
    amounts.filter_map(|rest| amount(rest.split_once(" of memory")?.0)).max()
}

/// Bytes of a number and a unit.
fn amount(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ')?;
    let unit = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_amount_counts() {
        let check =
            |messages: &str, expected| assert_eq!(announced(messages), expected, "{messages}");
        check("", None);
        check("needs up to 1.25 GB of memory: 3 copies", Some(1_250_000_000));
        check("a\nneeds up to 980.00 MB of memory (RAM has 2.00 GB left)\n", Some(980_000_000));
        check(
            "needs up to 1.00 MB of memory\nthe repair takes up to 2.00 MB of memory and 3.00 GB on disk",
            Some(2_000_000),
        );
        check("needs up to 3.00 GB of the device's memory", None);
        check("blocks of up to 12 tokens", None);
    }
}
