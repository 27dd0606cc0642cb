//! File systems that lack something, places that are mount points, links, and side files that cannot be read.
#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    command::{CALIBRATION, Ran, Scratch},
    resume::{contents, spawn},
};

const WORK: &str = "out/.moeprune-unfinished";

#[track_caller]
fn refused(scratch: &Scratch, arguments: &str, expected: &[&str]) {
    let ran = scratch.run(arguments);
    assert_eq!(ran.code, 1, "{arguments}: {}", ran.stderr);
    for part in expected {
        assert!(ran.stderr.contains(part), "no `{part}` in: {}", ran.stderr);
    }
}

#[test]
fn an_empty_folder_is_filled_wherever_the_run_is_killed() {
    for (model, arguments) in [
        ("arctic", format!("prune model OUT {CALIBRATION}")),
        ("mixtral_sharded", "apply model OUT --plan plan.json".to_owned()),
    ] {
        let scratch = Scratch::new(model);
        scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
        scratch.ok(&arguments.replace("OUT", "whole"));
        let whole = contents(&scratch.path("whole"));
        let arguments = arguments.replace("OUT", "out");
        fs::create_dir(scratch.path("out")).unwrap();
        let (mut killed, mut resumed) = (0, 0);
        for millis in (0..60).step_by(3) {
            let mut child = spawn(&scratch, &arguments);
            thread::sleep(Duration::from_millis(millis * 4));
            child.kill().unwrap();
            child.wait().unwrap();
            if scratch.path("out/config.json").exists() {
                refused(&scratch, &format!("{arguments} --resume"), &["exists already"]);
            } else {
                killed += 1;
                refused(&scratch, "inspect out", &["has no config.json"]);
                let left = scratch.run(&arguments);
                if left.code != 0 {
                    assert!(left.stderr.contains(WORK), "{}", left.stderr);
                    scratch.ok(&format!("{arguments} --resume"));
                    resumed += 1;
                }
            }
            assert!(contents(&scratch.path("out")) == whole, "after {millis}");
            fs::remove_dir_all(scratch.path("out")).unwrap();
            fs::create_dir(scratch.path("out")).unwrap();
        }
        assert!(killed > 0 && (resumed > 0 || model != "arctic"), "{killed} {resumed}");
    }
}

#[test]
fn a_folder_with_something_in_it_is_refused_before_any_work() {
    let scratch = Scratch::new("mixtral");
    fs::create_dir(scratch.path("out")).unwrap();
    fs::write(scratch.path("out/notes.txt"), "mine").unwrap();
    let expected = ["exists already and is not empty", "notes.txt"];
    refused(&scratch, &format!("prune model out {CALIBRATION}"), &expected);
    refused(&scratch, &format!("prune model out {CALIBRATION} --resume"), &expected);
    assert_eq!(fs::read_dir(scratch.path("out")).unwrap().count(), 1);
}

/// A file system of its own, with what new ones have in them.
#[test]
fn a_mount_point_is_filled() {
    let scratch = Scratch::new("mixtral");
    scratch.ok(&format!("prune model whole {CALIBRATION}"));
    fs::create_dir_all(scratch.path("out")).unwrap();
    let script = format!(
        "mount -t tmpfs none out && mkdir out/lost+found || exit 77
         \"$0\" prune model out {CALIBRATION} || exit 78
         rmdir out/lost+found && cp -r out copied"
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
    assert!(contents(&scratch.path("copied")) == contents(&scratch.path("whole")));
}

/// Runs a command with a system call failing; `None` if that cannot be done here.
fn failing(scratch: &Scratch, inject: &[&str], arguments: &str) -> Option<Ran> {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(inject)
        .arg(env!("CARGO_BIN_EXE_moeprune"))
        .args(arguments.split_whitespace())
        .current_dir(scratch.path("."))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran = Ran {
        code: output.status.code()?,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    (!ran.stderr.contains("strace:")).then_some(ran)
}

#[test]
fn without_locks() {
    let scratch = Scratch::new("mixtral");
    scratch.ok(&format!("prune model whole {CALIBRATION}"));
    let prune = format!("prune model out {CALIBRATION}");
    for error in ["ENOSYS", "EOPNOTSUPP", "ENOLCK"] {
        let inject = format!("inject=flock:error={error}");
        let Some(ran) = failing(&scratch, &["-e", &inject], &prune) else {
            return eprintln!("skipped: there is no `strace`");
        };
        assert_eq!(ran.code, 0, "{error}: {}", ran.stderr);
        assert!(contents(&scratch.path("out")) == contents(&scratch.path("whole")));
        assert!(!scratch.names().iter().any(|name| name.starts_with('.')), "left behind");
        fs::remove_dir_all(scratch.path("out")).unwrap();
        let observe = format!("observe model {CALIBRATION} -o obs");
        let ran = failing(&scratch, &["-e", &inject], &observe).unwrap();
        assert_eq!(ran.code, 0, "{error}: {}", ran.stderr);
        fs::remove_file(scratch.path("obs")).unwrap();
    }
}

#[test]
fn without_maps() {
    let scratch = Scratch::new("mixtral");
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
    scratch.ok("apply model whole --plan plan.json");
    let weights = ["model", "whole"].map(|model| scratch.path(model).join("model.safetensors"));
    let paths: Vec<&str> = weights.iter().flat_map(|path| ["-P", path.to_str().unwrap()]).collect();
    for error in ["ENODEV", "ENOMEM", "EACCES"] {
        let mmap = format!("inject=mmap:error={error}");
        let inject = [&["-e", &mmap][..], &paths].concat();
        for arguments in [
            "inspect model",
            "verify whole --source model",
            "plan model --sparsity 0.25 --expert-sparsity 0.25 -o /dev/null",
            "eval model --task perplexity --data tokens.jsonl --seq-len 32",
            &format!("compare model {CALIBRATION} --criterion reap,frequency"),
            "apply model out --plan plan.json",
        ] {
            let plain = scratch.run(arguments);
            let _ = fs::remove_dir_all(scratch.path("out"));
            let Some(ran) = failing(&scratch, &inject, arguments) else {
                return eprintln!("skipped: there is no `strace`");
            };
            let _ = fs::remove_dir_all(scratch.path("out"));
            assert_eq!(ran.code, plain.code, "{error}: {arguments}: {}", ran.stderr);
        }
    }
}

#[test]
fn without_what_makes_durable_and_without_permissions() {
    let scratch = Scratch::new("mixtral");
    let prune = format!("prune model out {CALIBRATION}");
    for inject in [
        "inject=fsync,fdatasync:error=EINVAL",
        "inject=fsync,fdatasync:error=EOPNOTSUPP",
        "inject=fchmod,chmod,fchmodat:error=EPERM",
        "inject=renameat2:error=EINVAL",
        "inject=copy_file_range:error=EXDEV",
        "inject=copy_file_range:error=EINVAL",
        "inject=link,linkat,flock:error=EPERM",
        "inject=statfs,fstatfs:error=ENOSYS",
    ] {
        let Some(ran) = failing(&scratch, &["-e", inject], &prune) else {
            return eprintln!("skipped: there is no `strace`");
        };
        assert_eq!(ran.code, 0, "{inject}: {}", ran.stderr);
        fs::remove_dir_all(scratch.path("out")).unwrap();
        fs::create_dir(scratch.path("out")).unwrap();
        let ran = failing(&scratch, &["-e", inject], &prune).unwrap();
        assert_eq!(ran.code, 0, "{inject}: {}", ran.stderr);
        fs::remove_dir_all(scratch.path("out")).unwrap();
    }
    let inject = ["-e", "inject=fsync,fdatasync:error=EIO"];
    let ran = failing(&scratch, &inject, &prune).unwrap();
    assert_eq!(ran.code, 1);
    assert!(!scratch.path("out").exists());
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 7\n";

/// Makes what cannot be read beside the weights, and says what a note has of it.
fn awkward(model: &Path) -> Vec<(&'static str, &'static str)> {
    symlink("nowhere", model.join("README.md")).unwrap();
    symlink("loop", model.join("loop")).unwrap();
    symlink("/etc/hostname", model.join("outside")).unwrap();
    let made = Command::new("mkfifo").arg(model.join("fifo")).status();
    fs::write(model.join("picture.png"), POINTER).unwrap();
    let mut expected = vec![
        ("picture.png", "is a git-lfs pointer"),
        ("README.md", "is a link to nowhere, which does not exist"),
        ("loop", "leads back to it"),
        ("outside", "--follow-links"),
    ];
    if made.is_ok_and(|status| status.success()) {
        expected.push(("fifo", "is not a regular file"));
    }
    let _socket = std::os::unix::net::UnixListener::bind(model.join("socket")).unwrap();
    expected.push(("socket", "is not a regular file"));
    fs::write(model.join("secret"), "").unwrap();
    fs::set_permissions(model.join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(model.join("closed")).unwrap();
    fs::set_permissions(model.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    // Who may read everything reads these too.
    if fs::File::open(model.join("secret")).is_err() {
        expected.push(("secret", "ermission denied"));
        expected.push(("closed", "ermission denied"));
    }
    expected
}

#[test]
fn what_cannot_be_read_is_left_out_with_a_note() {
    let scratch = Scratch::new("mixtral");
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
    fs::write(scratch.path("model/notes.txt"), "kept").unwrap();
    let expected = awkward(&scratch.path("model"));
    for arguments in
        [format!("prune model out {CALIBRATION}"), "apply model out --plan plan.json".into()]
    {
        let ran = scratch.ok(&arguments);
        let report = fs::read_to_string(scratch.path("out/moeprune-report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        for (file, why) in &expected {
            let note = ran.stderr.lines().find(|line| line.contains(&format!("copied: {file} (")));
            assert!(note.is_some_and(|note| note.contains(why)), "{file}: {}", ran.stderr);
            let left_out = report["left_out"].as_array().unwrap();
            assert!(left_out.iter().any(|left_out| left_out["file"] == *file), "{left_out:?}");
            let place = if *file == "README.md" { "README.base.md" } else { file };
            assert!(scratch.path("out").join(place).symlink_metadata().is_err());
        }
        assert_eq!(fs::read_to_string(scratch.path("out/notes.txt")).unwrap(), "kept");
        scratch.ok("verify out --source model");
        fs::remove_dir_all(scratch.path("out")).unwrap();
    }
}

#[test]
fn what_a_result_needs_is_refused_before_any_work() {
    let scratch = Scratch::new("mixtral");
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
    for file in ["tokenizer_config.json", "generation_config.json", "tokenizer.model"] {
        let path = scratch.path("model").join(file);
        let _ = fs::remove_file(&path);
        symlink("nowhere", &path).unwrap();
        for arguments in
            [format!("prune model out {CALIBRATION}"), "apply model out --plan plan.json".into()]
        {
            refused(&scratch, &arguments, &[file, "is of no use without it"]);
            let ran = scratch.run(&arguments);
            assert!(!ran.stderr.contains("observing"), "{}", ran.stderr);
            assert!(!scratch.path("out").exists());
            assert!(!scratch.names().iter().any(|name| name.starts_with('.')));
        }
        fs::remove_file(&path).unwrap();
    }
    fs::write(scratch.path("model/tokenizer.model"), POINTER).unwrap();
    let expected = ["tokenizer.model is a git-lfs pointer", "is of no use without it"];
    refused(&scratch, "apply model out --plan plan.json", &expected);
}

#[test]
fn links_to_another_disk() {
    let scratch = Scratch::new("mixtral_sharded");
    scratch.ok("plan model --sparsity 0.25 --expert-sparsity 0.25 -o plan.json");
    scratch.ok("apply model whole --plan plan.json");
    fs::rename(scratch.path("model"), scratch.path("disk")).unwrap();
    fs::create_dir(scratch.path("model")).unwrap();
    for entry in fs::read_dir(scratch.path("disk")).unwrap() {
        let name = entry.unwrap().file_name();
        symlink(Path::new("../disk").join(&name), scratch.path("model").join(&name)).unwrap();
    }
    for arguments in [
        "inspect model",
        "apply model out --plan plan.json",
        "verify whole --source model",
        "plan model --sparsity 0.25 --expert-sparsity 0.25 -o other.json",
        "eval model --task perplexity --data tokens.jsonl --seq-len 32",
        &format!("observe model {CALIBRATION} -o obs"),
        &format!("prune model out2 {CALIBRATION}"),
    ] {
        refused(&scratch, arguments, &["outside of the model directory", "--follow-links"]);
        scratch.ok(&format!("{arguments} --follow-links"));
    }
    assert!(contents(&scratch.path("out")) == contents(&scratch.path("whole")));
    for entry in fs::read_dir(scratch.path("out")).unwrap() {
        assert!(!entry.unwrap().path().is_symlink());
    }
}

#[test]
fn snapshots_whose_blobs_are_on_another_disk() {
    let scratch = Scratch::new("mixtral");
    let cache = scratch.path("hub/models--org--name");
    let snapshot = cache.join("snapshots/0123");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir(scratch.path("disk")).unwrap();
    symlink(scratch.path("disk"), cache.join("blobs")).unwrap();
    for (i, entry) in fs::read_dir(scratch.path("model")).unwrap().enumerate() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), scratch.path("disk").join(i.to_string())).unwrap();
        symlink(format!("../../blobs/{i}"), snapshot.join(entry.file_name())).unwrap();
    }
    let here = "hub/models--org--name/snapshots/0123";
    scratch.ok(&format!("inspect {here}"));
    scratch.ok(&format!("prune {here} out {CALIBRATION}"));
    scratch.ok(&format!("prune model whole {CALIBRATION}"));
    // The snapshot says which model it is.
    let card = |out: &str| scratch.path(out).join("README.md");
    let text = |out: &str| fs::read_to_string(card(out)).unwrap();
    assert!(text("out").contains("base_model: org/name\n") && !text("whole").contains("org/name"));
    ["out", "whole"].iter().for_each(|out| fs::remove_file(card(out)).unwrap());
    assert!(contents(&scratch.path("out")) == contents(&scratch.path("whole")));
}

#[test]
fn limits_of_memory_are_named() {
    let scratch = Scratch::new("mixtral");
    let prune = format!("prune model out {CALIBRATION}");
    refused(&scratch, &format!("{prune} --max-memory 10M"), &["--max-memory allows 10.5 MB"]);
    assert!(!scratch.path("out").exists());
    scratch.ok(&format!("{prune} --max-memory 8GiB"));
    let bad = scratch.run(&format!("{prune} --max-memory 8X"));
    assert!(bad.code == 2 && bad.stderr.contains("is no size of memory"), "{}", bad.stderr);
    fs::remove_dir_all(scratch.path("out")).unwrap();
    let script = format!("ulimit -d 200000 && exec \"$0\" {prune}");
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_moeprune")])
        .current_dir(scratch.path("."))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if cfg!(target_os = "linux") {
        assert!(stderr.contains("RLIMIT_DATA"), "{stderr}");
    }
}
