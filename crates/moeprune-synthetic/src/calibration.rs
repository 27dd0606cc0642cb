//! Calibration blocks of random tokens, so that a model without a tokenizer can be pruned.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{Error, random::Stream};

/// Writes `samples` documents of `seq_len` tokens below `vocab`, which a run with these numbers
/// uses as its blocks. Tokens of rank r are about as frequent as 1/r.
///
/// # Errors
/// [`Error::Io`] if `path` exists or cannot be written.
pub fn write_calibration(
    path: &Path,
    samples: usize,
    seq_len: usize,
    vocab: usize,
    seed: u64,
) -> Result<(), Error> {
    let mut file = BufWriter::new(File::create_new(path).map_err(Error::io("create", path))?);
    write_calibration_to(&mut file, samples, seq_len, vocab, seed)
        .and_then(|()| file.flush())
        .map_err(Error::io("write", path))
}

/// As [`write_calibration`], to anything that takes bytes.
///
/// # Errors
/// If `out` fails.
pub fn write_calibration_to(
    out: &mut dyn Write,
    samples: usize,
    seq_len: usize,
    vocab: usize,
    seed: u64,
) -> io::Result<()> {
    let stream = Stream::new(seed, "calibration");
    for sample in 0..samples {
        let token = |i: usize| token(stream.uniform((sample * seq_len + i) as u64), vocab);
        let tokens: Vec<usize> = (0..seq_len).map(token).collect();
        let line = serde_json::json!({ "tokens": tokens });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The logarithm of a token is uniform.
fn token(uniform: f64, vocab: usize) -> usize {
    ((vocab as f64).powf(uniform) as usize).min(vocab.saturating_sub(1))
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

    #[test]
    fn the_file_gives_the_blocks_asked_for() {
        use moeprune_capture::{BlockOrigin, Document, SamplingOptions, token_blocks};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.jsonl");
        write_calibration(&path, 3, 20, 64, 0).unwrap();
        let document = |line: &str| {
            let line: std::collections::BTreeMap<String, Vec<u32>> =
                serde_json::from_str(line).unwrap();
            Document::tokens(line["tokens"].as_slice())
        };
        let text: Vec<Document> =
            std::fs::read_to_string(&path).unwrap().lines().map(document).collect();
        let options = SamplingOptions { samples: 3, sequence_len: 20, seed: 0 };
        let blocks = token_blocks(&text, None, 64, &options).unwrap();
        assert_eq!(blocks.origin(), BlockOrigin::Given { documents: 3 });
        assert_eq!(blocks.tokens(), 60);
        let again = write_calibration(&path, 3, 20, 64, 0).unwrap_err().to_string();
        assert!(again.starts_with("cannot create"), "{again}");
    }
}
