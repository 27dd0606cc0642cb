//! Standard output: what cannot be written there is an error.

use std::{
    io::{self, ErrorKind, Write as _},
    path::Path,
};

use moeprune::Error;

/// Prints to standard output. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// If it cannot be written for any other reason, a full disk for example.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    delivered(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// What was written; a reader that has gone away is no error.
pub(crate) fn delivered(written: io::Result<()>) -> Result<(), Error> {
    match written {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| Error::io(Path::new("standard output"), "write to", e)),
    }
}

/// A result as indented JSON.
///
/// # Errors
/// If it has a number that is not finite.
pub fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string_pretty(value)
        .map_err(|e| Error::Request(format!("the result cannot be written as JSON: {e}")))
}
