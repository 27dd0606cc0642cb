//! A full disk: a small file system of its own, where the system lets a test mount one.

use std::{fs, process::Command};

use crate::{
    command::{CALIBRATION, Scratch},
    resume::contents,
};

/// Wherever the disk becomes full, the error says so, nothing has the final name, and with more
/// room the resumed run writes the same bytes.
#[test]
fn a_full_disk_is_a_clear_error_and_no_end() {
    let scratch = Scratch::new("arctic");
    scratch.ok(&format!("prune model whole {CALIBRATION}"));
    fs::create_dir(scratch.path("small")).unwrap();
    fs::create_dir(scratch.path("results")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64k none small || exit 77
         for size in 100 300 560 640 680 720 760 800 840; do
           mount -o remount,size=${{size}}k small || exit 77
           \"$0\" prune model small/out {CALIBRATION} 2> results/$size.first; code=$?
           [ $code = 0 ] || [ ! -e small/out ] || exit 78
           if [ $code != 0 ]; then
             mount -o remount,size=4m small
             \"$0\" prune model small/out {CALIBRATION} --resume 2> results/$size.second || exit 79
           fi
           cp -r small/out results/$size && rm -r small/out
           [ -z \"$(ls -A small)\" ] || exit 80
         done"
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(env!("CARGO_BIN_EXE_moeprune"))
        .current_dir(scratch.path("."))
        .output();
    let Ok(output) = output else { return eprintln!("skipped: there is no `unshare`") };
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || stderr.contains("unshare") {
        return eprintln!("skipped: no file system can be mounted here: {stderr}");
    }
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let whole = contents(&scratch.path("whole"));
    let (mut full, mut short) = (0, 0);
    for size in [100, 300, 560, 640, 680, 720, 760, 800, 840] {
        assert!(contents(&scratch.path(&format!("results/{size}"))) == whole, "{size} kB");
        let first = fs::read_to_string(scratch.path(&format!("results/{size}.first"))).unwrap();
        full += usize::from(first.contains("No space left"));
        short += usize::from(first.contains("free") && first.contains("make room"));
    }
    assert!(full > 0 && short > 0, "{full} were full, {short} too small from the start");
}
