//! Several observations, blended.

use moeprune::{
    Calibration, Domain, Execution, FromRecipe, Job, Pipeline, Recipe, Silent, blend,
    checkpoint::Checkpoint,
    core::{Observation, Sparsity},
    coverage, plan_domains,
    recipe::Domains,
};

use crate::scratch::{asset, observe, tokens};

/// Two texts that could hardly be more different: many tokens, and few.
fn observed() -> (Checkpoint, Vec<Domain>) {
    let model = Checkpoint::open(&asset("parity/arctic")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut recipe = Recipe::arctic();
    recipe.calibration.sequence_len = 32;
    let mut of = |name: &str, vocab: u64, samples: usize| {
        recipe.calibration.samples = samples;
        let text = tokens(scratch.path(), samples, 32, vocab);
        let calibration = Calibration::read(&text, &model, &recipe).unwrap();
        let observation = observe(&model, &calibration).unwrap();
        Domain { name: name.into(), observation, weight: 1.0 }
    };
    let domains = vec![of("wide", 256, 8), of("narrow", 3, 4)];
    (model, domains)
}

fn counts(observation: &Observation) -> &[u64] {
    &observation.layers[0].routing.as_ref().unwrap().counts
}

#[test]
fn weights_are_of_tokens() {
    let (_, domains) = observed();
    // The second text is half as long, so its tokens count twice for the same weight.
    let even = blend(&domains).unwrap().unwrap();
    let (wide, narrow) = (counts(&domains[0].observation), counts(&domains[1].observation));
    let expected: Vec<u64> = wide.iter().zip(narrow).map(|(w, n)| w + 2 * n).collect();
    assert_eq!(counts(&even), expected);
    assert_eq!(even.corpora.iter().map(|c| c.repeated).collect::<Vec<_>>(), [1, 2]);

    let weighed = |weights: [f64; 2]| {
        let mut domains = domains.clone();
        domains.iter_mut().zip(weights).for_each(|(domain, weight)| domain.weight = weight);
        blend(&domains)
    };
    let expected: Vec<u64> = wide.iter().zip(narrow).map(|(w, n)| 3 * w + 2 * n).collect();
    assert_eq!(counts(&weighed([0.75, 0.25]).unwrap().unwrap()), expected);
    assert_eq!(counts(&weighed([0.0, 2.0]).unwrap().unwrap()), narrow);
    for weights in [[0.0, 0.0], [-1.0, 1.0], [f64::NAN, 1.0]] {
        assert!(weighed(weights).is_err(), "{weights:?}");
    }
}

#[test]
fn a_blend_is_what_the_texts_in_a_row_are() {
    let (_, domains) = observed();
    let mut sum = domains[0].observation.clone();
    sum.add(&domains[1].observation).unwrap();
    let mut in_a_row = domains;
    in_a_row[0].weight = 2.0;
    assert_eq!(blend(&in_a_row).unwrap().unwrap(), sum);
}

#[test]
fn max_min_lifts_the_text_that_loses_most() {
    let (model, domains) = observed();
    for criterion in ["reap", "frequency"] {
        let mut recipe = Recipe::arctic();
        recipe.experts.sparsity = Sparsity::new(0.5).unwrap();
        recipe.sparsity = recipe.experts.sparsity;
        recipe.experts.criterion = criterion.into();
        let pipeline = Pipeline::from_recipe(&recipe).unwrap();
        let mut worst = |how: Domains| {
            recipe.experts.domains = how;
            let (on, mut silent) = (Execution::cpu(), Silent);
            let mut job = Job::new(&model, &pipeline, &on, &mut silent);
            let (plan, domains) = plan_domains(&mut job, &domains, &recipe).unwrap();
            let covered = coverage(&plan, &domains).unwrap();
            let again = plan_domains(&mut job, &domains, &recipe).unwrap();
            assert_eq!(again.0.layers, plan.layers, "weights that were found make the same plan");
            covered.iter().filter_map(|c| c.saliency).fold(1.0, f64::min)
        };
        let (blended, lifted) = (worst(Domains::Blend), worst(Domains::MaxMin));
        assert!(lifted >= blended, "{criterion}: {lifted} after {blended}");
    }
}
