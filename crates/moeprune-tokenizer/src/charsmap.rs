//! SentencePiece's compiled rules for characters, which come from a file and are looked up without checks.

/// Whether any text can be looked up in the rules: the trie, as a double array, never leads out of itself, and
/// what it leads to is a text.
///
/// The form is the trie's length in bytes, the trie, and texts that end with NUL. A unit of the trie is a label (bits 0 to
/// 7), whether a value follows (8), and how far the children are (10 to 30, in steps of 256 if bit 9 is set).
pub(crate) fn check(map: &[u8]) -> Result<(), String> {
    let length = map.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let length = length.ok_or("has no length")?;
    let Some((trie, texts)) = map[4..].split_at_checked(length / 4 * 4) else {
        return Err(format!("says {length} bytes and has {}", map.len() - 4));
    };
    let texts = std::str::from_utf8(texts).map_err(|_| "has texts that are no UTF-8")?;
    let units: Vec<usize> = trie
        .chunks_exact(4)
        .map(|unit| unit.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
        .collect();
    let mut reached = vec![false; units.len()];
    let root = *units.first().ok_or("is empty")?;
    let mut open = vec![offset(root)];
    while let Some(node) = open.pop() {
        if !std::mem::replace(reached.get_mut(node).ok_or("leads out of itself")?, true) {
            follow(node, &units, texts, &mut open)?;
        }
    }
    Ok(())
}

/// What one byte more leads to.
fn follow(node: usize, units: &[usize], texts: &str, open: &mut Vec<usize>) -> Result<(), String> {
    for byte in 1..256 {
        let next = node ^ byte;
        let unit = *units.get(next).ok_or("leads out of itself")?;
        if unit & (1 << 31 | 0xff) != byte {
            continue;
        }
        let next = next ^ offset(unit);
        if unit >> 8 & 1 == 1 {
            let text = *units.get(next).ok_or("leads out of itself")? & 0x7fff_ffff;
            if !texts.is_char_boundary(text) {
                return Err(format!("leads to byte {text} of {} bytes of text", texts.len()));
            }
        }
        open.push(next);
    }
    Ok(())
}

fn offset(unit: usize) -> usize {
    unit >> 10 << ((unit & 1 << 9) >> 6)
}
