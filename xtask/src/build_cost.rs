//! `cargo xtask build-cost`: how long the README's two commands compile, and which crates cost most.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use moeprune_cli::{seconds, table};

use crate::binary::{cargo, target_directory};

/// Build what the README's two commands need in an empty target folder and print the processor time of each crate
///
/// Processor time is user and system time of all processes. Both commands are run with --locked; dependencies are downloaded
/// first and not counted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask build-cost
  cargo xtask build-cost --run-tests --most 40")]
pub(crate) struct Arguments {
    /// Also run the tests
    #[arg(long)]
    run_tests: bool,
    /// How many crates to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    most: usize,
}

/// Set for rustc: this program then runs the compiler and appends to the file that the variable names.
const LOG: &str = "MOEPRUNE_BUILD_COST_LOG";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = target_directory()?.join("build-cost");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let log = folder.join("crates.tsv");
    let fetched = cargo().args(["fetch", "--locked"]).status().context("cannot run cargo")?;
    ensure!(fetched.success(), "cargo fetch failed");

    let mut steps = vec![
        ("cargo xtask", &["build", "--package", "xtask", "--bin", "xtask"][..]),
        ("cargo test, compiling", &["test", "--workspace", "--no-run"]),
    ];
    if arguments.run_tests {
        steps.push(("cargo test, running", &["test", "--workspace"]));
    }
    let rows = steps
        .into_iter()
        .map(|(name, command)| Ok(measure(command, &folder, &log)?.row(name)))
        .collect::<Result<Vec<_>>>()?;
    line!("\n{}", table(&["step", "processor time", "wall time"], &rows))?;
    line!("{}", costliest(&fs::read_to_string(&log)?, arguments.most))?;
    Ok(())
}

struct Cost {
    processor: f64,
    wall: f64,
}

impl Cost {
    fn row(&self, name: &str) -> Vec<String> {
        vec![name.into(), seconds(self.processor), seconds(self.wall)]
    }
}

fn measure(command: &[&str], folder: &Path, log: &Path) -> Result<Cost> {
    let (begun, before) = (Instant::now(), processor_seconds_of_children()?);
    let status = cargo()
        .args(command)
        .arg("--locked")
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("RUSTC_WRAPPER", env::current_exe()?)
        .env(LOG, log)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} failed", command.join(" "));
    let processor = processor_seconds_of_children()? - before;
    Ok(Cost { processor, wall: begun.elapsed().as_secs_f64() })
}

/// Runs the compiler if this process was started in its stead, as cargo does with `RUSTC_WRAPPER`.
pub(crate) fn compile_if_wrapping() -> Option<ExitCode> {
    let log = PathBuf::from(env::var_os(LOG)?);
    let compiled = compile(&log);
    Some(match compiled {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: {error:?}");
            ExitCode::FAILURE
        }
    })
}

fn compile(log: &Path) -> Result<u8> {
    let mut arguments = env::args_os().skip(1);
    let compiler = arguments.next().context("no compiler named")?;
    let arguments: Vec<_> = arguments.collect();
    // A compiler that is wrapped must not take itself for a wrapper.
    let status = Command::new(compiler).args(&arguments).env_remove(LOG).status()?;
    let text = |at: usize| arguments.get(at).and_then(|argument| argument.to_str());
    if let Some(at) = arguments.iter().position(|argument| argument == "--crate-name") {
        let tests = arguments.iter().any(|argument| argument == "--test");
        let name =
            format!("{}{}", text(at + 1).unwrap_or("?"), if tests { " (tests)" } else { "" });
        let mut log = fs::OpenOptions::new().append(true).create(true).open(log)?;
        // One write, so that lines of compilers that end together do not mix.
        log.write_all(format!("{name}\t{:.2}\n", processor_seconds_of_children()?).as_bytes())?;
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// User and system time of all processes that this one has waited for, theirs included.
fn processor_seconds_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has no name")?;
    let ticks = |field: usize| -> Result<u64> {
        let text = fields.split_whitespace().nth(field).context("/proc/self/stat is short")?;
        Ok(text.parse()?)
    };
    // proc_pid_stat(5) counts from 1: fields 16 and 17, the first two of which are behind us.
    let per_second = rustix::param::clock_ticks_per_second();
    Ok((ticks(13)? + ticks(14)?) as f64 / per_second as f64)
}

/// The crates that took longest, one row per crate name.
fn costliest(log: &str, most: usize) -> String {
    let mut crates = BTreeMap::<&str, (f64, usize)>::new();
    for (name, spent) in log.lines().filter_map(|line| line.split_once('\t')) {
        let (total, times) = crates.entry(name).or_default();
        *total += spent.parse::<f64>().unwrap_or(0.0);
        *times += 1;
    }
    let mut crates: Vec<_> = crates.into_iter().collect();
    crates.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
    let rows: Vec<Vec<String>> = crates
        .into_iter()
        .take(most)
        .map(|(name, (total, times))| vec![name.into(), seconds(total), times.to_string()])
        .collect();
    table(&["crate", "processor time", "times compiled"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_added_up_and_sorted() {
        let log = "a\t1.50\nb\t3.00\na\t2.00\nbuild_script_build\t0.10\n";
        let lines: Vec<String> = costliest(log, 2).lines().map(str::to_owned).collect();
        assert!(lines[2].starts_with("a ") && lines[2].contains("3.5 s"), "{lines:?}");
        assert!(lines[3].starts_with("b ") && lines[3].ends_with('1'), "{lines:?}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn time_of_children_grows() {
        let before = processor_seconds_of_children().unwrap();
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", spin]).status().unwrap().success());
        assert!(processor_seconds_of_children().unwrap() > before);
    }
}
