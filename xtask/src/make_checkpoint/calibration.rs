//! Calibration blocks of random tokens, so that a model without a tokenizer can be pruned.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::random::Stream;

/// Writes `samples` documents of `seq_len` tokens, which a run with these numbers uses as its
/// blocks. Tokens of rank r are about as frequent as 1/r.
pub(super) fn write(
    path: &Path,
    samples: usize,
    seq_len: usize,
    vocab: usize,
    seed: u64,
) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create_new(path).with_context(failed)?);
    let stream = Stream::new(seed, "calibration");
    for sample in 0..samples {
        let token = |i: usize| token(stream.uniform((sample * seq_len + i) as u64), vocab);
        let tokens: Vec<usize> = (0..seq_len).map(token).collect();
        writeln!(file, "{}", serde_json::json!({ "tokens": tokens })).with_context(failed)?;
    }
    file.flush().with_context(failed)
}

/// The logarithm of a token is uniform.
fn token(uniform: f64, vocab: usize) -> usize {
    ((vocab as f64).powf(uniform) as usize).min(vocab - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_below_the_vocabulary() {
        fn check(uniform: f64, expected: usize) {
            assert_eq!(token(uniform, 100), expected);
        }
        check(0.0, 1);
        check(0.5, 10);
        check(1.0 - f64::EPSILON, 99);
        check(1.0, 99);
    }
}
