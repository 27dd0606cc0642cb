//! A full disk: a small file system of its own, where the system lets a test mount one.

use std::{fs, process::Command};

use crate::command::{CALIBRATION, Scratch};

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_nothing() {
    let scratch = Scratch::new("arctic");
    fs::create_dir(scratch.path("small")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=200k none small || exit 77
         \"$0\" prune model small/out {CALIBRATION}; code=$?
         ls -A small; exit $code"
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
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("No space left"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "", "left behind");
}
