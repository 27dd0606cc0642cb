//! Rows decoded a tile at a time, into a buffer that stays in the nearest cache.

use std::ops::Range;

use super::Rows;

/// How many rows and columns a tile has.
pub(super) struct Size {
    pub(super) rows: usize,
    cols: usize,
}

/// Where rows follow each other.
const ROW_BY_ROW: Size = Size { rows: 1, cols: 4096 };
/// Where the main tensor holds the transpose: neighbours in a row are in pages of their own there, so
/// several cache lines of each are read.
pub(super) const TRANSPOSED: Size = Size { rows: 64, cols: 64 };

/// A tile's values, with room for the most.
pub(super) type Buffer = [f32; 4096];

pub(super) const ZEROS: Buffer = [0.0; 4096];

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
/// `None` if it finds none. Tiles below the first that has one may be left out. `row_bytes` are the
/// encoding's.
pub(super) fn first(
    rows: &Rows<'_>,
    row_bytes: Option<usize>,
    mut each: impl FnMut(Tile) -> Option<usize>,
) -> Option<usize> {
    let (cols, size) = (rows.cols(), row_bytes.map_or(TRANSPOSED, |_| ROW_BY_ROW));
    for row in (0..rows.count).step_by(size.rows) {
        let height = size.rows.min(rows.count - row);
        let starts = (0..cols).step_by(size.cols);
        let tiles = starts.map(|start| Tile {
            row,
            rows: height,
            columns: start..cols.min(start + size.cols),
        });
        // All tiles of a band: the least may be in a later one.
        if let Some(least) = tiles.filter_map(&mut each).min() {
            return Some(least);
        }
    }
    None
}

/// Calls `each` for every tile.
pub(super) fn each(rows: &Rows<'_>, row_bytes: Option<usize>, mut each: impl FnMut(Tile)) {
    first(rows, row_bytes, |tile| {
        each(tile);
        None
    });
}
