use std::{fs, path::Path};

use tempfile::TempDir;

use super::{AvailableMemory, MemoryLimit};

const MEMINFO: &str = "MemTotal:       64000 kB\nMemFree: 1 kB\nMemAvailable:   50000 kB\n";
const MOUNT_2: &str =
    "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const MOUNT_1: &str = "30 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
     31 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

/// A made-up machine: files by their paths.
fn machine(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

#[track_caller]
fn check(files: &[(&str, &str)], expected: Option<(u64, &str)>) {
    check_asked(files, None, expected);
}

#[track_caller]
fn check_asked(files: &[(&str, &str)], asked: Option<u64>, expected: Option<(u64, &str)>) {
    let machine = machine(files);
    let found = AvailableMemory::below(machine.path(), asked);
    let found = found.map(|found| (found.bytes, found.limit.to_string()));
    assert_eq!(found, expected.map(|(bytes, limit)| (bytes, limit.to_owned())));
}

#[test]
fn the_machine_alone() {
    check(&[], None);
    check(&[("proc/meminfo", MEMINFO)], Some((51_200_000, "this machine")));
    check_asked(&[], Some(7), Some((7, "--max-memory")));
    let files = [("proc/meminfo", MEMINFO)];
    check_asked(&files, Some(7_000_000), Some((7_000_000, "--max-memory")));
    check_asked(&files, Some(51_200_000), Some((51_200_000, "--max-memory")));
    check_asked(&files, Some(u64::MAX), Some((51_200_000, "this machine")));
    for bad in ["", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: 5 MB", "\u{0}"] {
        check(&[("proc/meminfo", bad)], None);
    }
    check(&[("proc/meminfo", "MemAvailable: 18446744073709551615 kB")], None);
}

#[test]
fn groups_of_version_2() {
    let group = |limits: &[(&'static str, &'static str)], expected| {
        let mut files = vec![
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/slice/job\n"),
            ("proc/self/mountinfo", MOUNT_2),
        ];
        files.extend(limits);
        check(&files, expected);
    };
    let machine = Some((51_200_000, "this machine"));
    group(&[], machine);
    const MAX: &str = "sys/fs/cgroup/slice/job/memory.max";
    const CURRENT: &str = "sys/fs/cgroup/slice/job/memory.current";
    let of_job = "the control group (/sys/fs/cgroup/slice/job/memory.max)";
    group(&[(MAX, "max\n"), (CURRENT, "5\n")], machine);
    group(&[(MAX, "1000\n"), (CURRENT, "5\n")], Some((995, of_job)));
    group(&[(MAX, "1000\n"), (CURRENT, "5000\n")], Some((0, of_job)));
    group(&[(MAX, "1000\n")], machine);
    // Files in the cache are given back.
    const STAT: &str = "sys/fs/cgroup/slice/job/memory.stat";
    let stat = (STAT, "anon 100\nfile 700\ninactive_file 300\nactive_file 200\nshmem 200\n");
    group(&[(MAX, "1000\n"), (CURRENT, "900\n"), stat], Some((600, of_job)));
    group(&[(MAX, "1000\n"), (CURRENT, "100\n"), stat], Some((1000, of_job)));
    const HIGH: &str = "sys/fs/cgroup/slice/job/memory.high";
    let of_high = "the control group (/sys/fs/cgroup/slice/job/memory.high)";
    group(&[(MAX, "1000"), (HIGH, "800"), (CURRENT, "5")], Some((795, of_high)));
    group(&[(MAX, "max"), (HIGH, "800"), (CURRENT, "5")], Some((795, of_high)));
    // The smallest of those above counts.
    let slice = ("sys/fs/cgroup/slice/memory.max", "700");
    let used = ("sys/fs/cgroup/slice/memory.current", "400");
    let of_slice = "the control group (/sys/fs/cgroup/slice/memory.max)";
    group(&[(MAX, "1000"), (CURRENT, "5"), slice, used], Some((300, of_slice)));
    group(&[(MAX, "max"), (CURRENT, "5"), slice, used], Some((300, of_slice)));
    for bad in ["", "-1", "1e9", "99999999999999999999999", "\u{0}\u{0}", "max max"] {
        group(&[(MAX, bad), (CURRENT, "5")], machine);
        group(&[(MAX, "1000"), (CURRENT, bad)], machine);
    }
}

#[test]
fn groups_of_version_1() {
    let group = |limits: &[(&'static str, &'static str)], expected| {
        let mut files = vec![
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:cpu,cpuacct:/other\n3:hugetlb,memory:/job\n0::/\n"),
            ("proc/self/mountinfo", MOUNT_1),
        ];
        files.extend(limits);
        check(&files, expected);
    };
    let machine = Some((51_200_000, "this machine"));
    const LIMIT: &str = "sys/fs/cgroup/memory/job/memory.limit_in_bytes";
    const USAGE: &str = "sys/fs/cgroup/memory/job/memory.usage_in_bytes";
    const STAT: &str = "sys/fs/cgroup/memory/job/memory.stat";
    let of_job = "the control group (/sys/fs/cgroup/memory/job/memory.limit_in_bytes)";
    group(&[(LIMIT, "1000"), (USAGE, "100")], Some((900, of_job)));
    group(&[(LIMIT, "9223372036854771712"), (USAGE, "100")], machine);
    let stat = (STAT, "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 20\n");
    group(&[(LIMIT, "1000"), (USAGE, "100"), stat], Some((970, of_job)));
    let above = (STAT, "hierarchical_memory_limit 600\n");
    let of_stat = "the control group (/sys/fs/cgroup/memory/job/memory.stat)";
    group(&[(LIMIT, "1000"), (USAGE, "100"), above], Some((500, of_stat)));
    group(&[(LIMIT, "600"), (USAGE, "100"), above], Some((500, of_job)));
}

/// In a container the group that is mounted is this process's own, or one above it.
#[test]
fn groups_seen_from_containers() {
    let seen = |cgroup: &str, root: &str, folder: &str, left: Option<u64>| {
        let mount = format!("29 23 0:26 {root} /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
        let max = format!("sys/fs/cgroup/{folder}memory.max");
        let current = format!("sys/fs/cgroup/{folder}memory.current");
        let files = [
            ("proc/self/cgroup", cgroup),
            ("proc/self/mountinfo", &mount),
            (&max, "1000"),
            (&current, "5"),
        ];
        let machine = machine(&files);
        let found = AvailableMemory::below(machine.path(), None).map(|found| found.bytes);
        assert_eq!(found, left, "{cgroup} {root}");
    };
    seen("0::/", "/", "", Some(995));
    seen("0::/docker/abc", "/docker/abc", "", Some(995));
    seen("0::/docker/abc/sub", "/docker/abc", "sub/", Some(995));
    seen("0::/docker/abc", "/", "", Some(995));
    seen("0::/docker/abc", "/other", "", Some(995));
    seen("0::/../../up", "/", "", Some(995));
    seen("0::/../../up", "/", "../up/", None);
    seen("", "/", "", None);
    seen("no line of any kind", "/", "", None);
    seen("1:name=systemd:/", "/", "", None);
}

#[test]
fn places_of_mounts_are_unescaped() {
    let mount = "29 23 0:26 / /mnt/a\\040group\\ rw - cgroup2 cgroup rw\n";
    let files = [
        ("proc/self/cgroup", "0::/"),
        ("proc/self/mountinfo", mount),
        ("mnt/a group\\/memory.max", "1000"),
        ("mnt/a group\\/memory.current", "5"),
    ];
    let machine = machine(&files);
    let found = AvailableMemory::below(machine.path(), None).unwrap();
    assert_eq!(found.bytes, 995);
    let path = Path::new("/mnt/a group\\/memory.max").to_owned();
    assert_eq!(found.limit, MemoryLimit::Cgroup(path));
}

#[test]
fn limits_of_the_process() {
    let limits = |address_space: &str, data: &str, expected| {
        let limits = format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             {data}            unlimited            bytes     \n\
             Max resident set          5                    5                    bytes     \n\
             Max address space         {address_space}            unlimited            bytes     \n"
        );
        let status = "Name:\tmoeprune\nVmSize:\t      2 kB\nVmData:\t      1 kB\n";
        let files = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/limits", limits.as_str()),
            ("proc/self/status", status),
        ];
        check(&files, Some(expected));
    };
    limits("unlimited", "unlimited", (51_200_000, "this machine"));
    limits("10000", "unlimited", (7952, "the limit of this process (RLIMIT_AS, ulimit)"));
    limits("unlimited", "10000", (8976, "the limit of this process (RLIMIT_DATA, ulimit)"));
    limits("100", "10000", (0, "the limit of this process (RLIMIT_AS, ulimit)"));
    limits("-1", "", (51_200_000, "this machine"));
}
