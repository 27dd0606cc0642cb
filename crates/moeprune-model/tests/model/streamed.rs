//! Experts that are read when they are needed: which are read, which are kept, and what goes wrong.

use moeprune_core::{StageError, StoredWeight, TensorId, TensorSource};
use moeprune_model::{
    Compute, Error, Expert, ExpertProvider, GenerationOptions, HeldExperts, LanguageModel,
    StreamedExperts,
};
use proptest::prelude::*;

use crate::reference::Checkpoint;

fn visited(experts: &dyn ExpertProvider, layer: usize, wanted: &[usize]) -> Vec<usize> {
    let mut visited = Vec::new();
    let mut visit = |expert: &Expert| {
        visited.push(expert.index());
        Ok(())
    };
    experts.for_each(layer, wanted, &mut visit).unwrap();
    visited
}

/// Bytes of an expert of this model.
fn expert_bytes(checkpoint: &Checkpoint) -> u64 {
    Expert::load(checkpoint, &checkpoint.spec, 0, 0, &Compute::cpu()).unwrap().bytes()
}

#[test]
fn those_that_are_needed_most_are_kept() {
    let checkpoint = Checkpoint::open("mixtral");
    let room = 2 * expert_bytes(&checkpoint);
    let streamed = StreamedExperts::new(&checkpoint, &checkpoint.spec, &Compute::cpu(), room);
    let check = |wanted: &[usize], read: u64, reused: u64| {
        assert_eq!(visited(&streamed, 0, wanted), wanted);
        let counts = streamed.counts();
        assert_eq!((counts.read, counts.reused), (read, reused), "{wanted:?}");
    };
    check(&[0, 1, 2], 3, 0); // 0 and 1 are kept: 2 was not needed more often
    check(&[0, 2], 4, 1); // 2 takes the place of 1
    check(&[0, 1, 2], 5, 3); // 1 as often as 2: it stays out
    check(&[1], 6, 3);
    check(&[], 6, 3);
    check(&[1, 2, 3], 8, 4); // 1 takes the place of 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// All are visited, in order, with anything kept; and what was read and what was not is all.
    #[test]
    fn all_are_visited_in_order(
        calls in prop::collection::vec((0..2_usize, prop::collection::btree_set(0..8_usize, 0..6)), 1..12),
        kept in 0..17_u64,
    ) {
        let checkpoint = Checkpoint::open("mixtral");
        let room = kept * expert_bytes(&checkpoint);
        let streamed = StreamedExperts::new(&checkpoint, &checkpoint.spec, &Compute::cpu(), room);
        let mut wanted = 0;
        for (layer, experts) in calls {
            let experts: Vec<usize> = experts.into_iter().collect();
            wanted += experts.len() as u64;
            prop_assert_eq!(visited(&streamed, layer, &experts), experts);
        }
        let counts = streamed.counts();
        prop_assert_eq!(counts.read + counts.reused, wanted);
        prop_assert!(kept > 0 || counts.reused == 0);
    }
}

#[test]
fn the_first_error_of_a_visit_ends_it() {
    let checkpoint = Checkpoint::open("mixtral");
    let compute = Compute::cpu();
    let held = HeldExperts::load(&checkpoint, &checkpoint.spec, &compute).unwrap();
    let room = 2 * expert_bytes(&checkpoint);
    let streamed = StreamedExperts::new(&checkpoint, &checkpoint.spec, &compute, room);
    visited(&streamed, 0, &[1, 3]);
    for experts in [&held as &dyn ExpertProvider, &streamed] {
        for fails_at in 0..4 {
            let mut seen = Vec::new();
            let mut visit = |expert: &Expert| {
                seen.push(expert.index());
                if expert.index() == fails_at { Err(Error::Cancelled) } else { Ok(()) }
            };
            let failed = experts.for_each(0, &[0, 1, 2, 3], &mut visit);
            assert!(matches!(failed, Err(Error::Cancelled)), "{failed:?}");
            assert_eq!(seen, (0..=fails_at).collect::<Vec<_>>());
        }
    }
}

#[test]
fn experts_that_do_not_exist() {
    let checkpoint = Checkpoint::open("mixtral");
    let compute = Compute::cpu();
    let held = HeldExperts::load(&checkpoint, &checkpoint.spec, &compute).unwrap();
    let streamed = StreamedExperts::new(&checkpoint, &checkpoint.spec, &compute, 0);
    for experts in [&held as &dyn ExpertProvider, &streamed] {
        for (layer, expert) in [(0, 4000), (99, 0)] {
            let error = experts.for_each(layer, &[expert], &mut |_| Ok(())).unwrap_err();
            let expected = format!("layer {layer} has no expert {expert}");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}

/// A model of which one expert cannot be read any more.
struct Torn<'a>(&'a Checkpoint, TensorId);

impl TensorSource for Torn<'_> {
    fn weight(&self, id: TensorId) -> Result<StoredWeight<'_>, StageError> {
        if id == self.1 {
            return Err("the disk is gone".into());
        }
        self.0.weight(id)
    }
}

#[test]
fn a_read_that_fails_names_the_tensor() {
    use moeprune_core::{LinearId, MlpProjection};
    let checkpoint = Checkpoint::open("mixtral");
    let id = TensorId::linear(1, LinearId::Expert(2, MlpProjection::Up));
    let torn = Torn(&checkpoint, id);
    let compute = Compute::cpu();
    let streamed = StreamedExperts::new(&torn, &checkpoint.spec, &compute, u64::MAX / 2);
    let model = LanguageModel::with_experts(&torn, &checkpoint.spec, &compute, streamed).unwrap();
    let prompts: Vec<Vec<u32>> = vec![(0..60).collect()];
    let options = GenerationOptions { max_new_tokens: 2, ..GenerationOptions::default() };
    let error = model.generate(&prompts, &options, &mut |_, _| false);
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&id.to_string()) && error.contains("the disk is gone"), "{error}");
}
