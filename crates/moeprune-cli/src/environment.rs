//! Environment variables that stand for common options.
//!
//! A variable takes the place of the option's default: the option itself, where it is given, goes before, and a variable
//! contradicts no other option.

use std::ffi::OsString;

use clap::{ArgMatches, Command, parser::ValueSource};
use moeprune::DeviceChoice;

use crate::{log::LogFormat, memory_size::memory_size, rates::rate};

/// A variable that stands for an option.
struct Variable {
    name: &'static str,
    /// The option's name in clap.
    option: &'static str,
    /// The value as the option takes it, or what is wrong with it.
    read: fn(&str) -> Result<String, String>,
}

const VARIABLES: [Variable; 6] = [
    Variable {
        name: "MOEPRUNE_DEVICE",
        option: "device",
        read: |text| checked(text, str::parse::<DeviceChoice>),
    },
    Variable {
        name: "MOEPRUNE_MAX_MEMORY",
        option: "max_memory",
        read: |text| checked(text, memory_size),
    },
    Variable { name: "MOEPRUNE_DISK_RATE", option: "disk_rate", read: |text| checked(text, rate) },
    Variable {
        name: "MOEPRUNE_COMPUTE_RATE",
        option: "compute_rate",
        read: |text| checked(text, rate),
    },
    Variable { name: LOG_FORMAT, option: "log_format", read: |text| checked(text, log_format) },
    Variable { name: "MOEPRUNE_QUIET", option: "quiet", read: switch },
];

const LOG_FORMAT: &str = "MOEPRUNE_LOG_FORMAT";

fn checked<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<String, String> {
    read(text).map(|_| text.to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    LogFormat::named(text).ok_or_else(|| format!("`{text}` is neither text nor json"))
}

/// Whether an option without a value is on.
fn switch(text: &str) -> Result<String, String> {
    match text {
        "1" | "true" | "yes" | "on" => Ok("true".to_owned()),
        "0" | "false" | "no" | "off" => Ok("false".to_owned()),
        _ => Err(format!("`{text}` is neither 1 nor 0")),
    }
}

/// The variables that are set and not empty.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// Options and what they are by default.
    defaults: Vec<(&'static str, &'static str)>,
    /// Options that a variable gives no value that they could take, and what is to be said then.
    wrong: Vec<(&'static str, String)>,
}

impl Environment {
    /// Reads them.
    pub(crate) fn read(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let mut environment = Self::default();
        for Variable { name, option, read } in &VARIABLES {
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else { continue };
            let read = value.to_str().ok_or_else(|| "it is no text".to_owned()).and_then(read);
            match read {
                // Clap keeps defaults as long as the process lives.
                Ok(value) => environment.defaults.push((option, value.leak())),
                Err(why) => {
                    let message = format!(
                        "the environment variable {name} has no value that it can have: {why}"
                    );
                    environment.wrong.push((option, message));
                }
            }
        }
        environment
    }

    /// A command with these defaults.
    pub(crate) fn in_command(&self, command: Command) -> Command {
        let mut command = command;
        for &(option, value) in &self.defaults {
            if command.get_arguments().any(|argument| argument.get_id() == option) {
                command = command.mut_arg(option, |argument| argument.default_value(value));
            }
        }
        command.mut_subcommands(|command| self.in_command(command))
    }

    /// What is wrong with a variable whose option the command that was found has, and was not given.
    pub(crate) fn wrong_for(&self, command: &Command, matches: &ArgMatches) -> Option<&str> {
        let below = matches
            .subcommand()
            .and_then(|(name, matches)| self.wrong_for(command.find_subcommand(name)?, matches));
        below.or_else(|| {
            let is_needed = |option: &str| {
                command.get_arguments().any(|argument| argument.get_id() == option)
                    && matches.value_source(option) != Some(ValueSource::CommandLine)
            };
            let wrong = self.wrong.iter().find(|(option, _)| is_needed(option));
            wrong.map(|(_, message)| message.as_str())
        })
    }
}

/// Whether lines are to be JSON by a command line that cannot be parsed.
pub(crate) fn asks_for_json(
    arguments: &[OsString],
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> bool {
    let mut given = arguments.iter().enumerate().filter_map(|(at, argument)| {
        let argument = argument.to_str()?;
        match argument.strip_prefix("--log-format=") {
            Some(value) => Some(value),
            None if argument == "--log-format" => arguments.get(at + 1)?.to_str(),
            None => None,
        }
    });
    match given.next_back() {
        Some(format) => format == "json",
        None => variable(LOG_FORMAT).is_some_and(|format| format == "json"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn command() -> Command {
        let option = |name: &'static str| Arg::new(name).long(name);
        Command::new("tool")
            .arg(option("quiet").action(clap::ArgAction::SetTrue).global(true))
            .subcommand(
                Command::new("run").arg(option("device")).arg(option("list").exclusive(true)),
            )
            .subcommand(Command::new("show"))
    }

    /// Parses a command line, and gives the device, whether it is quiet, and what is wrong.
    fn check(line: &str, variables: &[(&str, &str)], expected: (Option<&str>, bool, Option<&str>)) {
        let of = |name: &str| {
            variables.iter().find(|(is, _)| *is == name).map(|(_, value)| OsString::from(value))
        };
        let environment = Environment::read(&of);
        let mut command = environment.in_command(command());
        let matches = command.try_get_matches_from_mut(line.split(' ')).unwrap();
        let (_, below) = matches.subcommand().unwrap();
        let device = below.try_get_one::<String>("device").ok().flatten();
        let wrong = environment.wrong_for(&command, &matches);
        let found = (device.map(String::as_str), below.get_flag("quiet"));
        assert_eq!(found, (expected.0, expected.1), "{line} {variables:?}");
        match expected.2 {
            None => assert_eq!(wrong, None, "{line} {variables:?}"),
            Some(part) => assert!(wrong.is_some_and(|wrong| wrong.contains(part)), "{wrong:?}"),
        }
    }

    #[test]
    fn options_go_before_variables() {
        let device = ("MOEPRUNE_DEVICE", "cuda:1");
        check("tool run", &[], (None, false, None));
        check("tool run", &[device], (Some("cuda:1"), false, None));
        check("tool run --device cpu", &[device], (Some("cpu"), false, None));
        check("tool run", &[("MOEPRUNE_DEVICE", "")], (None, false, None));
        check("tool run --list x", &[device], (Some("cuda:1"), false, None));
        check("tool show", &[device], (None, false, None));
    }

    #[test]
    fn switches_are_on_or_off() {
        for (value, is_on) in [("1", true), ("true", true), ("0", false), ("off", false)] {
            check("tool show", &[("MOEPRUNE_QUIET", value)], (None, is_on, None));
        }
        check("tool show --quiet", &[("MOEPRUNE_QUIET", "0")], (None, true, None));
        check("tool --quiet show", &[("MOEPRUNE_QUIET", "0")], (None, true, None));
    }

    #[test]
    fn wrong_values_count_where_they_are_needed() {
        let wrong = ("MOEPRUNE_DEVICE", "gpu");
        check("tool run", &[wrong], (None, false, Some("MOEPRUNE_DEVICE")));
        check("tool run --device cpu", &[wrong], (Some("cpu"), false, None));
        check("tool show", &[wrong], (None, false, None));
        check("tool show", &[("MOEPRUNE_QUIET", "maybe")], (None, false, Some("neither 1 nor 0")));
    }

    #[test]
    fn json_is_seen_in_lines_that_are_wrong() {
        let check = |line: &str, variable: Option<&str>, expected: bool| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let of =
                |name: &str| (name == LOG_FORMAT).then(|| variable.map(OsString::from)).flatten();
            assert_eq!(asks_for_json(&arguments, &of), expected, "{line} {variable:?}");
        };
        check("tool", None, false);
        check("tool --log-format json x", None, true);
        check("tool --log-format=json", None, true);
        check("tool --log-format text", Some("json"), false);
        check("tool --log-format", Some("json"), true);
        check("tool", Some("json"), true);
        check("tool", Some("text"), false);
    }
}
