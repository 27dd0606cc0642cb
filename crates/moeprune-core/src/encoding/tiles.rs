//! Rows decoded a tile at a time, into a buffer that stays in the nearest cache.

use std::ops::Range;

use super::Rows;

/// Rows of a tile: as many as share a cache line where the main tensor holds the transpose.
pub(super) const ROWS: usize = 16;
/// Columns of a tile.
const COLS: usize = 256;

/// A tile's values, with room for the most.
pub(super) type Buffer = [f32; ROWS * COLS];

pub(super) const ZEROS: Buffer = [0.0; ROWS * COLS];

/// Some rows and columns of those that were cut.
pub(super) struct Tile {
    /// The first row, counted from the first that was cut.
    pub(super) row: usize,
    /// How many.
    pub(super) rows: usize,
    /// Which columns.
    pub(super) columns: Range<usize>,
}

impl Tile {
    /// How many elements it has.
    pub(super) fn len(&self) -> usize {
        self.rows * self.columns.len()
    }

    /// Where element `at` of the tile is among all elements of the rows that were cut.
    pub(super) fn position(&self, at: usize, cols: usize) -> usize {
        let width = self.columns.len();
        (self.row + at / width) * cols + self.columns.start + at % width
    }
}

/// The least of the positions that `each` finds in a tile, counted over all elements of `rows`;
/// `None` if it finds none. Tiles after the first row that has one may be left out.
pub(super) fn first(rows: &Rows<'_>, mut each: impl FnMut(Tile) -> Option<usize>) -> Option<usize> {
    let cols = rows.cols();
    for row in (0..rows.count).step_by(ROWS) {
        let height = ROWS.min(rows.count - row);
        let tiles = (0..cols)
            .step_by(COLS)
            .map(|start| each(Tile { row, rows: height, columns: start..cols.min(start + COLS) }));
        // All tiles of a band: the least may be in a later one.
        if let Some(least) = tiles.flatten().min() {
            return Some(least);
        }
    }
    None
}

/// Calls `each` for every tile.
pub(super) fn each(rows: &Rows<'_>, mut each: impl FnMut(Tile)) {
    first(rows, |tile| {
        each(tile);
        None
    });
}
