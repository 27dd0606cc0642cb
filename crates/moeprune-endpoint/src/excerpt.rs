//! Text that came from elsewhere, made fit for messages.

/// The beginning of a text that came from elsewhere, on one line and without what terminals obey.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let mut shown: String =
        text.trim().chars().take(most).map(|c| if is_obeyed(c) { ' ' } else { c }).collect();
    if text.trim().chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether terminals obey the character, or turn what follows around.
fn is_obeyed(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}
