//! Text that came from elsewhere, as it is shown.

/// The beginning of a text that came from elsewhere, on one line and without what terminals obey.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let mut shown: String =
        text.trim().chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.trim().chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}
