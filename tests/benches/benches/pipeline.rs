//! Observing, planning and applying from end to end, on the four-layer Arctic in `assets/nano`.
//!
//! The model is small enough that what is measured is the work around the arithmetic: reading,
//! journalling, syncing. `cargo xtask bench-io` and `cargo xtask measure-memory` take large ones.

use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use moeprune::{
    Calibration, Execution, FromRecipe, Inputs, Job, Pipeline, Recipe, Resume, Run, Silent, apply,
    checkpoint::Checkpoint, core::Plan, plan,
};

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano")
}

struct Model {
    checkpoint: Checkpoint,
    calibration: Calibration,
    recipe: Recipe,
}

impl Model {
    fn open() -> Self {
        let checkpoint = Checkpoint::open(&nano()).expect("the model");
        let mut recipe = Recipe::arctic();
        recipe.calibration.samples = 8;
        recipe.calibration.sequence_len = 256;
        let text = nano().join("data/calibration.jsonl");
        let calibration = Calibration::read(&text, &checkpoint, &recipe).expect("its text");
        Self { checkpoint, calibration, recipe }
    }

    fn tokens(&self) -> Throughput {
        let recipe = &self.recipe.calibration;
        let len = recipe.sequence_len.min(self.checkpoint.spec().max_positions);
        Throughput::Elements((recipe.samples * len) as u64)
    }

    fn plan(&self, recipe: &Recipe) -> (Pipeline, Plan) {
        let pipeline = Pipeline::from_recipe(recipe).expect("a pipeline");
        let cpu = Execution::cpu();
        let mut silent = Silent;
        let mut job = Job::new(&self.checkpoint, &pipeline, &cpu, &mut silent);
        let plan = plan(&mut job, recipe, None).expect("a plan");
        (pipeline, plan)
    }
}

fn observing(criterion: &mut Criterion) {
    let model = Model::open();
    let mut group = criterion.benchmark_group("observe");
    group.sample_size(10).throughput(model.tokens());
    group.bench_function("nano", |bencher| {
        let pipeline = Pipeline::from_recipe(&model.recipe).expect("a pipeline");
        bencher.iter(|| {
            Job::new(&model.checkpoint, &pipeline, &Execution::cpu(), &mut Silent)
                .observe(&model.calibration)
                .expect("an observation")
        });
    });
    group.finish();
}

fn planning(criterion: &mut Criterion) {
    let model = Model::open();
    criterion
        .benchmark_group("plan")
        .bench_function("nano", |bencher| bencher.iter(|| model.plan(&model.recipe)));
}

fn applying(criterion: &mut Criterion) {
    let model = Model::open();
    let outputs = tempfile::tempdir().expect("a directory");
    let size = std::fs::metadata(nano().join("model.safetensors")).expect("weights").len();

    // Without weights to zero: the total is what removing the experts gives.
    let mut experts_only = model.recipe.clone();
    experts_only.sparsity = experts_only.experts.sparsity;
    let mut magnitude = model.recipe.clone();
    magnitude.weights.scorer = "magnitude".into();
    magnitude.weights.allocation = "uniform".into();

    let mut group = criterion.benchmark_group("apply");
    group.sample_size(10).throughput(Throughput::Bytes(size));
    let cases = [
        ("experts only", experts_only, false),
        ("experts, then magnitude", magnitude, false),
        ("experts, then Wanda and OWL", model.recipe.clone(), true),
    ];
    for (name, recipe, calibrated) in cases {
        let (pipeline, plan) = model.plan(&recipe);
        let inputs =
            if calibrated { Inputs::Calibration(&model.calibration) } else { Inputs::None };
        let out = outputs.path().join("out");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let _ = std::fs::remove_dir_all(&out);
                    Run::claim(&out, &model.checkpoint, Resume::No).expect("a free name")
                },
                |run| {
                    let (cpu, mut silent) = (Execution::cpu(), Silent);
                    let mut job = Job::new(&model.checkpoint, &pipeline, &cpu, &mut silent);
                    apply(&mut job, run, &plan, inputs).expect("a pruned model")
                },
                BatchSize::PerIteration,
            );
        });
        let _ = std::fs::remove_dir_all(&out);
    }
    group.finish();
}

criterion_group!(benches, observing, planning, applying);
criterion_main!(benches);
