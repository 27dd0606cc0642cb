//! How likely continuations are: what whole sequences say, with the context run once.

use candle_core::DType;
use moeprune_model::{BranchLikelihood, Branches, Compute, Error, LanguageModel};

use crate::reference::{Checkpoint, floats};

fn model(name: &str, dtype: DType) -> LanguageModel {
    let checkpoint = Checkpoint::open(name);
    LanguageModel::load(&checkpoint, &checkpoint.spec, &Compute::cpu_in(dtype)).unwrap()
}

fn tokens(seed: usize, len: usize) -> Vec<u32> {
    (0..len).map(|t| ((seed * 71 + t * 37 + t * t) % 250) as u32).collect()
}

/// Contexts and continuations of many lengths, some of them twice.
fn branches() -> Vec<Branches> {
    let of = |seed: usize, context: usize, lengths: &[usize]| Branches {
        context: tokens(seed, context),
        continuations: lengths
            .iter()
            .enumerate()
            .map(|(n, &len)| tokens(seed + n + 1, len))
            .collect(),
    };
    vec![
        of(1, 5, &[1, 1, 1, 1]),
        of(2, 1, &[3, 7]),
        of(3, 30, &[2]),
        of(1, 5, &[4, 1, 9]),
        of(5, 12, &[]),
        of(6, 3, &[8]),
    ]
}

/// Runs context and continuation whole.
fn by_definition(model: &LanguageModel, context: &[u32], continuation: &[u32]) -> BranchLikelihood {
    let whole = [context, continuation].concat();
    let logits = floats(&model.logits(std::slice::from_ref(&whole)).unwrap()[0]);
    let (mut sum, mut is_greedy) = (0.0, true);
    for (place, &token) in whole.iter().enumerate().skip(context.len()) {
        let row = &logits[(place - 1) * model.vocab()..][..model.vocab()];
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let total: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
        sum += f64::from(row[token as usize] - max) - total.ln();
        is_greedy &= row.iter().position(|&v| v == max) == Some(token as usize);
    }
    BranchLikelihood { sum, is_greedy }
}

fn check(name: &str, dtype: DType) {
    let model = model(name, dtype);
    let branches = branches();
    let together = model.branch_likelihoods(&branches).unwrap();
    for (branches, found) in branches.iter().zip(&together) {
        assert_eq!(found.len(), branches.continuations.len());
        let alone = model.branch_likelihoods(std::slice::from_ref(branches)).unwrap();
        assert_eq!(&alone[0], found, "{name}: a context does not see the others");
        for (continuation, found) in branches.continuations.iter().zip(found) {
            let one = Branches { continuations: vec![continuation.clone()], ..branches.clone() };
            let alone = model.branch_likelihoods(&[one]).unwrap();
            assert_eq!(alone[0][0], *found, "{name}: a continuation does not see the others");
            let expected = by_definition(&model, &branches.context, continuation);
            let off = (found.sum - expected.sum).abs();
            assert!(off < 1e-5 * (1.0 + expected.sum.abs()), "{name}: {found:?}, not {expected:?}");
            assert_eq!(found.is_greedy, expected.is_greedy, "{name}");
        }
    }
}

#[test]
fn continuations_are_as_likely_as_in_whole_sequences() {
    for name in ["arctic", "arctic_freq2", "mixtral"] {
        check(name, DType::F32);
    }
    check("mixtral", DType::F64);
}

#[test]
fn what_the_model_writes_is_greedy() {
    let model = model("mixtral", DType::F32);
    let context = tokens(3, 9);
    let options = moeprune_model::GenerationOptions { max_new_tokens: 6, ..Default::default() };
    let written =
        model.generate(std::slice::from_ref(&context), &options, &mut |_, _| false).unwrap();
    let mut other = written[0].clone();
    other[5] = (other[5] + 1) % 250;
    let branches = Branches { context, continuations: vec![written[0].clone(), other] };
    let found = model.branch_likelihoods(&[branches]).unwrap();
    assert_eq!(found[0].iter().map(|f| f.is_greedy).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn what_cannot_be_scored() {
    let model = model("mixtral", DType::F32);
    let run = |context: Vec<u32>, continuation: Vec<u32>| {
        let first = Branches { context: vec![1], continuations: vec![vec![2]] };
        model.branch_likelihoods(&[first, Branches { context, continuations: vec![continuation] }])
    };
    assert!(matches!(run(vec![], vec![1]), Err(Error::EmptySequence { sequence: 1 })));
    assert!(matches!(run(vec![1], vec![]), Err(Error::EmptySequence { sequence: 1 })));
    assert!(matches!(run(vec![1], vec![u32::MAX]), Err(Error::Token { token: u32::MAX, .. })));
    assert!(matches!(run(vec![u32::MAX], vec![1]), Err(Error::Token { token: u32::MAX, .. })));
    let most = model.max_positions();
    assert!(run(vec![1; most], vec![1]).is_ok());
    assert!(run(vec![1; most], vec![1, 2]).is_err());
    assert!(run(vec![1], vec![1; most + 1]).is_err());
    assert_eq!(model.branch_likelihoods(&[]).unwrap().len(), 0);
}
