//! The tokenizer: loses nothing, wastes nothing, and comes out the same each time.

use nano::batch::sequence;
use nano::corpus::{Corpus, DOCUMENT};
use nano::tokenizer::Tokenizer;

fn train(corpus: &Corpus) -> Tokenizer {
    let texts = corpus.training().take(4000).map(|problem| problem.text());
    Tokenizer::train(texts, 800).expect("the problems train a tokenizer")
}

#[test]
fn any_text_comes_back() {
    let corpus = Corpus::new(1);
    let tokenizer = train(&corpus);
    let problems = corpus.test.iter().map(|problem| problem.text());
    let strange = ["naïve café — 東京\t\u{1f600}\r\n  x", "  12,345.6  ", "<<1+1=2>>2"];
    for text in problems.chain(strange.map(str::to_owned)) {
        let tokens = tokenizer.encode(&text).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
    }
}

#[test]
fn digits_are_tokens_of_their_own() {
    let corpus = Corpus::new(1);
    let tokenizer = train(&corpus);
    let digits = tokenizer.encode("4872").unwrap();
    assert_eq!(digits.len(), 4);
    // The space goes with the first digit.
    assert_eq!(tokenizer.encode(" 4872").unwrap()[1..], digits[1..]);
}

#[test]
fn prompt_and_completion_split_where_the_text_does() {
    let corpus = Corpus::new(1);
    let tokenizer = train(&corpus);
    for problem in &corpus.test {
        let (tokens, _) = sequence(&tokenizer, problem).unwrap();
        let whole = tokenizer.encode(&problem.text()).unwrap();
        assert_eq!(tokens[1..tokens.len() - 1], whole);
        assert_eq!((tokens[0], tokens[tokens.len() - 1]), (tokenizer.bos, tokenizer.eos));
    }
}

#[test]
fn documents_fill_a_block_of_512() {
    let corpus = Corpus::new(1);
    let tokenizer = train(&corpus);
    assert_eq!(corpus.calibration.len() % DOCUMENT, 0);
    for document in corpus.calibration_documents() {
        assert!(tokenizer.encode(&document).unwrap().len() > 512);
    }
}

#[test]
fn training_it_twice_gives_the_same_file() {
    let corpus = Corpus::new(1);
    assert_eq!(train(&corpus).json().unwrap(), train(&corpus).json().unwrap());
}
