//! Matrix products on slices.

/// A matrix over a slice, with its strides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    /// What its values are multiplied by.
    scale: f32,
}

impl<'a> Matrix<'a> {
    /// Rows laid out one after the other.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows that begin every `row_stride` values.
    pub(super) fn strided(
        values: &'a [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        assert!(reach(rows, columns, row_stride) <= values.len());
        Self { values, rows, columns, row_stride, column_stride: 1, scale: 1.0 }
    }

    /// The same matrix times `scale`.
    pub(super) fn scaled(self, scale: f32) -> Self {
        Self { scale: self.scale * scale, ..self }
    }

    /// The transpose, over the same values.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// What a product does with the values already in its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Replace,
    Add,
}

/// `left * right` into the rows of `target`, which begin every `row_stride` values.
pub(super) fn multiply(
    target: &mut [f32],
    row_stride: usize,
    left: Matrix<'_>,
    right: Matrix<'_>,
    existing: Existing,
) {
    assert_eq!(left.columns, right.rows);
    let (rows, columns, depth) = (left.rows, right.columns, left.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(reach(rows, columns, row_stride) <= target.len());
    // SAFETY: `target` is borrowed for writing and reaches the last of rows x columns (asserted
    // above); both sides were checked against their slices when they were made, and a transpose
    // visits the same values. The strides of the target are those of distinct rows, as
    // row_stride >= columns wherever `reach` passes with more than one row.
    #[allow(unsafe_code, reason = "gemm takes pointers and strides")]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            target.as_mut_ptr(),
            1,
            row_stride as isize,
            existing == Existing::Add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            left.scale * right.scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// How many values a matrix spans.
fn reach(rows: usize, columns: usize, row_stride: usize) -> usize {
    assert!(row_stride >= columns, "the rows overlap");
    if rows == 0 { 0 } else { (rows - 1) * row_stride + columns }
}
