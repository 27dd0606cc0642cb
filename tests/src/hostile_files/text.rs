//! Files of text, of any format.

use moeprune_text::{Content, Record, TextFile};
use serde_json::{Map, Value, json};

use super::{Place, Target, peak_of};

/// A file of text as it is, packed or not.
#[derive(Debug)]
pub struct Text(Place);

/// A Parquet file.
#[derive(Debug)]
pub struct Parquet(Place);

/// A zstd archive, without the four bytes that all of them begin with.
#[derive(Debug)]
pub struct Zstd(Place);

/// What buffers and a piece of plain text take, whatever is read.
const BUFFERS: usize = 8 << 20;
/// The largest window of zstd that is read, and what its decoder keeps besides.
const WINDOW: usize = 300 << 20;
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const PACKED: [&[u8]; 2] = [b"\x1f\x8b", b"\x2a\x4d\x18"];

impl Target for Text {
    const NAME: &'static str = "text";

    fn new() -> Self {
        Self(Place::new())
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        let seeds: [(&str, &str); 12] = [
            ("plain", "Moths fly at night.\n"),
            ("lines", "{\"text\": \"a\"}\n{\"n\": NaN, \"text\": \"b\"}\n"),
            ("questions", "{\"question\": \"1+1?\", \"answer\": \"2\"}\n"),
            ("tokens", "{\"tokens\": [1, 2]}\n{\"tokens\": []}\n"),
            ("array", "[{\"text\": \"a\"}, {\"text\": \"b\"}]"),
            ("strings", "[\"a\", \"b\"]"),
            ("indented", "{\n \"text\": \"a\"\n}\n{\n \"text\": \"b\"\n}\n"),
            ("messages", MESSAGES),
            ("sharegpt", "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}]}"),
            (
                "alpaca",
                "{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\", \"history\": [[\"d\", \"e\"]]}",
            ),
            (
                "completion",
                "{\"prompt\": \"a\", \"completion\": [{\"role\": \"assistant\", \"content\": \"b\"}]}",
            ),
            ("table", "id,text\n1,\"a\"\"b\"\n"),
        ];
        seeds.map(|(name, text)| (name, text.as_bytes().to_vec())).to_vec()
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let is_packed = bytes.starts_with(ZSTD)
            || PACKED
                .iter()
                .any(|packed| bytes.windows(packed.len()).take(2).any(|b| b == *packed));
        let most = if is_packed { usize::MAX } else { 64 * bytes.len() + BUFFERS };
        read(&self.0, bytes, most)
    }
}

const MESSAGES: &str = "{\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"type\": \"function\", \
     \"function\": {\"name\": \"f\", \"arguments\": \"{}\"}}]}], \"tools\": \"[{}]\"}\n";

impl Target for Parquet {
    const NAME: &'static str = "parquet";

    fn new() -> Self {
        Self(Place::new())
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        macro_rules! files {
            ($($name:literal),*) => {
                vec![$(($name, include_bytes!(concat!(
                    "../../../crates/moeprune-text/tests/text/files/", $name, ".parquet"
                )).to_vec())),*]
            };
        }
        files![
            "chats-v2",
            "codec-brotli-v1-plain",
            "codec-gzip-v2-plain",
            "codec-lz4-v1-dictionary",
            "codec-none-v1-dictionary",
            "codec-snappy-v2-dictionary",
            "codec-zstd-v1-plain",
            "encoding-delta-length-v1",
            "encoding-delta-v2",
            "map",
            "sharegpt",
            "tokens-uint32-delta"
        ]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let most = if bytes.windows(4).any(|b| b == ZSTD) { WINDOW } else { BUFFERS };
        read(&self.0, bytes, (1 << 11) * bytes.len() + most)
    }
}

impl Target for Zstd {
    const NAME: &'static str = "zst";

    fn new() -> Self {
        Self(Place::new())
    }

    fn valid(&self) -> Vec<(&'static str, Vec<u8>)> {
        let words = include_bytes!("../../../crates/moeprune-text/tests/text/files/words.zst");
        let frames =
            include_bytes!("../../../crates/moeprune-text/tests/text/files/words-frames.zst");
        vec![("words", words[4..].to_vec()), ("frames", frames[4..].to_vec())]
    }

    fn run(&self, bytes: &[u8]) -> Result<(), String> {
        let archive = [ZSTD, bytes].concat();
        read(&self.0, &archive, usize::MAX)
    }
}

/// Reads a file, twice, holding no more than `most` bytes beside its records; what was read is the same when it is written as JSON lines.
fn read(place: &Place, bytes: &[u8], most: usize) -> Result<(), String> {
    let path = place.write("text", bytes);
    let plain = |message: String| message.replace(&path.display().to_string(), "DIR/text");
    let (counted, peak) = peak_of(|| -> Result<(TextFile, usize), moeprune_text::Error> {
        let file = TextFile::open(&path)?;
        let mut records = 0;
        for record in file.records()? {
            record?;
            records += 1;
        }
        Ok((file, records))
    });
    assert!(peak <= most, "{peak} bytes held for a file of {}; {most} are allowed", bytes.len());
    let (file, count) = counted.map_err(|error| plain(error.to_string()))?;
    if count > 1 << 12 {
        return Ok(());
    }
    let records: Result<Vec<Record>, _> = file.records().map_err(|e| e.to_string())?.collect();
    let records = records.expect("it was read before");
    assert_eq!(records.len(), count);
    written_again(place, &records);
    Ok(())
}

fn written_again(place: &Place, records: &[Record]) {
    let lines: Option<Vec<String>> = records.iter().map(|record| line(&record.content)).collect();
    let Some(lines) = lines.filter(|lines| !lines.is_empty()) else { return };
    let file = TextFile::open(place.write("again", lines.join("\n"))).expect("is right");
    let again = file.records().expect("opens");
    let again: Vec<Content> = again.map(|record| record.expect("is right").content).collect();
    let before: Vec<&Content> = records.iter().map(|record| &record.content).collect();
    assert_eq!(again.iter().collect::<Vec<_>>(), before);
}

/// A record as a line; `None` for a piece of a plain text.
fn line(content: &Content) -> Option<String> {
    Some(match content {
        Content::Text(text) => json!({"text": text}).to_string(),
        Content::Question { question, answer } => {
            json!({"question": question, "answer": answer}).to_string()
        }
        Content::Tokens(ids) => json!({"tokens": ids}).to_string(),
        Content::Conversation(chat) => {
            let mut object = Map::new();
            object.insert("messages".to_owned(), Value::Array(chat.messages.clone()));
            object.extend(chat.tools.clone().map(|tools| ("tools".to_owned(), tools)));
            Value::Object(object).to_string()
        }
        _ => return None,
    })
}
