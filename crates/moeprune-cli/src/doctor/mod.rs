//! `moeprune doctor`

mod disk;
mod gpu;
mod memory;
mod models;
mod processor;

use std::path::PathBuf;

use clap::Args;
use moeprune::{Error, engine::TOOL};
use serde::Serialize;

use self::{disk::Disk, gpu::Gpus, memory::Memory, models::Models, processor::Processor};

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  moeprune doctor --dir /mnt/models

Nothing that is missing is an error: it is said. The disk is measured in a file without a name of at most 256 MB, for at most two seconds.")]
pub(crate) struct DoctorArgs {
    /// Folder whose disk is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What this machine has and can do.
#[derive(Debug, Serialize)]
struct Machine {
    tool: &'static str,
    system: String,
    processor: Processor,
    memory: Memory,
    disk: Disk,
    gpus: Gpus,
    models: Models,
}

pub(crate) fn doctor(args: &DoctorArgs) -> Result<(), Error> {
    let machine = Machine {
        tool: TOOL,
        system: format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH),
        processor: Processor::of_this_machine(),
        memory: Memory::of_this_machine(),
        disk: Disk::measure(&args.dir),
        gpus: Gpus::of_this_machine(),
        models: Models::of_this_user(),
    };
    if args.json {
        return line!("{}", crate::print::json(&machine)?);
    }
    let rows = [
        ("program", vec![format!("{}, {}", machine.tool, machine.system)]),
        ("processor", machine.processor.lines()),
        ("memory", machine.memory.lines()),
        ("disk", machine.disk.lines()),
        ("GPU", machine.gpus.lines()),
        ("models", machine.models.lines()),
    ];
    crate::print::print(&in_two_columns(&rows))
}

/// Names once, beside the first of their lines.
fn in_two_columns(rows: &[(&str, Vec<String>)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, lines) in rows {
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            text += &format!("{name:<width$}  {line}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_once() {
        let rows = [("a", vec!["1".to_owned(), "2".to_owned()]), ("bcd", vec!["3".to_owned()])];
        assert_eq!(in_two_columns(&rows), "a    1\n     2\nbcd  3\n");
    }
}
