//! Numbers of bytes in messages.

/// A number of bytes for people: decimal units, two digits after the point.
///
/// ```
/// use moeprune_core::bytes_in_words;
///
/// assert_eq!(bytes_in_words(512), "512 B");
/// assert_eq!(bytes_in_words(27_345_000_000), "27.34 GB");
/// ```
#[must_use]
pub fn bytes_in_words(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}
