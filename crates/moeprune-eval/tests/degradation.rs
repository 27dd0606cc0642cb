//! Measures beside accuracy: what holds of any answers, and how they come out of an evaluation.

mod gsm8k_data;

use moeprune_eval::{
    BoxError, Degradation, Divergence, Document, Ending, Error, EvalReport, EvaluateOptions,
    Generator, Gsm8k, LOOP_CHARACTERS, LOOP_REPETITIONS, Request, TokenDivergence, ends_in_loop,
    evaluate, generate_each,
};
use proptest::{collection::vec, prelude::*};

/// The definition, tried out with each period and length.
fn loops_by_definition(text: &str) -> bool {
    let has_loop = |text: &[char]| {
        let n = text.len();
        (1..=n).any(|period| {
            let least = (LOOP_REPETITIONS * period).max(LOOP_CHARACTERS);
            least <= n && (n - least + period..n).all(|i| text[i] == text[i - period])
        })
    };
    let all: Vec<char> = text.chars().collect();
    let mut end = all.len();
    while end > 0 && all.len() - end < 3 && all[end - 1] == '\u{fffd}' {
        end -= 1;
    }
    while end > 0 && all[end - 1].is_whitespace() {
        end -= 1;
    }
    has_loop(&all) || has_loop(&all[..end])
}

/// Texts that loop or nearly do.
fn near_loop() -> impl Strategy<Value = String> {
    let piece = prop_oneof![Just("a".to_owned()), "[ab]{1,4}", "[ab \n\u{fffd}🐑]{1,30}"];
    (piece.clone(), piece.clone(), 0..70_usize, piece)
        .prop_map(|(before, again, times, after)| format!("{before}{}{after}", again.repeat(times)))
}

proptest! {
    #[test]
    fn loops_are_those_of_the_definition(text in near_loop()) {
        prop_assert_eq!(ends_in_loop(&text), loops_by_definition(&text), "{:?}", text);
    }

    #[test]
    fn what_is_said_often_enough_is_a_loop(before in any::<String>(), said in ".{1,40}", cut in 0..40_usize) {
        let times = LOOP_REPETITIONS.max(LOOP_CHARACTERS.div_ceil(said.chars().count()));
        let rest: String = said.chars().take(cut % said.chars().count()).collect();
        let text = format!("{before}{}{rest}", said.repeat(times));
        prop_assert!(ends_in_loop(&text), "{:?}", text);
    }

    #[test]
    fn measures_are_shares(texts in vec(("[a-c ]{0,30}", any::<Option<bool>>()), 1..6)) {
        let ending = |stop: bool| if stop { Ending::Stop } else { Ending::Length };
        let answers = texts.iter().map(|(text, stop)| (&**text, stop.map(ending)));
        let found = Degradation::of(answers).unwrap();
        prop_assert_eq!(found.n, texts.len());
        let known = texts.iter().all(|(_, stop)| stop.is_some());
        prop_assert_eq!(found.ended.is_some(), known);
        let long_enough = texts.iter().any(|(text, _)| text.split_whitespace().count() >= 4);
        prop_assert_eq!(found.distinct_4.is_some(), long_enough);
        for share in found.distinct_4.map(|share| share.mean).iter().chain(&found.distinct_4_pooled) {
            prop_assert!(*share > 0.0 && *share <= 1.0);
        }
    }

    #[test]
    fn a_divergence_is_none_or_more(
        reference in vec(-30.0_f32..30.0, 2..40), seed in any::<u64>(), width in 0.0_f32..4.0,
    ) {
        let mut state = seed;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let model: Vec<f32> = reference.iter().map(|logit| logit + width * noise()).collect();
        let found = TokenDivergence::of(&reference, &model, 0).unwrap();
        let softmax = |logits: &[f32]| {
            let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter().map(|weight| weight / sum).collect::<Vec<f64>>()
        };
        let (p, q) = (softmax(&reference), softmax(&model));
        let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        prop_assert!(found.kl >= 0.0 && (found.kl - expected).abs() < 1e-12, "{:?} {}", found, expected);
        prop_assert!((found.reference_nll + p[0].ln()).abs() < 1e-10);
        prop_assert!((found.nll + q[0].ln()).abs() < 1e-10);
        let same = TokenDivergence::of(&reference, &reference, 0).unwrap();
        prop_assert_eq!((same.kl, same.agrees), (0.0, true));
    }

    #[test]
    fn a_report_is_of_all_tokens(kl in vec(vec(0.0_f32..9.0, 0..7), 1..6)) {
        let mut divergence = Divergence::default();
        let token = |kl: &f32| TokenDivergence::of(&[0.0, 0.0], &[*kl, 0.0], 0).unwrap();
        let blocks: Vec<Vec<TokenDivergence>> =
            kl.iter().map(|block| block.iter().map(token).collect()).collect();
        blocks.iter().for_each(|block| divergence.add_block(block));
        let mut all: Vec<f64> = blocks.iter().flatten().map(|token| token.kl).collect();
        all.sort_by(f64::total_cmp);
        match divergence.report() {
            Err(error) => prop_assert!(all.is_empty() && matches!(error, Error::NoTokens)),
            Ok(found) => {
                prop_assert_eq!(found.tokens, all.len());
                let mean = all.iter().sum::<f64>() / all.len() as f64;
                prop_assert!((found.kl - mean).abs() < 1e-12);
                prop_assert_eq!(found.kl_max, all[all.len() - 1]);
                for (quantile, percent) in [(found.kl_p50, 50), (found.kl_p90, 90), (found.kl_p99, 99)] {
                    let at_most = all.iter().filter(|kl| **kl <= quantile).count();
                    let below = all.iter().filter(|kl| **kl < quantile).count();
                    prop_assert!(100 * at_most >= percent * all.len() && 100 * below < percent * all.len());
                }
            }
        }
    }
}

/// Of what people wrote none is a loop; of what real models wrote those few that run on in the digits of a fraction, or in
/// an equation, up to the last token that they may write.
#[test]
fn loops_in_real_answers() {
    let documents = [gsm8k_data::train_documents(), gsm8k_data::test_documents()].concat();
    let worked = documents.iter().map(|document| document.answer.split("\n####").next().unwrap());
    assert_eq!(worked.filter(|solution| ends_in_loop(solution)).count(), 0);
    assert_eq!(documents.len(), 8792);

    let answers = std::fs::read_to_string(gsm8k_data::asset("example_model_solutions.jsonl"));
    let (mut all, mut looping) = (0, Vec::new());
    for line in answers.unwrap().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        for model in ["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"] {
            let answer = &record[model];
            let answer = answer.as_str().or_else(|| answer["solution"].as_str()).unwrap();
            all += 1;
            if ends_in_loop(answer) {
                looping.push(answer.to_owned());
            }
        }
    }
    assert_eq!((all, looping.len()), (5276, 5));
    let runs_on = |answer: &String| answer.len() > 500 && !answer.contains("####");
    assert!(looping.iter().all(runs_on), "{looping:#?}");
}

/// Returns given answers with their endings.
struct Scripted {
    answers: Vec<(&'static str, Ending)>,
    batch: Vec<Ending>,
    /// How many endings more than texts.
    more: usize,
}

impl Generator for Scripted {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        let batch: Vec<(&str, Ending)> = self.answers.drain(..requests.len()).collect();
        self.batch = batch.iter().map(|(_, ending)| *ending).collect();
        self.batch.extend(std::iter::repeat_n(Ending::Stop, self.more));
        Ok(batch.iter().map(|(text, _)| (*text).to_owned()).collect())
    }

    fn endings(&self) -> Option<&[Ending]> {
        Some(&self.batch)
    }
}

const ANSWERS: [(&str, Ending); 4] = [
    ("#### 1", Ending::EndOfText),
    // What was written beyond a stop string is no part of the answer.
    ("#### 2\n\nQuestion: and so on", Ending::Length),
    ("I do not know, I do not know, I do not know, I do not know, I do not", Ending::Length),
    ("#### 4\n\n", Ending::Stop),
];

fn documents() -> Vec<Document> {
    (1..=4).map(|i| Document::new(format!("How many are {i}?"), format!("#### {i}"))).collect()
}

fn report(generator: &mut dyn Generator, batch: usize) -> Result<EvalReport, Error> {
    let options = EvaluateOptions::default().with_batch(batch);
    evaluate(&Gsm8k::zero_shot(), &documents(), generator, &options)
}

#[test]
fn endings_go_into_answers() {
    for batch in 1..=4 {
        let mut generator = Scripted { answers: ANSWERS.to_vec(), batch: vec![], more: 0 };
        let report = report(&mut &mut generator, batch).unwrap();
        let ended: Vec<Option<Ending>> = report.answers.iter().map(|a| a.ended).collect();
        let expected = [Ending::EndOfText, Ending::Stop, Ending::Length, Ending::Stop];
        assert_eq!(ended, expected.map(Some));
        let found = report.degradation().unwrap();
        assert_eq!((found.ended.unwrap().mean, found.looping.mean), (0.75, 0.25));
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""ended":"end_of_text""#), "{json}");
        assert_eq!(serde_json::from_str::<EvalReport>(&json).unwrap(), report);
    }
}

#[test]
fn endings_may_be_unknown() {
    let mut texts = ANSWERS.iter();
    let report = report(&mut generate_each(|_| Ok(texts.next().unwrap().0.to_owned())), 3).unwrap();
    let ended: Vec<Option<Ending>> = report.answers.iter().map(|a| a.ended).collect();
    assert_eq!(ended, [None, Some(Ending::Stop), None, None]);
    let found = report.degradation().unwrap();
    assert_eq!((found.ended, found.looping.mean), (None, 0.25));
    let json = serde_json::to_value(&report.answers[0]).unwrap();
    assert!(json.get("ended").is_none(), "{json}");
}

#[test]
fn endings_must_be_one_per_text() {
    let mut generator = Scripted { answers: ANSWERS.to_vec(), batch: vec![], more: 1 };
    let error = report(&mut generator, 4).unwrap_err();
    assert!(matches!(error, Error::EndingCount { requests: 4, endings: 5 }), "{error}");
}
