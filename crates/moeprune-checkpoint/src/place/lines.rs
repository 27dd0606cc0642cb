//! Matrices whose rows are lines of a larger matrix.

/// Elements on a side of the squares in which matrices are transposed.
const TILE: usize = 64;

/// A matrix `[rows, cols]` whose rows lie in a stored matrix of `of` lines: as every `step`th row
/// from `first` on, or as every `step`th column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) rows: usize,
    /// Elements of a row, or blocks of elements where they are stored in such.
    pub(super) cols: usize,
    /// Bytes of an element, or of a block.
    pub(super) size: usize,
    pub(super) first: usize,
    pub(super) step: usize,
    /// All lines of the stored matrix.
    pub(super) of: usize,
    /// Whether the lines are columns: the stored matrix is `[cols, of]`, not `[of, cols]`.
    pub(super) transposed: bool,
}

impl Lines {
    pub(super) fn gather(&self, slab: &[u8]) -> Vec<u8> {
        let mut part = vec![0; self.rows * self.cols * self.size];
        self.for_each_run(|in_part, in_slab, bytes| {
            part[in_part..in_part + bytes].copy_from_slice(&slab[in_slab..in_slab + bytes]);
        });
        part
    }

    pub(super) fn scatter(&self, part: &[u8], slab: &mut [u8]) {
        assert!(part.len() == self.rows * self.cols * self.size, "a part of another size");
        self.for_each_run(|in_part, in_slab, bytes| {
            slab[in_slab..in_slab + bytes].copy_from_slice(&part[in_part..in_part + bytes]);
        });
    }

    /// Calls `run` with where in the part and where in the slab bytes begin that lie side by side
    /// in both, and how many there are.
    fn for_each_run(&self, mut run: impl FnMut(usize, usize, usize)) {
        let Self { rows, cols, size, first, step, of, transposed } = *self;
        if !transposed {
            for row in 0..rows {
                run(row * cols * size, (first + row * step) * cols * size, cols * size);
            }
            return;
        }
        for row_tile in (0..rows).step_by(TILE) {
            for col_tile in (0..cols).step_by(TILE) {
                for row in row_tile..rows.min(row_tile + TILE) {
                    for col in col_tile..cols.min(col_tile + TILE) {
                        let stored = col * of + first + row * step;
                        run((row * cols + col) * size, stored * size, size);
                    }
                }
            }
        }
    }
}
