//! Completions, pages of the manual, and colours.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use crate::command::Scratch;

#[test]
fn scripts_name_commands_and_options() {
    let scratch = Scratch::new("arctic");
    for shell in ["bash", "zsh", "fish"] {
        let ran = scratch.ok(&format!("completions {shell}"));
        for name in ["moeprune", "doctor", "log-format", "calibration"] {
            assert!(ran.stdout.contains(name), "{shell}: {name}");
        }
        assert_eq!(ran.stderr, "", "{shell}");
    }
    let ran = scratch.run("completions tcsh");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("bash"), "{}", ran.stderr);
}

/// Where the shell is installed, it reads the script.
#[test]
fn shells_read_their_scripts() {
    let scratch = Scratch::new("arctic");
    for shell in ["bash", "zsh", "fish"] {
        let script = scratch.ok(&format!("completions {shell}")).stdout;
        let reading = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn();
        let Ok(mut reading) = reading else { continue };
        reading.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(reading.wait().unwrap().success(), "{shell}");
    }
}

#[test]
fn each_command_has_a_page() {
    let scratch = Scratch::new("arctic");
    let ran = scratch.ok("man pages/man1");
    assert!(
        ran.stdout.starts_with("wrote ") && ran.stdout.contains("pages/man1"),
        "{}",
        ran.stdout
    );
    let page = |name: &str| fs::read_to_string(scratch.path("pages/man1").join(name)).unwrap();
    let help = scratch.ok("--help").stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty()).filter_map(|line| {
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()
    });
    let commands: Vec<&str> = commands.filter(|name| *name != "help").collect();
    assert!(commands.len() > 12, "{commands:?}");
    assert!(page("moeprune.1").contains(".TH moeprune 1"));
    for name in commands {
        let text = page(&format!("moeprune-{name}.1"));
        assert!(text.contains(&format!(".TH moeprune-{name} 1")), "{name}: {text:.200}");
    }
    assert!(page("moeprune-prune.1").contains("expert"));
    assert!(page("moeprune-recipe-show.1").contains(".SH NAME"));
    // Written again over what was written before, and over nothing else.
    scratch.ok("man pages/man1");
    fs::write(scratch.path("pages/man1/moeprune-plan.1"), "notes").unwrap();
    let ran = scratch.run("man pages/man1");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stderr.contains("moeprune-plan.1"), "{}", ran.stderr);
    assert_eq!(page("moeprune-plan.1"), "notes");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let scratch = Scratch::new("arctic");
    let ran = scratch.run("man tokens.jsonl/man1");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stderr.contains("cannot make the folder tokens.jsonl/man1"), "{}", ran.stderr);
}

#[test]
fn colours_are_as_the_environment_says() {
    let scratch = Scratch::new("arctic");
    let check = |arguments: &str, variables: &[(&str, &str)], expected: bool| {
        let ran = scratch.run_in(arguments, variables);
        let is_coloured = ran.stdout.contains('\u{1b}') || ran.stderr.contains('\u{1b}');
        assert_eq!(is_coloured, expected, "{arguments} {variables:?}");
    };
    let force = ("CLICOLOR_FORCE", "1");
    check("--help", &[], false);
    check("--help", &[force], true);
    check("--help", &[force, ("NO_COLOR", "1")], false);
    check("--help", &[("CLICOLOR", "0")], false);
    check("frobnicate", &[force], true);
    check("frobnicate", &[force, ("NO_COLOR", "1")], false);
    check("frobnicate --log-format json", &[force], false);
    check("inspect none", &[force], false);
    check("doctor", &[force], false);
}
