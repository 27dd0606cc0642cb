/*!
Files that were broken on purpose, and what must hold with any content.

Each [`Target`] is one kind of file that moeprune reads. [`Target::run`] puts bytes where that file
belongs, reads it as the program does, and panics if one of these is broken:

* reading does not panic;
* memory held while reading stays below [`allowed_bytes`] of the file's length;
* nothing outside of the model directory is opened ([`Place`]);
* what was accepted can be worked with: it is read through, written and read again.

The fuzz targets of `tests/fuzz` run them on what libFuzzer makes up, `fuzz_corpus` of this crate on
the files kept from it.
*/

mod allocation;
mod config;
mod gguf;
mod header;
mod index;
mod models;
mod observation;
mod place;
mod plan;
mod template;
mod text;
mod tokenizer;

use moeprune::checkpoint::Checkpoint;

pub use self::{
    allocation::{CountingAllocator, peak_of},
    config::Config,
    gguf::Gguf,
    header::Header,
    index::Index,
    observation::ObservationFile,
    place::Place,
    plan::PlanFile,
    template::Template,
    text::{Parquet, Text, Zstd},
    tokenizer::TokenizerFile,
};

/// A kind of file.
pub trait Target {
    /// What its folders of seeds and regressions are called.
    const NAME: &'static str;

    /// Prepares everything around the file.
    fn new() -> Self;

    /// Files that are accepted, by name.
    fn valid(&self) -> Vec<(&'static str, Vec<u8>)>;

    /// Reads these bytes, and works with what was read.
    ///
    /// # Errors
    /// The message of a file that was refused, with the folder replaced by `DIR`.
    ///
    /// # Panics
    /// If an invariant is broken.
    fn run(&self, bytes: &[u8]) -> Result<(), String>;
}

/// Bytes that may be held at once while a file of this length is read: JSON of short values grows
/// when it is parsed, and what does not depend on the file (descriptors, buffers) fits a mebibyte.
#[must_use]
pub fn allowed_bytes(length: usize) -> usize {
    64 * length + (1 << 20)
}

/// Runs `read`, and panics if it holds more than a file of this length allows.
fn bounded<T>(length: usize, read: impl FnOnce() -> T) -> T {
    bounded_by(64, length, read)
}

/// As [`bounded`], for a file that becomes up to so many times as large by what it means.
fn bounded_by<T>(times: usize, length: usize, read: impl FnOnce() -> T) -> T {
    let (read, peak) = peak_of(read);
    let allowed = allowed_bytes(length).max(times * length + (1 << 20));
    assert!(peak <= allowed, "{peak} bytes held for a file of {length}; {allowed} are allowed");
    read
}

/// Uses everything of a checkpoint that comes from its files.
fn look_through(checkpoint: &Checkpoint) {
    let summary = checkpoint.summary();
    assert_eq!(summary.layers, checkpoint.spec().layers.len());
    let fingerprint = checkpoint.fingerprint().expect("routers of an open checkpoint are there");
    assert!(fingerprint.starts_with("sha256:"));
    for tensor in checkpoint.tensors() {
        let read = checkpoint.tensor_by_name(&tensor.name).expect("its bytes were checked");
        assert_eq!((read.dtype(), read.shape()), (tensor.dtype, &tensor.shape[..]));
        assert_eq!(read.bytes().len() as u64, tensor.bytes);
        if let Some(part) = tensor.part {
            assert_eq!(checkpoint.name_of(part).expect("has a name"), tensor.name);
        }
    }
}
