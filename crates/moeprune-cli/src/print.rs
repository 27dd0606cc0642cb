//! Standard output: what cannot be written there is an error.

use std::{
    io::{self, ErrorKind, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind as Usage};

use moeprune::Error;

/// Prints to standard output. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// If it cannot be written for any other reason, a full disk for example.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    delivered(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// The process's arguments, or the exit code after help, a version or an error was printed: 2 for
/// wrong usage, 1 if what was asked for could not be printed.
///
/// # Errors
/// If there is nothing to run, with that exit code.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    let error = match T::try_parse() {
        Ok(arguments) => return Ok(arguments),
        Err(error) => error,
    };
    let printed = delivered(error.print().and_then(|()| io::stdout().flush()));
    let asked_for = matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion);
    Err(match printed {
        Err(failed) if asked_for => {
            say(&format!("error: {failed}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1)),
    })
}

fn delivered(written: io::Result<()>) -> Result<(), Error> {
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

/// Writes a line to standard error; a closed one is ignored.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
