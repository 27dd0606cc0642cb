//! `cargo xtask bench-io`: removing experts against copying what is kept, and what the disk can do.

mod disk;

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use moeprune_cli::bytes;
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use self::disk::{Cache, DEPTHS, Work};
use crate::binary;

const TARGET: f64 = 1.1;

/// A plan that names all survivors, and one that leaves some choices to `apply`.
const CHOSEN: &str = "chosen.json";
const OPEN: &str = "open.json";

/// How many writes at a time a disk is compared by.
const DEPTH: usize = 4;

/// Bytes that the disk is measured with.
const DISK_BYTES: u64 = 1 << 30;

/// How often.
const DISK_ROUNDS: usize = 3;

/// The unit in which Linux reports processor time to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Time `apply` with a plan that only removes experts against the best that the disk does with the bytes it keeps
///
/// That is the better of `cp` and sync, and of four direct writes of 8 MB at a time (with --cold, of direct reads
/// and writes). All end when their files are durable. A pair is one of each, in alternating order, and `apply` with a plan
/// that leaves it to choose survivors, for which it reads experts. Before the pairs: what the disk does at depths of 1, 2, 4
/// and 8.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cargo xtask bench-io MODEL --pairs 7 --cold
  cargo xtask bench-io /dev/shm/MODEL --scratch /dev/shm
  cargo xtask bench-io model.gguf")]
pub(crate) struct BenchIoArgs {
    /// Directory of the model, or a .gguf file; results are written beside it, or to --scratch, and removed
    model: PathBuf,
    /// Folder on the disk that results are written to
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Run this binary, instead of one that is built for it
    #[arg(long, value_name = "FILE")]
    moeprune: Option<PathBuf>,
    /// How often each is timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Share of the experts to remove
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    expert_sparsity: f64,
    /// Drop the files from memory before each, instead of reading them into it
    #[arg(long)]
    cold: bool,
}

pub(crate) fn run(args: &BenchIoArgs) -> Result<()> {
    let moeprune = match &args.moeprune {
        Some(binary) => {
            binary.canonicalize().with_context(|| format!("no {}", binary.display()))?
        }
        None => binary::build()?,
    };
    let scratch = match &args.scratch {
        Some(folder) => binary::scratch_in(folder)?,
        None => binary::scratch_beside(&args.model)?,
    };
    let bench = Bench { moeprune, scratch, args };
    bench.time_plans()?;
    bench.keep()?;
    bench.time_disk()?;
    let pairs = (0..args.pairs).map(|pair| bench.time_pair(pair)).collect::<Result<Vec<Pair>>>()?;
    let ratios = |of: fn(&Pair) -> f64| spread(&mut pairs.iter().map(of).collect::<Vec<f64>>());
    line!(
        "apply to cp {}; to the better of both {}, target {TARGET}; choosing survivors too {} ({})",
        ratios(|pair| pair.apply.wall / pair.copy.wall),
        ratios(|pair| pair.apply.wall / pair.best()),
        ratios(|pair| pair.choosing.wall / pair.best()),
        if args.cold { "cold" } else { "warm" }
    )?;
    Ok(())
}

/// Times of one round.
#[derive(Debug, Clone, Copy)]
struct Pair {
    /// Of a plan that names all survivors.
    apply: Time,
    /// Of one that leaves it to `apply` which of three or more alike experts stay.
    choosing: Time,
    copy: Time,
    direct: f64,
}

impl Pair {
    /// The better of what `apply` is held against.
    fn best(&self) -> f64 {
        self.copy.wall.min(self.direct)
    }
}

/// The binary, the model, and a folder for what is made of it.
struct Bench<'a> {
    moeprune: PathBuf,
    scratch: TempDir,
    args: &'a BenchIoArgs,
}

impl Bench<'_> {
    fn place(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Where a model of the same kind is written.
    fn model(&self, name: &str) -> PathBuf {
        match self.args.model.is_file() {
            true => self.place(name).with_extension("gguf"),
            false => self.place(name),
        }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.moeprune);
        command.args(["--quiet", verb]).arg(&self.args.model);
        command
    }

    fn plan(&self, out: &str) -> Command {
        let mut plan = self.command("plan");
        let share = self.args.expert_sparsity.to_string();
        plan.arg("-o").arg(self.place(out));
        plan.args(["--sparsity", &share, "--expert-sparsity", &share]);
        plan
    }

    fn apply(&self, out: &str, plan: &str) -> Command {
        let mut apply = self.command("apply");
        apply.arg(self.model(out)).arg("--plan").arg(self.place(plan));
        apply
    }

    /// What comes before `apply`, each by itself.
    fn time_plans(&self) -> Result<()> {
        let prepare = || prepare(&self.args.model, self.args.cold);
        prepare()?;
        line!("inspect {:.3} s", timed(|| succeed(&mut self.command("inspect")))?.wall)?;
        prepare()?;
        line!("plan    {:.3} s", timed(|| succeed(&mut self.plan(OPEN)))?.wall)?;
        // Choosing survivors by their weights is left to `apply` by default. By itself:
        let mut choosing = self.plan(CHOSEN);
        choosing.arg("--read-experts");
        prepare()?;
        line!("plan --read-experts {:.3} s", timed(|| succeed(&mut choosing))?.wall)?;
        Ok(())
    }

    /// Makes what is copied: the bytes that `apply` keeps.
    fn keep(&self) -> Result<()> {
        succeed(&mut self.apply("kept", CHOSEN))?;
        let (read, written) = (size(&self.args.model)?, size(&self.model("kept"))?);
        line!("model {}, kept {}", bytes(read), bytes(written))?;
        // Either is read beside the pages of what it writes.
        let free = available_memory()?;
        if !self.args.cold && read + 2 * written > free {
            line!("note: {} of memory is too little for warm files", bytes(free))?;
        }
        Ok(())
    }

    /// What the disk can do: each depth in turns.
    fn time_disk(&self) -> Result<()> {
        let (kept, out) = (files(&self.model("kept"))?, self.place("disk"));
        let write =
            |depth, cache| Work { read: &[], write: Some(&out), bytes: DISK_BYTES, depth, cache };
        let read = |depth| Work { read: &kept, write: None, bytes: 0, depth, cache: Cache::Past };
        let mut times = vec![Vec::new(); 2 * DEPTHS.len() + 1];
        for _ in 0..DISK_ROUNDS {
            let jobs = DEPTHS.iter().map(|&depth| write(depth, Cache::Past));
            let jobs = jobs.chain(DEPTHS.iter().map(|&depth| read(depth)));
            for (job, times) in jobs.chain([write(1, Cache::Through)]).zip(&mut times) {
                if job.write.is_none() {
                    prepare(&self.model("kept"), true)?;
                }
                times.push(job.time()?);
            }
        }
        let kept_bytes = size(&self.model("kept"))?;
        for (n, times) in times.iter_mut().enumerate() {
            let (what, bytes) = match n / DEPTHS.len() {
                0 => (format!("direct writes, {} at a time", DEPTHS[n]), DISK_BYTES),
                1 => (format!("direct reads, {} at a time", DEPTHS[n - DEPTHS.len()]), kept_bytes),
                _ => ("write and sync".to_owned(), DISK_BYTES),
            };
            let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
            let median = rate(median(times));
            let (slowest, fastest) = (rate(times[times.len() - 1]), rate(times[0]));
            line!("{what:29} {median:5.0} MB/s ({slowest:.0} to {fastest:.0})")?;
        }
        Ok(())
    }

    /// Times one of each, in alternating order.
    fn time_pair(&self, pair: u32) -> Result<Pair> {
        let pair_of = |apply, choosing, copy, direct| Pair { apply, choosing, copy, direct };
        let times = if pair.is_multiple_of(2) {
            let (apply, choosing) = (self.time_apply(CHOSEN)?, self.time_apply(OPEN)?);
            pair_of(apply, choosing, self.time_copy()?, self.time_direct()?)
        } else {
            let (direct, copy) = (self.time_direct()?, self.time_copy()?);
            let choosing = self.time_apply(OPEN)?;
            pair_of(self.time_apply(CHOSEN)?, choosing, copy, direct)
        };
        line!(
            "pair {:<2} apply {} (choosing too {}), cp {}, {DEPTH} direct {:.3} s, ratio {:.3}",
            pair + 1,
            times.apply,
            times.choosing,
            times.copy,
            times.direct,
            times.apply.wall / times.best()
        )?;
        Ok(times)
    }

    /// Writes as many bytes as are kept, or, cold, reads and writes these.
    fn time_direct(&self) -> Result<f64> {
        let (kept, out) = (self.model("kept"), self.place("direct"));
        prepare(&kept, self.args.cold)?;
        let read = if self.args.cold { files(&kept)? } else { Vec::new() };
        let bytes = size(&kept)?;
        Work { read: &read, write: Some(&out), bytes, depth: DEPTH, cache: Cache::Past }.time()
    }

    fn time_apply(&self, plan: &str) -> Result<Time> {
        prepare(&self.args.model, self.args.cold)?;
        let time = timed(|| succeed(&mut self.apply("applied", plan)))?;
        remove(&self.model("applied"))?;
        Ok(time)
    }

    fn time_copy(&self) -> Result<Time> {
        let (kept, copied) = (self.model("kept"), self.model("copied"));
        prepare(&kept, self.args.cold)?;
        let time = timed(|| copy_durably(&kept, &copied))?;
        remove(&copied)?;
        Ok(time)
    }
}

/// Seconds.
#[derive(Debug, Clone, Copy)]
struct Time {
    wall: f64,
    /// Of all threads, in user mode and in the kernel: what other work on the machine changes
    /// least.
    processor: f64,
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s ({:.2} s of processors)", self.wall, self.processor)
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Time> {
    let (began, before) = (Instant::now(), children_processor_time()?);
    work()?;
    let wall = began.elapsed().as_secs_f64();
    Ok(Time { wall, processor: children_processor_time()? - before })
}

/// Processor time of all commands that have ended.
fn children_processor_time() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let ticks = children_ticks(&stat).context("/proc/self/stat is not as it should be")?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// `cutime` and `cstime`: fields 16 and 17 of a line whose second field, a name in parentheses, can
/// hold anything.
fn children_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(13);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// Copies every byte, on file systems too that could share them, and makes the copy durable as
/// moeprune does its output.
fn copy_durably(from: &Path, to: &Path) -> Result<()> {
    succeed(Command::new("cp").args(["-r", "--reflink=never"]).arg(from).arg(to))?;
    for path in files(to)? {
        File::open(&path)?
            .sync_all()
            .with_context(|| format!("cannot flush {}", path.display()))?;
    }
    File::open(to)?.sync_all()?;
    Ok(())
}

/// Brings the files of a folder into memory or out of it, with nothing left to be written.
fn prepare(folder: &Path, cold: bool) -> Result<()> {
    rustix::fs::sync();
    if cold && fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        return Ok(());
    }
    for path in files(folder)? {
        let mut file = File::open(&path)?;
        if cold {
            fadvise(&file, 0, None, Advice::DontNeed)?;
        } else {
            io::copy(&mut file, &mut io::sink())
                .with_context(|| format!("cannot read {}", path.display()))?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    if folder.is_file() {
        for file in [
            folder.to_owned(),
            folder.with_extension("gguf.report.json"),
            folder.with_extension("gguf.report.md"),
        ] {
            if file.is_file() {
                fs::remove_file(&file)
                    .with_context(|| format!("cannot remove {}", file.display()))?;
            }
        }
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn size(folder: &Path) -> Result<u64> {
    files(folder)?.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no MemAvailable")?;
    Ok(1024 * kib.parse::<u64>()?)
}

/// The median of at least one number, and the least and the most.
fn spread(values: &mut [f64]) -> String {
    let median = median(values);
    format!("{median:.3} ({:.3} to {:.3})", values[0], values[values.len() - 1])
}

/// Of at least one number, which are sorted then.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        fn check(values: &[f64], expected: f64) {
            assert_eq!(median(&mut values.to_vec()).to_bits(), expected.to_bits());
        }
        check(&[3.0], 3.0);
        check(&[3.0, 1.0], 2.0);
        check(&[3.0, 1.0, 2.5], 2.5);
    }

    #[test]
    fn processor_time_is_read() {
        fn check(stat: &str, expected: Option<u64>) {
            assert_eq!(children_ticks(stat), expected, "{stat}");
        }
        check("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 10 20 300 40 20 0 1", Some(340));
        check("7 (a) S 1 7 7 0 -1 0 0 0 0 0 10 20 300", None);
        check("", None);
    }

    #[test]
    fn a_copy_has_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("a"), "some").unwrap();
        fs::write(from.join("b"), "bytes").unwrap();
        copy_durably(&from, &to).unwrap();
        assert_eq!(size(&to).unwrap(), 9);
        assert_eq!(fs::read_to_string(to.join("b")).unwrap(), "bytes");
    }
}
