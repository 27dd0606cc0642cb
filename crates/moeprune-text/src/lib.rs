//! Text as people have it, as records.
//!
//! A [`TextFile`] is opened under any name and recognised by its content: plain text, JSON lines, a JSON array, a table (CSV, TSV, Parquet), packed by gzip or zstd
//! or not. Its [`Records`] are read one at a time, a plain text in pieces, so a file costs the memory of its longest record. What each record
//! holds is its [`Content`]: a document, a question with its answer, ids of tokens, or a [`Conversation`], in which chat data of all
//! dialects (`messages`, ShareGPT, Alpaca, prompt and completion) has one form. What is not text (archives, web pages, git-lfs pointers, JSON of
//! another shape) is refused by name, with what to do, and never taken for prose.
//!
//! ```
//! use moeprune_text::{Content, TextFile};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("chats");
//! # std::fs::write(&path, r#"{"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}"#)?;
//! let file = TextFile::open(&path)?;
//! assert_eq!(file.format().to_string(), "JSON lines of `conversations`");
//! for record in file.records()? {
//!     if let Content::Conversation(chat) = record?.content {
//!         assert_eq!(chat.messages[1]["role"], "assistant");
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod detect;
mod error;
mod file;
mod foreign;
mod format;
mod json;
mod lines;
mod packed;
mod parquet;
mod pieces;
mod record;
mod records;
mod set;
mod shapes;
mod table;
mod zstd;

pub use detect::ReadOptions;
pub use error::Error;
pub use file::TextFile;
pub use format::{Compression, Container, Format, Shape};
pub use record::{Content, Conversation, Place, Record};
pub use records::Records;
pub use set::{Note, TextSet};
