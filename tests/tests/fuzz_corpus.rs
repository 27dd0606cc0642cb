//! Replays the files that the fuzz targets start from, and those kept from what they found.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use moeprune_tests::hostile_files::{
    Config, CountingAllocator, Gguf, Header, Index, ObservationFile, Parquet, PlanFile, Target,
    Template, Text, TokenizerFile, Zstd, peak_of,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target)
}

/// What becomes of each file, a line each.
fn replay<T: Target>() -> String {
    let target = T::new();
    let mut outcomes = String::new();
    for (name, bytes) in target.valid() {
        assert_eq!(target.run(&bytes), Ok(()), "{name}");
        let seed = fs::read(folder("seeds", T::NAME).join(name));
        assert!(seed.unwrap() == bytes, "seed {name} is of another version; see fuzz/README.md");
    }
    for kind in ["seeds", "regressions"] {
        let mut files: Vec<PathBuf> = fs::read_dir(folder(kind, T::NAME))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty());
        for path in files {
            let outcome = target.run(&fs::read(&path).unwrap());
            let outcome = outcome.map_or_else(|message| message, |()| "accepted".to_owned());
            let shown: String = outcome.escape_debug().take(400).collect();
            let name = path.file_name().unwrap().to_string_lossy();
            writeln!(outcomes, "{kind}/{name}: {shown}").unwrap();
        }
    }
    outcomes
}

/// Runs what fuzzing has kept to reach every line that it reached. What becomes of each file is
/// not written down: that it is refused or accepted within the bounds is all.
fn cover<T: Target>() {
    let target = T::new();
    let mut files = 0;
    for entry in fs::read_dir(folder("covering", T::NAME)).unwrap() {
        let _ = target.run(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 80, "{files} files");
}

#[test]
fn covering_files_stay_within_the_bounds() {
    cover::<Header>();
    cover::<Index>();
    cover::<Config>();
    cover::<PlanFile>();
    cover::<ObservationFile>();
    cover::<Gguf>();
    cover::<TokenizerFile>();
    cover::<Text>();
    cover::<Parquet>();
    cover::<Zstd>();
    cover::<Template>();
}

#[test]
fn headers() {
    insta::assert_snapshot!(replay::<Header>());
}

#[test]
fn indices() {
    insta::assert_snapshot!(replay::<Index>());
}

#[test]
fn configs() {
    insta::assert_snapshot!(replay::<Config>());
}

#[test]
fn plans() {
    insta::assert_snapshot!(replay::<PlanFile>());
}

#[test]
fn observations() {
    insta::assert_snapshot!(replay::<ObservationFile>());
}

#[test]
fn gguf_files() {
    insta::assert_snapshot!(replay::<Gguf>());
}

#[test]
fn tokenizers() {
    insta::assert_snapshot!(replay::<TokenizerFile>());
}

#[test]
fn texts() {
    insta::assert_snapshot!(replay::<Text>());
}

#[test]
fn parquet_files() {
    insta::assert_snapshot!(replay::<Parquet>());
}

#[test]
fn zstd_archives() {
    insta::assert_snapshot!(replay::<Zstd>());
}

#[test]
fn templates() {
    insta::assert_snapshot!(replay::<Template>());
}

/// Without the allocator, every file would be within its bounds.
#[test]
fn memory_is_counted() {
    let (length, peak) = peak_of(|| {
        let first = vec![0_u8; 1000];
        drop(first);
        vec![1_u8; 3000].len()
    });
    assert_eq!((length, peak), (3000, 3000));
}

/// Short values are what grows most when JSON is parsed; this many leave a vector of them half
/// empty.
fn long_list() -> String {
    format!("[{}0]", "0,".repeat(1 << 19))
}

#[test]
fn long_values_are_not_held_as_json() {
    #[track_caller]
    fn check<T: Target>(name: &str, from: &str, to: &str) {
        let target = T::new();
        let valid = target.valid().into_iter().find(|(of, _)| *of == name).unwrap().1;
        let valid = String::from_utf8(valid).unwrap();
        let long = valid.replacen(from, to, 1);
        assert_ne!(long, valid);
        // Whether it is accepted does not matter; how much memory it takes is checked inside.
        let _ = target.run(long.as_bytes());
    }
    let list = long_list();
    check::<Config>(
        "mixtral",
        r#""num_local_experts":2"#,
        &format!(r#""num_local_experts":{list}"#),
    );
    check::<Config>("mixtral", r#""hidden_size":4"#, &format!(r#""hidden_size":{list}"#));
    check::<Config>("mixtral", r#""eos_token_id":2"#, &format!(r#""eos_token_id":{list}"#));
    check::<Config>("mixtral", "{", &format!(r#"{{"rope_scaling":{list},"#));
    check::<Config>("mixtral", "{", &format!(r#"{{"dtype":{list},"#));
    check::<Config>("mixtral", "{", &format!(r#"{{"unknown":{list},"#));
    check::<Index>("plain", "{", &format!(r#"{{"unknown":{list},"#));
    check::<Index>("plain", "232", &list);
    check::<PlanFile>("owl", r#""recipe":{"#, &format!(r#""recipe":{{"unknown":{list},"#));
    check::<PlanFile>("owl", r#""layer_ratios":[]"#, &format!(r#""layer_ratios":{list}"#));
    check::<PlanFile>("owl", r#""clusters":["#, &format!(r#""clusters":[{list},"#));
}

/// Writes the seeds that are made here; the others are copies of files in `assets`.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    fn write<T: Target>() {
        let folder = folder("seeds", T::NAME);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in T::new().valid() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    write::<Header>();
    write::<Index>();
    write::<Config>();
    write::<PlanFile>();
    write::<ObservationFile>();
    write::<Gguf>();
    write::<TokenizerFile>();
    write::<Text>();
    write::<Parquet>();
    write::<Zstd>();
    write::<Template>();
}
