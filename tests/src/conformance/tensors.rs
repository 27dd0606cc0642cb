//! What [`TensorSource`] and [`TensorSink`] promise.

use std::collections::BTreeMap;

use moeprune_core::{Dtype, StoredRows, TensorBytes, TensorId, TensorSink, TensorSource};
use proptest::{prelude::*, test_runner::TestCaseError};

use super::{for_all, pure};

/// Holds a source to its contract, given the parts that it has and some that it has not:
///
/// * a part that it has gives the same tensor each time, from any thread;
/// * a part that it has not is an error that names it, each time;
/// * rows that it reads into memory of the caller are those of the tensor, in any order, and others are errors.
///
/// # Panics
/// If one of these is broken.
pub fn check_source(source: &dyn TensorSource, parts: &[TensorId], missing: &[TensorId]) {
    assert!(!parts.is_empty() && !missing.is_empty(), "parts of both kinds are needed");
    let read = |part| {
        let tensor = source.tensor(part).map_err(|e| e.to_string())?;
        Ok((tensor.dtype(), tensor.shape().to_vec(), tensor.bytes().to_vec()))
    };
    for &part in parts {
        let tensor: Result<_, String> =
            pure(|| read(part)).unwrap_or_else(|e| panic!("{part}: {e}"));
        let (dtype, shape, bytes) = tensor.unwrap_or_else(|e| panic!("{part} cannot be read: {e}"));
        let rows = source.stored_rows(part).unwrap_or_else(|e| panic!("rows of {part}: {e}"));
        let Some(rows) = rows else { continue };
        assert_eq!(
            (rows.float().dtype(), &rows.shape()[..]),
            (dtype, &shape[..]),
            "form of {part}"
        );
        check_rows(&rows, &bytes, part);
    }
    for &part in missing {
        let tensor = pure(|| read(part)).unwrap_or_else(|e| panic!("{part}: {e}"));
        let error = tensor.err().unwrap_or_else(|| panic!("there is a {part}"));
        let name = part.to_string();
        assert!(error.contains(&name), "the error does not name {name}: {error}");
    }
}

/// Rows are those of a matrix with these bytes.
fn check_rows(rows: &StoredRows<'_>, matrix: &[u8], part: TensorId) {
    let (count, size) = (rows.shape()[0], rows.row_bytes());
    assert_eq!(matrix.len(), count * size, "bytes of {part}");
    for (first, end) in [(count / 2, count), (0, count / 2), (0, count), (count, count)] {
        let expected = &matrix[first * size..end * size];
        let mut bytes: Vec<u8> = expected.iter().map(|byte| !byte).collect();
        let read = rows.read(first..end, &mut bytes);
        read.unwrap_or_else(|e| panic!("rows {first}..{end} of {part} cannot be read: {e}"));
        assert!(bytes == expected, "other rows {first}..{end} of {part}");
    }
    let mut bytes = vec![0; size];
    for (first, end) in [(count, count + 1), (usize::MAX - 1, usize::MAX), (1, 0)] {
        assert!(rows.read(first..end, &mut bytes).is_err(), "{part} has rows {first}..{end}");
    }
    assert!(rows.read(0..0, &mut [0]).is_err(), "{part} fills more than its rows");
}

/// A tensor and its name.
pub type Named = (String, TensorBytes<'static>);

/// Holds a sink to its contract. `new` makes one that is to receive these tensors, in any order;
/// `finish` ends it and returns what it holds.
///
/// * tensors that are put in any order are what it holds in the end;
/// * a name that is put again is an error, and changes nothing;
/// * one that did not receive all tensors cannot be finished.
///
/// # Panics
/// If one of these is broken.
pub fn check_sink<S: TensorSink>(
    new: impl Fn(&[Named]) -> S,
    finish: impl Fn(S) -> Result<Vec<Named>, String>,
) {
    for_all(&tensors().prop_shuffle(), |order| {
        let mut announced = order.clone();
        announced.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut sink = new(&announced);
        for (name, tensor) in &order {
            let put = sink.put(name, tensor);
            put.map_err(|e| TestCaseError::fail(format!("`{name}` is not taken: {e}")))?;
            let other = TensorBytes::new(
                tensor.dtype(),
                tensor.shape(),
                tensor.bytes().iter().map(|byte| !byte).collect::<Vec<_>>(),
            );
            let other = other.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(sink.put(name, &other).is_err(), "`{}` is taken twice", name);
        }
        let held = finish(sink).map_err(TestCaseError::fail)?;
        let held: BTreeMap<String, TensorBytes<'_>> = held.into_iter().collect();
        let expected: BTreeMap<String, TensorBytes<'_>> = order.iter().cloned().collect();
        prop_assert_eq!(held, expected, "what it holds");

        let mut unfinished = new(&announced);
        for (name, tensor) in &order[1..] {
            let put = unfinished.put(name, tensor);
            put.map_err(|e| TestCaseError::fail(format!("`{name}` is not taken: {e}")))?;
        }
        let looks_finished = finish(unfinished).is_ok();
        prop_assert!(!looks_finished, "it is finished without `{}`", order[0].0);
        Ok(())
    });
}

/// One to six tensors of several types and shapes.
fn tensors() -> impl Strategy<Value = Vec<Named>> {
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::BF16, Dtype::U8]);
    let shape = prop::collection::vec(1usize..5, 1..3);
    prop::collection::btree_map("[a-z.]{1,6}", (dtype, shape, any::<u8>()), 1..6).prop_map(
        |tensors| {
            let tensor = |(name, (dtype, shape, first)): (_, (Dtype, Vec<usize>, u8))| {
                let bytes = dtype.bytes_of_shape(&shape).expect("types of whole bytes");
                let bytes: Vec<u8> = (0..bytes).map(|i| first.wrapping_add(i as u8)).collect();
                (name, TensorBytes::new(dtype, shape, bytes).expect("is as long as it says"))
            };
            tensors.into_iter().map(tensor).collect()
        },
    )
}
