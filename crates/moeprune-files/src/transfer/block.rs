//! Memory for a part of a file.

use std::fmt;

/// What the system wants places in files and in memory to be multiples of: its page, and the block
/// of most disks.
pub(super) const PAGE: usize = 4 << 10;

/// Memory for a part of a file.
#[derive(Default)]
pub(super) struct Block(Vec<u8>);

impl Block {
    /// Memory for `length` bytes that belong at `at` in a file, as far from a page's beginning as
    /// there.
    pub(super) fn at(&mut self, at: u64, length: usize) -> &mut [u8] {
        if self.0.len() < length + 2 * PAGE {
            self.0 = vec![0; length + 2 * PAGE];
        }
        let begin = self.0.as_ptr().align_offset(PAGE).min(PAGE) + (at % PAGE as u64) as usize;
        &mut self.0[begin..][..length]
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
