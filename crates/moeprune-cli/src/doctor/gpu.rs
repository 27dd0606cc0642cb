//! GPUs: what the driver says, and whether this build can use one.

use std::{fs, path::Path};

use moeprune::{DeviceChoice, Execution};
use serde::Serialize;

use crate::table::bytes;

/// Where NVIDIA's driver tells about itself.
const DRIVER: &str = "/proc/driver/nvidia";

#[derive(Debug, Serialize)]
pub(super) struct Gpus {
    /// The version of NVIDIA's driver, if it is loaded.
    driver: Option<String>,
    /// The names of the GPUs that it knows.
    names: Vec<String>,
    /// Whether `--device cuda` works.
    usable: bool,
    /// Bytes that the first device has free.
    free: Option<u64>,
    /// Why none can be used.
    problem: Option<String>,
}

impl Gpus {
    pub(super) fn of_this_machine() -> Self {
        let (driver, names) = known_to_driver(Path::new(DRIVER));
        let opened = Execution::open(DeviceChoice::Cuda(0), None, None);
        let free = opened.as_ref().ok().and_then(|device| device.compute().free_memory().ok());
        Self {
            driver,
            names,
            usable: opened.is_ok(),
            free: free.flatten(),
            problem: opened.err().map(|error| error.to_string()),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let driver = match &self.driver {
            Some(version) => format!("NVIDIA driver {version}"),
            None => "no NVIDIA driver is loaded".to_owned(),
        };
        let found = match self.names.as_slice() {
            [] => driver,
            names => format!("{}; {driver}", names.join(", ")),
        };
        let use_of_it = match (&self.problem, self.free) {
            (Some(problem), _) => problem.clone(),
            (None, Some(free)) => format!("--device cuda works, {} free", bytes(free)),
            (None, None) => "--device cuda works".to_owned(),
        };
        vec![found, use_of_it]
    }
}

/// The driver's version and the names of its GPUs, in the order of their addresses.
fn known_to_driver(folder: &Path) -> (Option<String>, Vec<String>) {
    let about = fs::read_to_string(folder.join("version")).unwrap_or_default();
    let version = about.lines().find_map(|line| {
        let rest = line.strip_prefix("NVRM version:")?;
        rest.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
    });
    let mut gpus: Vec<(String, String)> = fs::read_dir(folder.join("gpus"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let about = fs::read_to_string(entry.path().join("information")).ok()?;
            let model = about.lines().find_map(|line| line.strip_prefix("Model:"))?;
            Some((entry.file_name().to_string_lossy().into_owned(), model.trim().to_owned()))
        })
        .collect();
    gpus.sort();
    (version.map(str::to_owned), gpus.into_iter().map(|(_, name)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_knows() {
        let folder = tempfile::tempdir().unwrap();
        let check = |version: Option<&str>, names: &[&str]| {
            let found = known_to_driver(folder.path());
            assert_eq!(
                (found.0.as_deref(), found.1),
                (version, names.iter().map(|&n| n.to_owned()).collect())
            );
        };
        check(None, &[]);
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("version", "nonsense");
        check(None, &[]);
        write(
            "version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\nGCC version: 12\n",
        );
        write("gpus/0000:02:00.0/information", "Model: \t\t B\nIRQ: 1\n");
        write("gpus/0000:01:00.0/information", "Model: \t\t A\n");
        write("gpus/0000:03:00.0/information", "");
        check(Some("550.54.15"), &["A", "B"]);
    }
}
