//! Weights in panels.

use std::{fmt, ops::Range};

use rayon::prelude::*;

use super::{
    kernel::{Level, Square, WIDTH, Weights},
    scratch::with_scratch,
};

/// Words of packed weights below which one thread is faster than waking others.
const PARALLEL_WORDS: usize = 1 << 18;
/// Words that a cache line holds; panels begin with one.
const LINE: usize = 16;

/// How packed weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is a kernel for each")]
pub enum PackedElements {
    /// Two bytes per weight: those of a bf16.
    Bf16,
    /// Four.
    F32,
}

impl PackedElements {
    /// Words that the weights of one output take.
    fn words(self, inputs: usize) -> usize {
        match self {
            Self::Bf16 => inputs.div_ceil(2),
            Self::F32 => inputs,
        }
    }
}

/// The weights of a Linear, `[outputs, inputs]`, in the order in which a product reads them: panels of 32
/// outputs, in each of which the weights of an input (of two neighbouring inputs, if they are bf16) stand side by
/// side.
pub struct PackedWeights {
    buffer: Vec<u32>,
    /// Where the first panel begins.
    start: usize,
    outputs: usize,
    inputs: usize,
    elements: PackedElements,
}

impl fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outputs, inputs, elements, .. } = self;
        write!(f, "PackedWeights([{outputs}, {inputs}] as {elements:?})")
    }
}

impl PackedWeights {
    /// Words that a buffer of such weights needs.
    #[must_use]
    pub fn buffer_words(elements: PackedElements, outputs: usize, inputs: usize) -> usize {
        outputs.div_ceil(WIDTH) * WIDTH * elements.words(inputs) + LINE
    }

    /// Weights of any value, in the memory of `buffer` as far as it reaches: what
    /// [`into_buffer`](Self::into_buffer) gave, or an empty one.
    #[must_use]
    pub fn new(
        elements: PackedElements,
        outputs: usize,
        inputs: usize,
        mut buffer: Vec<u32>,
    ) -> Self {
        let words = Self::buffer_words(elements, outputs, inputs);
        if buffer.capacity() < words {
            buffer = vec![0; words];
        } else {
            buffer.resize(words, 0);
        }
        let start = buffer.as_ptr().align_offset(LINE * size_of::<u32>()).min(LINE);
        Self { buffer, start, outputs, inputs, elements }
    }

    /// The memory, for other weights.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u32> {
        self.buffer
    }

    /// How many outputs there are.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// How many inputs there are.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How they are held.
    #[must_use]
    pub fn elements(&self) -> PackedElements {
        self.elements
    }

    /// Has `fill` fill panel after panel, on all threads if there is much to do. It is called with the outputs that a
    /// panel is of.
    ///
    /// # Errors
    /// That of the first panel in which `fill` failed.
    pub fn fill<E: Send>(
        &mut self,
        fill: impl Fn(Range<usize>, &mut Panel<'_>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let (outputs, inputs, elements) = (self.outputs, self.inputs, self.elements);
        let size = (elements.words(inputs) * WIDTH).max(1);
        let count = outputs.div_ceil(WIDTH) * elements.words(inputs).min(1);
        let words = &mut self.buffer[self.start..][..count * size];
        let one = |(panel, words): (usize, &mut [u32])| {
            let first = panel * WIDTH;
            let outputs = first..outputs.min(first + WIDTH);
            fill(outputs, &mut Panel { words, inputs, elements }).err()
        };
        let failed = if words.len() >= PARALLEL_WORDS && rayon::current_num_threads() > 1 {
            words.par_chunks_mut(size).enumerate().find_map_first(one)
        } else {
            words.chunks_mut(size).enumerate().find_map(one)
        };
        failed.map_or(Ok(()), Err)
    }

    /// How many panels there are.
    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(WIDTH)
    }

    /// The weights of a panel from input `first` on, which is even.
    pub(super) fn panel(&self, panel: usize, first: usize) -> Weights {
        let words = self.elements.words(self.inputs);
        let from = &self.buffer[self.start + panel * words * WIDTH..];
        match self.elements {
            PackedElements::Bf16 => Weights::Bf16(from[first / 2 * WIDTH..].as_ptr()),
            PackedElements::F32 => Weights::F32(from[first * WIDTH..].as_ptr().cast()),
        }
    }
}

/// The weights of up to 32 outputs, to be filled.
#[derive(Debug)]
pub struct Panel<'a> {
    words: &'a mut [u32],
    inputs: usize,
    elements: PackedElements,
}

impl Panel<'_> {
    /// Takes the weights of its outputs from `first` on, counted within the panel: `rows` holds those of one
    /// after the other, as little-endian bf16.
    ///
    /// # Panics
    /// If the panel is not held as bf16, the last row is not whole, or they are more than it has.
    pub fn put_bf16(&mut self, first: usize, rows: &[u8]) {
        assert_eq!(self.elements, PackedElements::Bf16, "how weights are held");
        let row_bytes = 2 * self.inputs;
        let count = rows.len() / row_bytes.max(1);
        assert_eq!(count * row_bytes, rows.len(), "rows of {row_bytes} bytes");
        self.turn(first, count, rows, row_bytes);
        if self.inputs % 2 == 1 {
            let last = &mut self.words[self.inputs / 2 * WIDTH + first..];
            for (word, row) in last.iter_mut().zip(rows.chunks_exact(row_bytes)) {
                *word = u32::from(u16::from_le_bytes([row[row_bytes - 2], row[row_bytes - 1]]));
            }
        }
    }

    /// Takes the weights of `count` outputs from `first` on, in f32, which `decode` writes one output after the other.
    ///
    /// # Errors
    /// Those of `decode`.
    ///
    /// # Panics
    /// If the panel is not held as f32, or has fewer outputs.
    pub fn put_f32<E>(
        &mut self,
        first: usize,
        count: usize,
        decode: impl FnOnce(&mut [f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        assert_eq!(self.elements, PackedElements::F32, "how weights are held");
        with_scratch(count * self.inputs, |rows| {
            decode(rows)?;
            #[expect(unsafe_code, reason = "numbers as their bytes")]
            // SAFETY: any f32 is four bytes of any value.
            let bytes = unsafe {
                std::slice::from_raw_parts(rows.as_ptr().cast::<u8>(), size_of_val(rows))
            };
            self.turn(first, count, bytes, 4 * self.inputs);
            Ok(())
        })
    }

    /// How its weights are held.
    #[must_use]
    pub fn elements(&self) -> PackedElements {
        self.elements
    }

    /// Puts the whole words of rows where they belong.
    fn turn(&mut self, first: usize, count: usize, rows: &[u8], row_bytes: usize) {
        assert!(first <= WIDTH && count <= WIDTH - first, "outputs of the panel");
        let words = row_bytes / 4;
        assert!(rows.len() >= count * row_bytes && self.words.len() >= words * WIDTH);
        for start in (0..count).step_by(16) {
            let square = Square {
                from: rows[start * row_bytes..].as_ptr(),
                row_bytes,
                rows: 16.min(count - start),
                words,
                to: self.words[first + start..].as_mut_ptr(),
                stride: WIDTH,
            };
            #[expect(unsafe_code, reason = "kernels take pointers")]
            // SAFETY: there are `count` rows of `row_bytes` bytes, which hold `words` words. Word `c` of row `r` goes to
            // `c · WIDTH + first + r`, with `first + r < WIDTH` and `c < words`: within the panel.
            unsafe {
                Level::detected().turn(&square);
            }
        }
    }
}
