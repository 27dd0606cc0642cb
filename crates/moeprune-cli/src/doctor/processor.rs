//! Cores, what limits them, and what products run on.

use std::{fs, path::PathBuf, thread};

use moeprune::engine::CpuQuota;
use moeprune_core::plural;
use serde::Serialize;

/// Where the number of threads can be set.
const THREADS: &str = "RAYON_NUM_THREADS";

#[derive(Debug, Serialize)]
pub(super) struct Processor {
    name: Option<String>,
    /// Cores that the machine has.
    cores: Option<usize>,
    /// Threads that a run uses: as many as the cores that this process may use, unless a variable says otherwise.
    threads: Option<usize>,
    threads_set: Option<String>,
    quota: Option<Quota>,
    /// The instruction set of products with weights.
    instructions: &'static str,
    /// Whether `--dtype f32-tiles` works here.
    tiles: bool,
}

#[derive(Debug, Serialize)]
struct Quota {
    cores: f64,
    file: PathBuf,
}

impl Processor {
    pub(super) fn of_this_machine() -> Self {
        let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let CpuInfo { name, cores } = CpuInfo::of(&about);
        Self {
            name,
            cores,
            threads: thread::available_parallelism().ok().map(usize::from),
            threads_set: std::env::var(THREADS).ok().filter(|threads| !threads.is_empty()),
            quota: CpuQuota::now().map(|CpuQuota { cores, file }| Quota { cores, file }),
            instructions: moeprune_linalg::instruction_set(),
            tiles: moeprune_linalg::has_tiles(),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let name = self.name.as_deref().unwrap_or("of unknown name");
        let mut cores = match self.cores {
            Some(cores) => plural(cores, "core"),
            None => "an unknown number of cores".to_owned(),
        };
        if let Some(threads) = self.threads.filter(|&threads| Some(threads) != self.cores) {
            cores += &format!(", {threads} for this process");
        }
        if let Some(Quota { cores: quota, file }) = &self.quota {
            cores += &format!(", {quota} allowed by its control group ({})", file.display());
        }
        if let Some(threads) = &self.threads_set {
            cores += &format!(", {THREADS}={threads}");
        }
        let tiles = match self.tiles {
            true => "AMX with --dtype f32-tiles",
            false => "no AMX (--dtype f32-tiles)",
        };
        vec![format!("{name}: {cores}"), format!("products in {}, {tiles}", self.instructions)]
    }
}

/// What Linux says of processors.
#[derive(Debug, Default, PartialEq, Eq)]
struct CpuInfo {
    name: Option<String>,
    cores: Option<usize>,
}

impl CpuInfo {
    fn of(text: &str) -> Self {
        let value = |line: &str, key: &str| {
            let (found, value) = line.split_once(':')?;
            (found.trim() == key).then(|| value.trim().to_owned())
        };
        let name = text.lines().find_map(|line| value(line, "model name"));
        let cores = text.lines().filter_map(|line| value(line, "processor")).count();
        Self { name: name.filter(|name| !name.is_empty()), cores: (cores > 0).then_some(cores) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: Option<&str>, cores: Option<usize>) {
        let expected = CpuInfo { name: name.map(str::to_owned), cores };
        assert_eq!(CpuInfo::of(text), expected, "{text}");
    }

    #[test]
    fn processors_are_counted() {
        check("", None, None);
        check("nonsense\n:\n::", None, None);
        let one = "processor\t: 0\nmodel name\t: A: B\n\n";
        check(one, Some("A: B"), Some(1));
        check(&one.repeat(3), Some("A: B"), Some(3));
        check("processor: 0\nmodel name:\n", None, Some(1));
    }
}
