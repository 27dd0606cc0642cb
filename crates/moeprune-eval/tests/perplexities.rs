//! Perplexity of models whose perplexity is known.

use std::error::Error as _;

use moeprune_eval::{
    BoxError, LanguageModel, Nll, PerplexityReport, perplexity, score_each, token_blocks,
};

const TEXT: [u32; 11] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];

/// Finds token t as unlikely as e to the power of −t.
fn by_token() -> impl LanguageModel {
    score_each(|block| {
        let sum = block[1..].iter().map(|&token| f64::from(token)).sum();
        Ok(Nll::new(sum, block.len() - 1))
    })
}

fn measure(length: usize, batch: usize) -> PerplexityReport {
    perplexity(&mut by_token(), &token_blocks(&TEXT, length).unwrap(), batch).unwrap()
}

fn check(length: usize, blocks: usize, tokens: usize, sum: f64) {
    let report = measure(length, 1);
    let nll = sum / tokens as f64;
    assert_eq!((report.blocks, report.tokens, report.nll), (blocks, tokens, nll), "{length}");
    assert_eq!(report.perplexity, nll.exp(), "{length}");
    for batch in 2..=6 {
        assert_eq!(measure(length, batch), report, "length {length}, batch {batch}");
    }
}

#[test]
fn averages_over_predicted_tokens() {
    check(2, 5, 5, 1.0 + 1.0 + 9.0 + 6.0 + 3.0);
    check(3, 3, 6, 1.0 + 4.0 + 5.0 + 9.0 + 6.0 + 5.0);
    check(11, 1, 10, 41.0);
}

#[test]
fn blocks_may_differ_in_length() {
    let report = perplexity(&mut by_token(), &[&[0, 1, 2, 3], &[0, 6]], 8).unwrap();
    assert_eq!((report.tokens, report.nll), (4, 3.0));
}

#[test]
fn the_report_as_json() {
    insta::assert_json_snapshot!(measure(3, 2));
    let overflowing = perplexity(&mut by_token(), &[&[0, 5000]], 1).unwrap();
    let json = serde_json::to_string(&overflowing).unwrap();
    assert_eq!(serde_json::from_str::<PerplexityReport>(&json).unwrap(), overflowing);
}

#[test]
fn unusable_blocks_are_refused() {
    let check = |tokens: &[u32], length, message: &str| {
        assert_eq!(token_blocks(tokens, length).unwrap_err().to_string(), message);
    };
    let rest = ", and a block needs 2 to predict 1: give a longer text or a suitable block length";
    check(&[], 2, &format!("0 tokens do not fill one block of 2{rest}"));
    check(&TEXT, 12, &format!("11 tokens do not fill one block of 12{rest}"));
    check(&TEXT, 1, &format!("11 tokens do not fill one block of 1{rest}"));
    check(&TEXT, 0, &format!("11 tokens do not fill one block of 0{rest}"));
}

#[test]
fn unusable_measurements_are_refused() {
    let check = |nll: Result<Nll, &'static str>, blocks: &[&[u32]], batch, message: &str| {
        let mut model = score_each(move |_| nll.map_err(BoxError::from));
        let error = perplexity(&mut model, blocks, batch).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.source().is_some(), nll.is_err());
    };
    let block: &[u32] = &[1, 2];
    let none = "no token was predicted: give at least one block of two tokens";
    check(Ok(Nll::new(0.0, 1)), &[], 1, none);
    check(Ok(Nll::new(0.0, 0)), &[block], 1, none);
    check(Ok(Nll::new(0.0, 1)), &[block], 0, "the batch size is 0: give at least 1");
    let rest =
        "the model's logits are not finite; check the checkpoint, or compute in a wider type";
    let value =
        |value: &str| format!("token block 0 has a negative log-likelihood of {value}: {rest}");
    check(Ok(Nll::new(f64::NAN, 1)), &[block], 1, &value("NaN"));
    check(Ok(Nll::new(f64::INFINITY, 1)), &[block], 1, &value("inf"));
    check(Err("no"), &[block; 5], 3, "scoring failed on token blocks 0 to 2");
}

#[test]
fn a_model_must_score_every_block() {
    struct Forgetful;
    impl LanguageModel for Forgetful {
        fn negative_log_likelihood(&mut self, _: &[&[u32]]) -> Result<Vec<Nll>, BoxError> {
            Ok(vec![])
        }
    }
    let error = perplexity(&mut Forgetful, &[&[1, 2]], 1).unwrap_err();
    let message = "the language model returned 0 results for 1 blocks: it must return one each";
    assert_eq!(error.to_string(), message);
}
