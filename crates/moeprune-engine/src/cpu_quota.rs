//! How much processor time control groups leave this process.

use std::path::{Path, PathBuf};

use crate::{
    cgroup_folders::{Version, folders},
    system_file::read,
};

/// The processor time that a control group allows, in cores.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct CpuQuota {
    /// Processor time per time: 1.5 is one and a half cores.
    pub cores: f64,
    /// The file that says so: `cpu.max`, or `cpu.cfs_quota_us`.
    pub file: PathBuf,
}

impl CpuQuota {
    /// The lowest quota of the groups that this process is in; `None` if none of them has one.
    ///
    /// ```
    /// assert!(moeprune_engine::CpuQuota::now().is_none_or(|quota| quota.cores > 0.0));
    /// ```
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::below(Path::new("/"))
    }

    /// As [`now`](Self::now), by the files below a folder.
    fn below(root: &Path) -> Option<Self> {
        let one = folders(root, Version::One, "cpu").into_iter();
        let one = one.filter_map(|folder| {
            let file = folder.join("cpu.cfs_quota_us");
            let period = read(&root.join(folder.join("cpu.cfs_period_us")))?;
            let cores = cores(&read(&root.join(&file))?, &period)?;
            Some(Self { cores, file })
        });
        let two = folders(root, Version::Two, "cpu").into_iter();
        let two = two.filter_map(|folder| {
            let file = folder.join("cpu.max");
            let text = read(&root.join(&file))?;
            let (quota, period) = text.trim().split_once(' ')?;
            Some(Self { cores: cores(quota, period)?, file })
        });
        let lowest = one.chain(two).min_by(|a, b| a.cores.total_cmp(&b.cores))?;
        Some(Self { file: Path::new("/").join(&lowest.file), ..lowest })
    }
}

/// A quota over its period, in cores; `None` for `max`, -1, and what is no number.
fn cores(quota: &str, period: &str) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<u64>().ok().filter(|&number| number > 0);
    Some(number(quota)? as f64 / number(period)? as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: Option<(f64, &str)>) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = CpuQuota::below(root.path());
        let expected = expected.map(|(cores, file)| CpuQuota { cores, file: file.into() });
        assert_eq!(found, expected, "{files:?}");
    }

    #[test]
    fn quotas_of_both_versions() {
        let two = [
            ("proc/self/cgroup", "0::/slice/job\n"),
            ("proc/self/mountinfo", "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ];
        let job = "sys/fs/cgroup/slice/job/cpu.max";
        let of_job = "/sys/fs/cgroup/slice/job/cpu.max";
        check(&[], None);
        check(&two, None);
        for none in ["max 100000\n", "", "x 100000", "100000", "0 100000", "5 0"] {
            check(&[two[0], two[1], (job, none)], None);
        }
        check(&[two[0], two[1], (job, "150000 100000\n")], Some((1.5, of_job)));
        // The group above allows less.
        let above = ("sys/fs/cgroup/slice/cpu.max", "100000 100000");
        let of_slice = "/sys/fs/cgroup/slice/cpu.max";
        check(&[two[0], two[1], (job, "400000 100000"), above], Some((1.0, of_slice)));
        let one = [
            ("proc/self/cgroup", "4:cpu,cpuacct:/job\n"),
            ("proc/self/mountinfo", "30 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"),
            ("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000"),
        ];
        let quota = "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us";
        check(&[one[0], one[1], one[2], (quota, "-1")], None);
        let of_quota = "/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us";
        check(&[one[0], one[1], one[2], (quota, "200000")], Some((2.0, of_quota)));
    }
}
