//! Plain-text tables and numbers for people.

pub use moeprune_core::bytes_in_words as bytes;

/// Aligns columns: the first to the left, the others to the right; a rule under the header.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (column, cell) in cells.take(columns).enumerate() {
            let gap = widths[column] - cell.chars().count();
            let pad = " ".repeat(gap);
            if column == 0 {
                line.push_str(&format!("{cell}{pad}"));
            } else {
                line.push_str(&format!("  {pad}{cell}"));
            }
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut header.iter().copied());
    text += &"─".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1));
    text.push('\n');
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A share as a percentage.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// Seconds, minutes or hours.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    // Rounded first, so that there are never 60 of anything.
    match seconds.round() as u64 {
        whole if whole < 3600 => format!("{} min {} s", whole / 60, whole % 60),
        whole => {
            let minutes = (whole + 30) / 60;
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(&["layer", "experts"], &[vec!["0".into(), "32".into()]]);
        assert_eq!(text, "layer  experts\n──────────────\n0           32\n");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(957_169_217_536), "957.17 GB");
        assert_eq!(percent(0.4), "40.00 %");
        assert_eq!(seconds(59.94), "59.9 s");
        assert_eq!(seconds(3725.0), "1 h 2 min");
    }
}
