//! The process's arguments, and the variables that stand for some.

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{ArgMatches, Command, Parser, error::ErrorKind};

use crate::{
    environment::{Environment, asks_for_json},
    log::{self, LogFormat},
    print::delivered,
};

/// The process's arguments, or the exit code after help, a version or an error was printed: 2 for
/// wrong usage, 1 if what was asked for could not be printed.
///
/// # Errors
/// If there is nothing to run, with that exit code.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    let arguments: Vec<OsString> = env::args_os().collect();
    let variable = |name: &str| env::var_os(name);
    let environment = Environment::read(&variable);
    let mut command = environment.in_command(T::command());
    let parsed = matches(&mut command, &arguments, &environment).and_then(|mut matches| {
        let format = matches.try_get_one::<LogFormat>("log_format").ok().flatten();
        log::use_format(format.copied().unwrap_or_default());
        T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    });
    parsed.map_err(|error| {
        if asks_for_json(&arguments, &variable) {
            log::use_format(LogFormat::Json);
        }
        show(&error)
    })
}

fn matches(
    command: &mut Command,
    arguments: &[OsString],
    environment: &Environment,
) -> Result<ArgMatches, clap::Error> {
    let matches = command.try_get_matches_from_mut(arguments)?;
    match environment.wrong_for(command, &matches) {
        None => Ok(matches),
        Some(message) => Err(command.error(ErrorKind::ValueValidation, message)),
    }
}

/// Prints help, a version, or what is wrong with the arguments.
fn show(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && log::is_json() {
        log::say(&error.render().to_string());
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
    }
    let printed = delivered(error.print().and_then(|()| io::stdout().flush()));
    match printed {
        Err(failed) if !error.use_stderr() => {
            log::say(&format!("error: {failed}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1)),
    }
}
