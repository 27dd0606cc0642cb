//! Parts that do not make a model, and plans that cannot be applied in parts.

use std::fs;

use super::{STORED, by_stored_statistics, bytes_of, whole_experts};
use crate::command::{CALIBRATION, Scratch};

/// What the command fails with.
fn fails(scratch: &Scratch, arguments: &str, code: i32, expected: &[&str]) {
    let ran = scratch.run(arguments);
    assert_eq!(ran.code, code, "{arguments}: {}{}", ran.stdout, ran.stderr);
    for expected in expected {
        assert!(ran.stderr.contains(expected), "{arguments}: {expected}: {}", ran.stderr);
    }
}

fn write(scratch: &Scratch, out: &str, part: &str) {
    scratch.ok(&format!("{} --part {part}", STORED.replace("OUT", out)));
}

#[test]
fn parts_that_are_missing_double_or_foreign() {
    let scratch = by_stored_statistics("mixtral_sharded");
    for part in ["1", "2", "3"] {
        write(&scratch, part, &format!("{part}/3"));
    }
    write(&scratch, "other-number", "2/4");
    write(&scratch, "twice", "2/3");
    let check = |parts: &str, expected: &[&str]| {
        fails(&scratch, &format!("join model {parts} -o out"), 1, expected);
        assert!(!scratch.path("out").exists());
    };
    check("1", &["2 of 3 parts are missing: 2/3, 3/3", "--part"]);
    check("3 1", &["1 of 3 parts are missing: 2/3"]);
    check("1 2 3 twice", &["part 2/3 is there twice: 2 and twice"]);
    check("1 1 2 3", &["part 1/3 is there twice"]);
    check("1 other-number", &["other-number: holds part 2/4 of another run than 1", "part 1/3"]);
    check("1 2 nowhere", &["nowhere: is no folder"]);
    check("1 2 model", &["model: holds no finished part", "moeprune-part.json"]);
    check("1 2 obs", &["obs: is no folder"]);
    // Of another plan, observation (of another seed), recipe.
    scratch.ok("plan model --observation obs --sparsity 0.6 --expert-sparsity 0.25 -o other.json");
    scratch.ok("apply model of-plan --plan other.json --observation obs --part 3/3");
    check(
        "1 2 of-plan",
        &["of-plan: holds part 3/3 of another run", "the plan was", "the recipe's sparsity"],
    );
    let text = fs::read_to_string(scratch.path("tokens.jsonl")).unwrap();
    fs::write(scratch.path("more.jsonl"), text.replace("[0,", "[1,")).unwrap();
    scratch.ok(
        "observe model --calibration more.jsonl --samples 4 --seq-len 32 --seed 5 -o other-obs",
    );
    scratch.ok("apply model of-obs --plan plan.json --observation other-obs --part 3/3");
    check("1 2 of-obs", &["of-obs: holds part 3/3 of another run", "the observation was"]);
    // The whole is still there to be had.
    scratch.ok("join model 1 2 3 -o out");
    fails(&scratch, "join model 1 2 3 -o out", 1, &["output out: exists already"]);
    fails(&scratch, "join model 1 2 3 -o out2", 1, &["1: is no folder with a part"]);
}

#[test]
fn parts_of_another_model() {
    let scratch = by_stored_statistics("mixtral_sharded");
    for part in ["1", "2"] {
        write(&scratch, part, &format!("{part}/2"));
    }
    let other = Scratch::new("mixtral");
    fs::rename(other.path("model"), scratch.path("other")).unwrap();
    fails(&scratch, "join other 1 2 -o out", 1, &["it is not a part of", "name the model"]);
    let said = scratch.run("join other 1 2 -o out").stderr;
    let longest = said.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max();
    assert!(longest <= Some(12), "{said}");
    fails(&scratch, "join 1 2 -o out", 1, &["1"]);
    // The same tensors in another file: changed since.
    let file = scratch.path("model/model-00002-of-00005.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    fails(&scratch, "join model 1 2 -o out", 1, &["has other bytes now"]);
    assert!(!scratch.path("out").exists() && scratch.path("1").exists());
}

#[test]
fn parts_that_are_damaged() {
    let scratch = by_stored_statistics("mixtral_sharded");
    for part in ["1", "2"] {
        write(&scratch, part, &format!("{part}/2"));
    }
    let file = scratch.path("2/model-00003-of-00003.safetensors");
    let record = scratch.path("2/moeprune-part.json");
    let whole = [fs::read(&file).unwrap(), fs::read(&record).unwrap()];
    let check = |expected: &[&str]| {
        fails(&scratch, "join model 1 2 -o out", 1, expected);
        fails(&scratch, &format!("{} --part 2/2", STORED.replace("OUT", "2")), 1, expected);
        assert!(!scratch.path("out").exists());
        fs::write(&file, &whole[0]).unwrap();
        fs::write(&record, &whole[1]).unwrap();
    };
    fs::write(&file, &whole[0][..whole[0].len() - 1]).unwrap();
    check(&[
        "part 2/2 is not whole: its model-00003-of-00003.safetensors has",
        "write that part again",
    ]);
    fs::write(&file, []).unwrap();
    check(&["has 0 bytes instead of"]);
    fs::remove_file(&file).unwrap();
    check(&["is missing"]);
    let mut other = whole[0].clone();
    other[20] ^= 1;
    fs::write(&file, other).unwrap();
    check(&["announces other tensors"]);
    for length in [0, 1, whole[1].len() / 2, whole[1].len() - 3] {
        fs::write(&record, &whole[1][..length]).unwrap();
        check(&["moeprune-part.json cannot be read", "write that part again"]);
    }
    let text = String::from_utf8(whole[1].clone()).unwrap();
    for (was, is) in [("\"format\": 1", "\"format\": 2"), ("\"format\": 1", "\"format\": -1")] {
        fs::write(&record, text.replacen(was, is, 1)).unwrap();
        check(&["moeprune-part.json"]);
    }
    for (was, is) in
        [("\"part\": \"2/2\"", "\"part\": \"1/2\""), ("\"linears\": ", "\"linears\": 1")]
    {
        assert!(text.contains(was));
        fs::write(&record, text.replacen(was, is, 1)).unwrap();
        check(&["is not as it was written"]);
    }
    fs::write(&record, text.replacen("\"part\": \"2/2\"", "\"part\": \"9/2\"", 1)).unwrap();
    check(&["9/2"]);
    scratch.ok("join model 1 2 -o out");
}

#[test]
fn places_that_are_taken() {
    let scratch = by_stored_statistics("mixtral_sharded");
    write(&scratch, "1", "1/2");
    let before = bytes_of(&scratch.path("1"));
    let apply = STORED.replace("OUT", "1");
    let again = scratch.ok(&format!("{apply} --part 1/2"));
    assert_eq!(again.stdout, "1: part 1/2 is finished already, nothing is done\n");
    fails(
        &scratch,
        &format!("{apply} --part 2/2"),
        1,
        &["1: holds part 1/2 and is to hold part 2/2"],
    );
    fails(
        &scratch,
        &format!("{apply} --part 1/3"),
        1,
        &["1: holds part 1/2 and is to hold part 1/3"],
    );
    fails(&scratch, &apply, 1, &["exists already"]);
    scratch.ok("plan model --observation obs --sparsity 0.6 --expert-sparsity 0.25 -o other.json");
    let other = apply.replace("plan.json", "other.json");
    fails(
        &scratch,
        &format!("{other} --part 1/2"),
        1,
        &["1: holds part 1/2 of another run", "the plan was"],
    );
    assert!(bytes_of(&scratch.path("1")) == before);
    fails(&scratch, &STORED.replace("OUT", "model/x --part 1/2"), 1, &["inside of the model"]);
    fails(&scratch, "join model 1 -o 1/out", 1, &["1/out is in 1, one of the parts"]);
    fails(&scratch, "join model 1 -o 1", 1, &["one of the parts"]);
    fails(&scratch, "join model 1 -o obs", 1, &["exists"]);
}

#[test]
fn what_is_only_done_in_one_piece() {
    let scratch = whole_experts("mixtral");
    let apply = "apply model out --plan plan.json --part 1/2";
    fails(
        &scratch,
        &format!("{apply} {CALIBRATION}"),
        2,
        &["sequential statistics", "--observation FILE"],
    );
    fs::remove_file(scratch.path("plan.json")).unwrap();
    scratch.ok("plan model --sparsity 0.5 --expert-sparsity 0.25 -o plan.json");
    fails(
        &scratch,
        apply,
        2,
        &["zeroes weights by their inputs", "--observation FILE", "leave --part out"],
    );
    fails(&scratch, &format!("{apply} {CALIBRATION}"), 2, &["sequential statistics"]);
    scratch.ok(&format!("observe model {CALIBRATION} -o obs"));
    for (plan, expected) in [
        ("--scorer sparsegpt", "which inputs come together"),
        ("--repair refit", "repairs the experts"),
        ("--refit refit:keep_zeros=true", "refits what is left"),
    ] {
        fs::remove_file(scratch.path("plan.json")).unwrap();
        scratch.ok(&format!("plan model --observation obs {plan} -o plan.json"));
        fails(&scratch, &format!("{apply} --observation obs"), 2, &[expected, "leave --part out"]);
    }
    fails(&scratch, &format!("{apply} --json r.json"), 2, &["cannot be used with"]);
    fails(&scratch, "apply model out --plan plan.json --parts 4", 1, &["--part I/4"]);
    for part in ["0/2", "3/2", "2", "1/0", "a/b"] {
        fails(&scratch, &format!("apply model out --plan plan.json --part {part}"), 2, &["--part"]);
    }
    assert!(!scratch.path("out").exists());
}
