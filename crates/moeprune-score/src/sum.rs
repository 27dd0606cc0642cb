//! Sums in a fixed order.

/// The sum over eight interleaved lanes: fast, and the same on every machine.
///
/// Up to 128 values are added in the order NumPy adds them, which makes a mean over layers equal
/// to the reference's bit for bit.
pub(crate) fn lane_sum<T: Copy + Into<f64>>(values: &[T]) -> f64 {
    let mut lanes = [0.0; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += value.into();
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let lanes = ((a + b) + (c + d)) + ((e + f) + (g + h));
    rest.iter().fold(lanes, |sum, &value| sum + value.into())
}

/// The sum over 32 interleaved lanes, which a row of scores keeps busy; the same on every machine.
#[inline(always)]
pub(crate) fn wide_sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0; 32];
    let (chunks, rest) = values.as_chunks::<32>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(value);
        }
    }
    rest.iter().fold(lane_sum(&lanes), |sum, &value| sum + f64::from(value))
}
