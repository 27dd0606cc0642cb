//! Observations that several processes make, each of some of the blocks.

use std::fs;

use moeprune::{
    Calibration, Execution, FromRecipe, Job, ObservationPlace, Pipeline, Recipe, Resume, Silent,
    capture::{merge_parts, read_part, write_observation, write_part},
    checkpoint::Checkpoint,
    core::PartOf,
    model::Compute,
};

use crate::scratch::{asset, observe, recipe, tokens};

/// 10 blocks of a model, observed at once and in parts.
struct Observed {
    model: Checkpoint,
    calibration: Calibration,
    folder: tempfile::TempDir,
}

impl Observed {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Checkpoint::open(&asset(&format!("parity/{name}"))).unwrap();
        let text = tokens(folder.path(), 10, 24, 100);
        let mut recipe = recipe(0.5, 0.0);
        (recipe.calibration.samples, recipe.calibration.sequence_len) = (10, 24);
        let calibration = Calibration::read(text.as_path(), &model, &recipe).unwrap();
        let whole = folder.path().join("whole");
        write_observation(&observe(&model, &calibration).unwrap(), &whole).unwrap();
        Self { model, calibration, folder }
    }

    /// Makes all parts of a number, and returns the bytes of their sum.
    fn merged(&self, parts: usize) -> Vec<u8> {
        let pipeline = Pipeline::from_recipe(&Recipe::arctic()).unwrap();
        let mut paths = Vec::new();
        for part in PartOf::all(parts).unwrap() {
            // Parts may be observed on different machines, which take other numbers of blocks at once.
            let execution = Execution::on(Compute::cpu(), Some(1 + part.index() % 3));
            let mut silent = Silent;
            let mut job = Job::new(&self.model, &pipeline, &execution, &mut silent);
            let made = job.observe_part(&self.calibration, part).unwrap();
            let path = self.folder.path().join(format!("part-{}-{parts}", part.index()));
            write_part(&made, &path).unwrap();
            assert_eq!(read_part(&path).unwrap(), made);
            // Any order.
            paths.insert(paths.len() / 2, path);
        }
        self.bytes(&merge_parts(&paths).unwrap(), "merged")
    }

    fn bytes(&self, observation: &moeprune::core::Observation, name: &str) -> Vec<u8> {
        let path = self.folder.path().join(name);
        write_observation(observation, &path).unwrap();
        fs::read(path).unwrap()
    }

    fn whole(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("whole")).unwrap()
    }
}

fn check(name: &str, numbers: &[usize]) {
    let observed = Observed::new(name);
    let whole = observed.whole();
    for &parts in numbers {
        assert!(observed.merged(parts) == whole, "{name}: {parts} parts differ from one run");
    }
}

#[test]
fn any_number_of_parts_gives_the_bytes_of_one_run() {
    check("mixtral", &[1, 2, 3, 4, 7, 16]);
    check("arctic", &[1, 2, 3, 4, 7, 16]);
}

/// Latent attention, shared experts and expert groups; fused experts; delta nets and convolutions; latent experts.
#[test]
fn so_it_does_of_other_kinds_of_layers() {
    for name in
        ["deepseek_v3", "qwen3_next", "kimi_linear", "lfm2_moe", "nemotron_h", "gpt_oss", "llama4"]
    {
        check(name, &[3]);
    }
}

#[test]
fn parts_on_one_machine_give_the_bytes_of_one_run() {
    let observed = Observed::new("mixtral");
    let pipeline = Pipeline::from_recipe(&Recipe::arctic()).unwrap();
    for (parts, devices) in [(1, 1), (4, 1), (5, 2), (16, 3)] {
        let devices = vec![Execution::cpu(); devices];
        let (path, mut silent) = (observed.folder.path().join("parts"), Silent);
        let mut job = Job::new(&observed.model, &pipeline, &devices[0], &mut silent);
        let place = ObservationPlace { path: &path, resume: Resume::No };
        job.observe_in_parts(&observed.calibration, parts, &devices, place).unwrap();
        assert!(fs::read(&path).unwrap() == observed.whole(), "{parts} on {}", devices.len());
        fs::remove_file(&path).unwrap();
    }
}
