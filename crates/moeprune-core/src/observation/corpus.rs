//! Which text was calibrated on, and what was read of it.

use serde::{Deserialize, Serialize};

/// Which text an observation was taken on, and how it was sampled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct CorpusTag {
    /// File name (without its folder) or another name for people.
    pub name: String,
    /// SHA-256 of the calibration file, in hexadecimal; of several files, of their hashes.
    pub sha256: String,
    /// Number of blocks.
    pub samples: u64,
    /// Tokens in a block.
    pub sequence_len: u64,
    /// Seed the blocks were drawn with.
    pub seed: u64,
    /// How often the text counts, 1 unless it was [blended](super::Observation::repeat) with others.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub repeated: u64,
    /// What was read. Missing of what was written before this was kept, and of an imatrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<TextFacts>,
}

/// What was read of a calibration text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct TextFacts {
    /// What the files were recognised as.
    pub format: String,
    /// Number of files.
    pub files: u64,
    /// Documents in all files.
    pub documents: u64,
    /// Tokens of the text that blocks can be drawn from: of the documents that are longer than a block, or of all
    /// if none is.
    pub tokens: u64,
    /// Documents that no block is drawn from, since others are longer than a block and they are not.
    #[serde(default, skip_serializing_if = "is_none")]
    pub short: u64,
    /// Tokens per block that were asked for, if blocks are shorter because the model takes no longer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_len: Option<u64>,
    /// How conversations were made text, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendering: Option<Rendering>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// How conversations were made text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data, stored by the capture crate")]
pub struct Rendering {
    /// SHA-256 in hexadecimal of the files that hold the model's chat template and its special tokens
    /// (`tokenizer_config.json`, then `chat_template.jinja`); `None` if it has no template, and they were put plainly.
    pub template: Option<String>,
    /// The system message that conversations without one were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// SHA-256 in hexadecimal of the tools that conversations without any were given, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<String>,
}

fn once() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_once(repeated: &u64) -> bool {
    *repeated == 1
}

impl CorpusTag {
    /// Tokens in all blocks, each counted once.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.samples.saturating_mul(self.sequence_len)
    }

    /// How often a token of the text is in a block, on average; `None` if it is not known how many there are.
    #[must_use]
    pub fn draws_per_token(&self) -> Option<f64> {
        let tokens = self.read.as_ref()?.tokens;
        (tokens > 0).then(|| self.tokens() as f64 / tokens as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_counted_where_tokens_were() {
        let tag = |tokens: Option<u64>| CorpusTag {
            name: "c4".into(),
            sha256: "b2".into(),
            samples: 128,
            sequence_len: 128,
            seed: 0,
            repeated: 1,
            read: tokens.map(|tokens| TextFacts { tokens, ..TextFacts::default() }),
        };
        let check = |tokens, expected: Option<f64>| {
            assert_eq!(tag(tokens).draws_per_token(), expected);
        };
        check(None, None);
        check(Some(0), None);
        check(Some(1 << 15), Some(0.5));
        check(Some(128), Some(128.0));
    }

    #[test]
    fn what_was_not_counted_is_not_written() {
        let old = r#"{"name":"c4","sha256":"b2","samples":8,"sequence_len":64,"seed":0}"#;
        let tag: CorpusTag = serde_json::from_str(old).unwrap();
        assert_eq!((tag.repeated, &tag.read), (1, &None));
        assert_eq!(serde_json::to_string(&tag).unwrap(), old);
        let facts = TextFacts { format: "plain text".into(), tokens: 9, ..TextFacts::default() };
        let new = CorpusTag { read: Some(facts), ..tag };
        let text = serde_json::to_string(&new).unwrap();
        assert!(!text.contains("asked_len") && !text.contains("rendering"), "{text}");
        assert_eq!(serde_json::from_str::<CorpusTag>(&text).unwrap(), new);
    }
}
