//! A server of a few lines that behaves as real ones do, and worse; and the journal.

mod connecting;
mod generating;
mod journal;
mod mock;
mod scoring;
mod trouble;
