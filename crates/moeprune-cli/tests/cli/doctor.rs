//! `doctor`: what the machine has, with any of it missing.

use std::fs;

use serde_json::Value;

use crate::command::Scratch;

#[test]
fn one_screen_says_what_the_machine_has() {
    let scratch = Scratch::new("arctic");
    let names = scratch.names();
    let ran = scratch.ok("doctor");
    for part in ["program ", "processor ", "memory ", "disk ", "GPU ", "models ", "[DIR]: "] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(ran.stdout.lines().count() <= 12, "{}", ran.stdout);
    assert_eq!((ran.stderr.as_str(), scratch.names()), ("", names));
}

#[test]
fn the_same_as_json() {
    let scratch = Scratch::new("arctic");
    fs::create_dir_all(scratch.path("hf/hub/models--a--b/blobs")).unwrap();
    fs::write(scratch.path("hf/hub/models--a--b/blobs/1"), "12345").unwrap();
    let home = scratch.path("hf");
    let ran = scratch
        .run_in("doctor --json", &[("HF_HOME", home.to_str().unwrap()), ("HF_HUB_CACHE", "")]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let machine: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(machine["models"]["models"], 1, "{machine}");
    assert_eq!(machine["models"]["bytes"], 5, "{machine}");
    assert!(machine["processor"]["instructions"].is_string(), "{machine}");
    assert!(machine["disk"]["write_rate"].as_f64().unwrap() > 0.0, "{machine}");
    assert!(machine["gpus"]["usable"].is_boolean(), "{machine}");
}

#[test]
fn what_is_missing_is_said_and_no_error() {
    let scratch = Scratch::new("arctic");
    let ran = scratch.run_in("doctor --dir none", &[("HF_HOME", "nowhere"), ("HF_HUB_CACHE", "")]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("not measured: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("not there yet"), "{}", ran.stdout);
    if cfg!(not(feature = "cuda")) {
        assert!(ran.stdout.contains("build with `--features cuda`"), "{}", ran.stdout);
    }
}
