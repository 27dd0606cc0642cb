//! NaN and infinite weights, told by their exponent bits.

use moeprune_core::{Dtype, TensorBytes};

use crate::Error;

/// Checks that no weight is NaN or infinite. Looks at exponent bits only, at the speed of memory.
///
/// Tensors of other types than F32, F16 and BF16 pass: they hold no weights.
///
/// # Errors
/// [`Error::NotFinite`] with the name given and the position of the first such weight.
pub fn check_finite(name: &str, tensor: &TensorBytes<'_>) -> Result<(), Error> {
    let bytes = tensor.bytes();
    let found = match tensor.dtype() {
        Dtype::BF16 => first_u16(bytes, 0x7f80),
        Dtype::F16 => first_u16(bytes, 0x7c00),
        Dtype::F32 => first_u32(bytes, 0x7f80_0000),
        _ => return Ok(()),
    };
    let Some(element) = found else { return Ok(()) };
    let mut value = [0.0];
    tensor.decode_f32(element, &mut value)?;
    let position = position(tensor.shape(), element);
    Err(Error::NotFinite { name: name.to_owned(), position, value: value[0] })
}

/// Elements per block: a block is scanned without leaving it early, which the compiler can turn
/// into vector instructions.
const BLOCK: usize = 4096;

fn first_u16(bytes: &[u8], exponent: u16) -> Option<usize> {
    let hit = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & exponent == exponent;
    bytes.chunks(2 * BLOCK).enumerate().find_map(|(block, bytes)| {
        let any = bytes.chunks_exact(2).fold(false, |any, b| any | hit(b));
        let at = any.then(|| bytes.chunks_exact(2).position(hit))??;
        Some(block * BLOCK + at)
    })
}

fn first_u32(bytes: &[u8], exponent: u32) -> Option<usize> {
    let hit = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & exponent == exponent;
    bytes.chunks(4 * BLOCK).enumerate().find_map(|(block, bytes)| {
        let any = bytes.chunks_exact(4).fold(false, |any, b| any | hit(b));
        let at = any.then(|| bytes.chunks_exact(4).position(hit))??;
        Some(block * BLOCK + at)
    })
}

/// Row and column of an element, or its index in anything but a matrix.
pub(crate) fn position(shape: &[usize], element: usize) -> String {
    match *shape {
        [_, cols] if cols > 0 => format!("row {}, column {}", element / cols, element % cols),
        _ => format!("index {element}"),
    }
}
