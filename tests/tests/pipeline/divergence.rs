//! Models that are held against each other layer by layer, against their full logits.

use std::path::{Path, PathBuf};

use candle_core::DType;
use moeprune::{
    Error, Execution, Progress, Silent,
    checkpoint::Checkpoint,
    eval::DivergenceReport,
    evaluation::against::{Against, evaluate_against},
    model::{Compute, LanguageModel},
};

use crate::scratch::{asset, recipe, run, tokens};

const LENGTH: usize = 48;

/// A model, a pruned twin of it, and a text of token ids.
struct Pair {
    source: Checkpoint,
    pruned: Checkpoint,
    text: PathBuf,
    _scratch: tempfile::TempDir,
}

fn pair(model: &str) -> Pair {
    let scratch = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&asset(model)).unwrap();
    let text = tokens(scratch.path(), 8, 64, source.spec().vocab as u64);
    let out = scratch.path().join("out");
    let mut recipe = recipe(0.5, 0.5);
    recipe.repair = "none".into();
    run(&asset(model), &out, &text, &recipe).unwrap();
    let pruned = Checkpoint::open(&out).unwrap();
    Pair { source, pruned, text, _scratch: scratch }
}

fn against(pair: &Pair, execution: &Execution) -> DivergenceReport {
    held(&pair.pruned, &pair.source, &pair.text, execution, &mut Silent).unwrap()
}

fn held(
    model: &Checkpoint,
    reference: &Checkpoint,
    data: &Path,
    execution: &Execution,
    progress: &mut dyn Progress,
) -> Result<DivergenceReport, Error> {
    let what = Against { reference, data, limit: Some(7), sequence_len: Some(LENGTH) };
    evaluate_against(model, what, execution, progress)
}

/// The ids of a token file, cut into blocks.
fn blocks(text: &Path) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(text).unwrap();
    let ids = |line: &str| -> Vec<u32> {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(line["tokens"].clone()).unwrap()
    };
    let ids: Vec<u32> = text.lines().flat_map(ids).collect();
    ids.chunks_exact(LENGTH).take(7).map(<[u32]>::to_vec).collect()
}

/// What is wanted, straight from the definitions and the logits of both models, all of them held.
#[derive(Debug, Default)]
struct Expected {
    kl: Vec<f64>,
    by_block: Vec<f64>,
    agree: usize,
    nll: [f64; 2],
}

fn expected(reference: &Checkpoint, model: &Checkpoint, text: &Path) -> Expected {
    let blocks = blocks(text);
    let logits = |model: &Checkpoint| -> Vec<Vec<Vec<f32>>> {
        let model = LanguageModel::load(model, model.spec(), &Compute::cpu()).unwrap();
        let logits = model.logits(&blocks).unwrap();
        logits.iter().map(|block| block.to_vec2().unwrap()).collect()
    };
    let softmax = |row: &[f32]| {
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        row.iter().map(|&logit| f64::from(logit).exp() / sum).collect::<Vec<f64>>()
    };
    let top = |row: &[f64]| {
        let best = row.iter().copied().fold(f64::MIN, f64::max);
        row.iter().position(|p| *p == best).unwrap()
    };
    let mut expected = Expected::default();
    for ((p, q), block) in logits(reference).iter().zip(&logits(model)).zip(&blocks) {
        let before = expected.kl.len();
        for (token, next) in block.iter().enumerate().skip(1) {
            let (p, q) = (softmax(&p[token - 1]), softmax(&q[token - 1]));
            expected.kl.push(p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum());
            expected.agree += usize::from(top(&p) == top(&q));
            expected.nll[0] -= p[*next as usize].ln();
            expected.nll[1] -= q[*next as usize].ln();
        }
        let own = &expected.kl[before..];
        expected.by_block.push(own.iter().sum::<f64>() / own.len() as f64);
    }
    expected
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "{found} and {expected}");
}

fn check(reference: &Checkpoint, model: &Checkpoint, text: &Path, found: &DivergenceReport) {
    let expected = expected(reference, model, text);
    let tokens = expected.kl.len();
    assert_eq!((found.blocks, found.tokens), (7, tokens));
    close(found.kl, expected.kl.iter().sum::<f64>() / tokens as f64);
    let spread: f64 = expected.by_block.iter().map(|mean| (mean - found.kl).powi(2)).sum();
    close(found.kl_stderr.unwrap(), (spread / 6.0 / 7.0).sqrt());
    close(found.agreement, expected.agree as f64 / tokens as f64);
    close(found.reference_nll, expected.nll[0] / tokens as f64);
    close(found.nll, expected.nll[1] / tokens as f64);
    close(found.perplexity, (expected.nll[1] / tokens as f64).exp());
    let mut sorted = expected.kl;
    sorted.sort_by(f64::total_cmp);
    close(found.kl_p90, sorted[(tokens * 9).div_ceil(10) - 1]);
    close(found.kl_p99, sorted[(tokens * 99).div_ceil(100) - 1]);
    close(found.kl_max, sorted[tokens - 1]);
}

#[test]
fn layer_by_layer_is_what_full_logits_give() {
    for model in ["parity/mixtral", "parity/arctic", "parity/deepseek_v3", "parity/gpt_oss"] {
        let pair = pair(model);
        let found = against(&pair, &Execution::cpu());
        assert!(found.kl > 1e-6 && found.agreement < 1.0, "{model}: {found:?}");
        check(&pair.source, &pair.pruned, &pair.text, &found);
    }
}

/// Codes are read by the checkpoint, so that models in codes compare as others do.
#[test]
fn models_in_codes_are_read_as_numbers() {
    for model in ["quantised/fp8_tensor_mixtral", "quantised/mxfp4_gpt_oss"] {
        let source = Checkpoint::open(&asset(model)).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let text = tokens(scratch.path(), 8, 64, source.spec().vocab as u64);
        let (mut recipe, out) = (recipe(0.5, 0.5), scratch.path().join("out"));
        recipe.repair = "none".into();
        run(&asset(model), &out, &text, &recipe).unwrap();
        let pruned = Checkpoint::open(&out).unwrap();
        let found = held(&pruned, &source, &text, &Execution::cpu(), &mut Silent).unwrap();
        check(&source, &pruned, &text, &found);
    }
}

#[test]
fn a_model_is_not_far_from_itself() {
    let pair = pair("parity/mixtral_sharded");
    let other = Checkpoint::open(&asset("parity/mixtral_sharded")).unwrap();
    for micro_batch in [1, 3] {
        let execution = Execution::on(Compute::cpu(), Some(micro_batch));
        let found = held(&other, &pair.source, &pair.text, &execution, &mut Silent).unwrap();
        assert_eq!((found.kl, found.kl_max, found.kl_stderr), (0.0, 0.0, Some(0.0)));
        assert_eq!((found.agreement, found.nll_difference_stderr), (1.0, Some(0.0)));
        assert_eq!(found.nll, found.reference_nll);
    }
}

#[test]
fn neither_threads_nor_micro_batches_change_a_bit() {
    let pair = pair("parity/mixtral");
    let one = against(&pair, &Execution::cpu());
    for micro_batch in [2, 5, 16] {
        assert_eq!(against(&pair, &Execution::on(Compute::cpu(), Some(micro_batch))), one);
    }
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| against(&pair, &Execution::cpu())), one, "{threads} threads");
    }
}

/// The code that devices take, on the CPU.
#[test]
fn devices_find_the_same() {
    let pair = pair("parity/mixtral");
    let (host, device) = (Execution::cpu(), Execution::on(Compute::cpu_in(DType::F64), Some(4)));
    let (host, device) = (against(&pair, &host), against(&pair, &device));
    assert!((host.kl - device.kl).abs() < 1e-4 * host.kl, "{} and {}", host.kl, device.kl);
    assert!((host.nll - device.nll).abs() < 1e-4, "{} and {}", host.nll, device.nll);
}

/// Keeps what it receives, and asks to stop in a step.
#[derive(Debug, Default)]
struct Watched {
    stop_in: &'static str,
    step: String,
    done: u64,
    steps: Vec<(String, u64, String)>,
    notes: Vec<String>,
}

impl Progress for Watched {
    fn begin(&mut self, step: &str, total: u64, unit: &str) {
        (self.step, self.done) = (step.to_owned(), 0);
        self.steps.push((step.to_owned(), total, unit.to_owned()));
    }

    fn advance(&mut self, done: u64, _: &str) {
        assert!(done >= self.done, "{} went back from {} to {done}", self.step, self.done);
        self.done = done;
    }

    fn should_stop(&self) -> bool {
        self.step == self.stop_in
    }

    fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }
}

#[test]
fn progress_is_shown_and_each_step_can_be_stopped() {
    let pair = pair("parity/mixtral");
    let run = |stop_in| {
        let mut watched = Watched { stop_in, ..Watched::default() };
        let cpu = Execution::cpu();
        let found = held(&pair.pruned, &pair.source, &pair.text, &cpu, &mut watched);
        (found, watched)
    };
    let (found, watched) = run("");
    found.unwrap();
    let tokens = (7 * LENGTH) as u64;
    let step = |name: &str, total, unit: &str| (name.to_owned(), total, unit.to_owned());
    assert_eq!(
        watched.steps,
        [
            step("running the reference", tokens, "tokens"),
            step("running the model", tokens, "tokens"),
            step("comparing predictions", 7, "blocks"),
        ]
    );
    let memory = |note: &String| note.starts_with("needs up to") && note.contains("hidden states");
    assert_eq!(watched.notes.iter().filter(|note| memory(note)).count(), 1, "{:?}", watched.notes);
    for step in ["running the reference", "running the model", "comparing predictions"] {
        let (found, watched) = run(step);
        assert!(found.unwrap_err().is_stop(), "{step}");
        assert_eq!(watched.steps.last().unwrap().0, step);
    }
}

#[test]
fn memory_that_is_not_allowed_is_refused() {
    let pair = pair("parity/mixtral");
    let execution = Execution::cpu().with_max_memory(Some(1_000_000));
    let mut watched = Watched::default();
    let found = held(&pair.pruned, &pair.source, &pair.text, &execution, &mut watched);
    let error = found.unwrap_err().to_string();
    assert!(error.contains("--max-memory allows 1.0 MB"), "{error}");
    assert!(watched.steps.is_empty(), "{:?}", watched.steps);
    let roomy = Execution::cpu().with_max_memory(Some(2_000_000_000));
    held(&pair.pruned, &pair.source, &pair.text, &roomy, &mut Watched::default()).unwrap();
}
