//! Which blocks are drawn.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use moeprune_capture::{
    BlockOrigin, CalibrationSource, Content, Document, Documents, Error, Place, SamplingOptions,
    TokenBlocks, token_blocks, token_blocks_apart, token_blocks_in_groups, token_blocks_in_order,
};
use moeprune_core::StageError;
use proptest::prelude::*;
use tokenizers::Tokenizer;

/// Words `a` to `z` are 3 to 28; every text begins with `<s>` = 1. Its file asks for padding and
/// truncation, as some do.
fn tokenizer() -> Tokenizer {
    let words: Vec<String> =
        ('a'..='z').zip(3..).map(|(word, id)| format!("\"{word}\": {id}")).collect();
    let json = format!(
        r#"{{
        "version": "1.0",
        "truncation":
            {{"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}},
        "padding": {{"strategy": {{"Fixed": 12}}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 2, "pad_type_id": 0, "pad_token": "</s>"}},
        "added_tokens": [{{"id": 29, "content": "<turn>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}}],
        "normalizer": null,
        "pre_tokenizer": {{"type": "WhitespaceSplit"}},
        "post_processor": {{"type": "TemplateProcessing",
            "single": [{{"SpecialToken": {{"id": "<s>", "type_id": 0}}}},
                {{"Sequence": {{"id": "A", "type_id": 0}}}}],
            "pair": [{{"Sequence": {{"id": "A", "type_id": 0}}}},
                {{"Sequence": {{"id": "B", "type_id": 0}}}}],
            "special_tokens": {{"<s>": {{"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}}}},
        "decoder": null,
        "model": {{"type": "WordLevel", "unk_token": "<unk>",
            "vocab": {{"<unk>": 0, "<s>": 1, "</s>": 2, {}}}}}
        }}"#,
        words.join(", ")
    );
    Tokenizer::from_bytes(json).unwrap()
}

fn options(samples: usize, sequence_len: usize, seed: u64) -> SamplingOptions {
    SamplingOptions { samples, sequence_len, seed }
}

/// Documents of consecutive ids, each beginning where the one before ended, so that a block tells
/// where it came from.
fn consecutive(lengths: &[u32]) -> Vec<Document> {
    let mut next = 0;
    lengths
        .iter()
        .map(|length| {
            let ids: Vec<u32> = (next..next + length).collect();
            next += length;
            Document::tokens(ids)
        })
        .collect()
}

const VOCAB: usize = 1 << 20;

fn starts(blocks: &TokenBlocks) -> Vec<u32> {
    blocks.blocks().iter().map(|block| block[0]).collect()
}

#[test]
fn a_seed_draws_the_same_blocks_forever() {
    let text = consecutive(&[100, 3, 50, 8, 8, 1000]);
    let blocks = token_blocks(&text, None, VOCAB, &options(12, 8, 0)).unwrap();
    assert_eq!(blocks.origin(), BlockOrigin::LongDocuments { long: 3, documents: 6 });
    insta::assert_compact_json_snapshot!(starts(&blocks), @"[37, 51, 109, 1156, 2, 983, 132, 55, 71, 54, 140, 144]");
    let blocks = token_blocks(&text, None, VOCAB, &options(12, 8, 1)).unwrap();
    insta::assert_compact_json_snapshot!(starts(&blocks), @"[947, 135, 25, 131, 103, 923, 1034, 38, 104, 128, 999, 1130]");
    let packed = token_blocks(&text[1..5].to_vec(), None, VOCAB, &options(12, 60, 0)).unwrap();
    assert_eq!(packed.origin(), BlockOrigin::Packed { documents: 4 });
    insta::assert_compact_json_snapshot!(starts(&packed), @"[107, 100, 105, 103, 103, 100, 108, 103, 107, 100, 107, 101]");
}

#[test]
fn more_samples_begin_with_the_same_ones() {
    let text = consecutive(&[100, 50, 1000]);
    let few = token_blocks(&text, None, VOCAB, &options(5, 16, 3)).unwrap();
    let many = token_blocks(&text, None, VOCAB, &options(50, 16, 3)).unwrap();
    assert_eq!(few.blocks(), &many.blocks()[..5]);
}

#[test]
fn documents_and_offsets_are_equally_likely() {
    // Offsets 0 to 3 of each of the three long documents: twelve places.
    let text = consecutive(&[8, 4, 8, 2, 8]);
    let blocks = token_blocks(&text, None, VOCAB, &options(12_000, 4, 5)).unwrap();
    let places = [0, 1, 2, 3, 12, 13, 14, 15, 22, 23, 24, 25];
    let drawn = starts(&blocks);
    assert!(drawn.iter().all(|start| places.contains(start)));
    for place in places {
        let times = drawn.iter().filter(|&&start| start == place).count();
        assert!((850..1150).contains(&times), "{times} times {place}");
    }
}

#[test]
fn short_texts_have_few_blocks_apart_or_none() {
    let check = |lengths: &[u32], samples, expected: usize| {
        let asked = options(samples, 8, 0);
        let text = consecutive(lengths);
        let (fitted, apart) = token_blocks_apart(&text, None, VOCAB, &asked, 4).unwrap();
        assert_eq!((fitted.blocks().len(), apart.blocks().len()), (samples, expected));
        assert_eq!((fitted.origin(), fitted.seed()), (apart.origin(), apart.seed()));
    };
    check(&[1000], 3, 4);
    check(&[1000], 0, 4);
    check(&[20], 20, 0);
    check(&[9; 3], 40, 0);
    check(&[5; 4], 20, 0);
    check(&[5; 400], 20, 4);
    // Ready-made blocks.
    check(&[8; 6], 4, 2);
    check(&[8; 6], 6, 0);
    check(&[8; 20], 6, 4);
}

#[test]
fn blocks_of_the_right_length_are_used_as_they_are() {
    let text = consecutive(&[4, 4, 4]);
    let draw = |samples| token_blocks(&text, None, VOCAB, &options(samples, 4, 11));
    let blocks = draw(2).unwrap();
    assert_eq!(blocks.blocks(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
    assert_eq!(
        (blocks.origin(), blocks.seed(), blocks.tokens()),
        (BlockOrigin::Given { documents: 3 }, 0, 8)
    );
    assert_eq!(draw(3).unwrap().blocks().len(), 3);
    insta::assert_snapshot!(draw(4).unwrap_err(), @"the calibration text holds 3 blocks of 4 tokens and 4 were asked for; use more text or --samples 3");
    // Another length anywhere makes it a text to draw from.
    let uneven = consecutive(&[4, 4, 5]);
    let drawn = token_blocks(&uneven, None, VOCAB, &options(9, 4, 0)).unwrap();
    assert_eq!(drawn.origin(), BlockOrigin::LongDocuments { long: 1, documents: 3 });
    assert_eq!(starts(&drawn), [8; 9]);
    let uneven = consecutive(&[4, 3, 4]);
    let drawn = token_blocks(&uneven, None, VOCAB, &options(9, 4, 0)).unwrap();
    assert_eq!(drawn.origin(), BlockOrigin::Packed { documents: 3 });
}

#[test]
fn text_is_neither_padded_nor_cut() {
    let text = vec![Document::text("a b c d e f g h"), Document::text("x <turn> ?")];
    let blocks = |len| token_blocks_in_order(&text, Some(&tokenizer()), 30, len).unwrap();
    let row = vec![1, 3, 4, 5, 6, 7, 8, 9, 10, 1, 26, 29, 0];
    assert_eq!(blocks(20).blocks(), std::slice::from_ref(&row));
    assert_eq!(blocks(5).blocks(), row.chunks(5).map(<[u32]>::to_vec).collect::<Vec<_>>());
    assert_eq!(blocks(5).origin(), BlockOrigin::InOrder { documents: 2 });
    // One token is left over, and predicts nothing.
    assert_eq!(blocks(6).blocks(), [&row[..6], &row[6..12]]);
    let drawn = token_blocks(&text, Some(&tokenizer()), 30, &options(40, 8, 0)).unwrap();
    assert_eq!(drawn.origin(), BlockOrigin::LongDocuments { long: 1, documents: 2 });
    assert!(drawn.blocks().iter().all(|block| block == &row[..8]));
}

#[test]
fn a_rendered_text_has_its_special_tokens_already() {
    let text = vec![
        Document::new(Content::Rendered("<turn> a".into())),
        Document::text("a"),
        Document::new(Content::Rendered("b <turn>".into())),
    ];
    let blocks = token_blocks_in_order(&text, Some(&tokenizer()), 30, 20).unwrap();
    assert_eq!(blocks.blocks(), [[29, 3, 1, 3, 4, 29]]);
}

#[test]
fn tokens_of_a_text_are_no_ready_made_blocks() {
    let text = |content: fn(Vec<u32>) -> Content| -> Vec<Document> {
        [vec![1, 2, 3], vec![4, 5, 6]].map(|ids| Document::new(content(ids))).to_vec()
    };
    let origin =
        |content| token_blocks(&text(content), None, 8, &options(1, 3, 0)).unwrap().origin();
    assert_eq!(origin(Content::Tokens), BlockOrigin::Given { documents: 2 });
    assert_eq!(
        origin(|ids| Content::Encoded(Arc::new(ids.into()))),
        BlockOrigin::Packed { documents: 2 }
    );
}

#[test]
fn what_blocks_are_drawn_from_is_counted() {
    let check = |lengths: &[u32], len, expected: (u64, u64)| {
        let text = consecutive(lengths);
        let blocks = token_blocks(&text, None, VOCAB, &options(2, len, 0)).unwrap();
        assert_eq!((blocks.origin().documents(), blocks.drawable()), expected, "{lengths:?}");
    };
    check(&[10, 3, 20], 8, (3, 30));
    check(&[3, 3, 8, 20], 8, (4, 20));
    check(&[3, 3, 8], 8, (3, 14));
    check(&[8, 8, 8], 8, (3, 24));
    let in_order = token_blocks_in_order(&consecutive(&[5, 6]), None, VOCAB, 4).unwrap();
    assert_eq!((in_order.origin().documents(), in_order.drawable()), (2, 11));
}

#[test]
fn many_documents_stay_in_order() {
    let text: Vec<Document> = (0..5000_u32)
        .map(|i| match i % 3 {
            0 => Document::tokens([i % 20]),
            _ => Document::text(char::from(b'a' + (i % 26) as u8)),
        })
        .collect();
    let expected = (0..5000_u32).flat_map(|i| match i % 3 {
        0 => vec![i % 20],
        _ => vec![1, 3 + i % 26],
    });
    let blocks = token_blocks_in_order(&text, Some(&tokenizer()), 30, 100_000).unwrap();
    assert!(blocks.blocks()[0].iter().copied().eq(expected));
}

/// Everything that can be wrong with a text, and what is said about it.
#[test]
fn unusable_texts_say_what_to_do() {
    struct Failing;
    impl CalibrationSource for Failing {
        fn documents(&self) -> Result<Documents<'_>, StageError> {
            Ok(Box::new(std::iter::once(Err("the network is down".into()))))
        }
        fn name(&self) -> Cow<'_, str> {
            "a stream".into()
        }
    }
    let words = vec![Document::text("a b c")];
    let ids = vec![Document::tokens([1, 2]), Document::tokens([3, 30])];
    let lined = vec![Document::tokens([31]).at(Place::new("line", 17))];
    let tokenizer = tokenizer();
    let draw = |text: &dyn CalibrationSource, tokenizer, vocab, samples, len| {
        token_blocks(text, tokenizer, vocab, &options(samples, len, 0)).unwrap_err()
    };
    let file = Arc::from("b.jsonl");
    let filed = vec![Document::text("z").at(Place::new("row", 3).in_file(&file))];
    let errors: [Error; 10] = [
        draw(&Failing, None, 30, 1, 2),
        draw(&words, None, 30, 1, 2),
        draw(&words, Some(&tokenizer), 5, 1, 2),
        draw(&words, Some(&tokenizer), 30, 1, 4),
        draw(&ids, None, 30, 1, 2),
        draw(&lined, None, 30, 1, 2),
        draw(&filed, Some(&tokenizer), 28, 1, 2),
        draw(&words, Some(&tokenizer), 30, 0, 4),
        draw(&Vec::new(), None, 30, 1, 4),
        token_blocks_in_order(&vec![Document::tokens([1])], None, 30, 4).unwrap_err(),
    ];
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(errors.join("\n"), @r#"
    a stream: the network is down
    the calibration text is text and no tokenizer was given; put the model's tokenizer.json beside its weights, or calibrate on lines of `{"tokens": [...]}`
    the calibration text document 1: token id 5 ("c") does not fit the model, whose embedding has 5 rows; take that token out of the text, or use the model's own tokenizer
    calibration text too short: the calibration text has 4 tokens and a block of 4 needs 5; use more text or a smaller --seq-len
    the calibration text document 2: token id 30 does not fit the model, whose embedding has 30 rows
    the calibration text line 17: token id 31 does not fit the model, whose embedding has 30 rows
    b.jsonl row 3: token id 28 ("z") does not fit the model, whose embedding has 28 rows; take that token out of the text, or use the model's own tokenizer
    cannot draw 0 blocks of 4 tokens; ask for at least one of one
    calibration text too short: the calibration text has 0 tokens and a block of 4 needs 5; use more text or a smaller --seq-len
    calibration text too short: the calibration text has 1 tokens and a block of 4 needs 2; use more text or a smaller --seq-len
    "#);
}

#[test]
fn a_token_beyond_the_embedding_is_no_error_until_it_occurs() {
    let text = vec![Document::text("a b c")];
    let drawn = token_blocks(&text, Some(&tokenizer()), 29, &options(1, 3, 0)).unwrap();
    assert!(drawn.blocks()[0].iter().all(|&id| id < 29));
}

#[test]
fn given_blocks_are_checked() {
    let error = |blocks: &[&[u32]]| {
        let blocks = blocks.iter().map(|block| block.to_vec()).collect();
        TokenBlocks::new(blocks, 8).unwrap_err().to_string()
    };
    let errors = [error(&[]), error(&[&[]]), error(&[&[1], &[1, 2]]), error(&[&[1], &[8]])];
    insta::assert_snapshot!(errors.join("\n"), @r#"
    cannot draw 0 blocks of 0 tokens; ask for at least one of one
    cannot draw 1 blocks of 0 tokens; ask for at least one of one
    block 1 has 2 tokens where the first has 1; blocks must be equal
    block 2 of the calibration tokens: token id 8 does not fit the model, whose embedding has 8 rows
    "#);
}

proptest! {
    /// Every block is a stretch of one long document, or of all in a row if none is long.
    #[test]
    fn blocks_are_stretches_of_the_text(
        lengths in prop::collection::vec(0_u32..40, 1..20),
        samples in 1_usize..20,
        sequence_len in 1_usize..40,
        seed: u64,
    ) {
        let text = consecutive(&lengths);
        let asked = options(samples, sequence_len, seed);
        let long = |length: &&u32| **length as usize > sequence_len;
        match token_blocks(&text, None, VOCAB, &asked) {
            Ok(blocks) => {
                prop_assert_eq!(blocks.blocks().len(), samples);
                prop_assert_eq!(&blocks, &token_blocks(&text, None, VOCAB, &asked).unwrap());
                for block in blocks.blocks() {
                    prop_assert_eq!(block.len(), sequence_len);
                    prop_assert!(block.windows(2).all(|pair| pair[1] == pair[0] + 1));
                }
                if lengths.iter().any(|length| long(&length)) {
                    let mut end = 0;
                    let ends: Vec<u32> =
                        lengths.iter().map(|length| { end += length; end }).collect();
                    for block in blocks.blocks() {
                        let (first, last) = (block[0], block[sequence_len - 1]);
                        let of = ends.iter().position(|&end| first < end).unwrap();
                        prop_assert!(long(&&lengths[of]) && last + 1 < ends[of]);
                    }
                }
            }
            Err(Error::TooShort { have, need, .. }) => {
                prop_assert_eq!(have, lengths.iter().sum::<u32>() as usize);
                prop_assert!(have < need);
            }
            Err(Error::TooFewBlocks { have, need, .. }) => {
                prop_assert!(have == lengths.len() && have < need);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// Blocks beside others share no token with them, and the others are as they are without.
    #[test]
    fn blocks_apart_share_no_token(
        lengths in prop::collection::vec(0_u32..200, 1..20),
        samples in 1_usize..20,
        apart in 0_usize..8,
        sequence_len in 1_usize..40,
        seed: u64,
    ) {
        let text = consecutive(&lengths);
        let asked = options(samples, sequence_len, seed);
        match (
            token_blocks(&text, None, VOCAB, &asked),
            token_blocks_apart(&text, None, VOCAB, &asked, apart),
        ) {
            (Ok(alone), Ok((fitted, others))) => {
                prop_assert_eq!(&alone, &fitted);
                prop_assert!(others.blocks().len() <= apart);
                let taken: BTreeSet<u32> = fitted.blocks().concat().into_iter().collect();
                prop_assert!(others.blocks().concat().iter().all(|id| !taken.contains(id)));
                for block in others.blocks() {
                    prop_assert_eq!(block.len(), sequence_len);
                    prop_assert!(block.windows(2).all(|pair| pair[1] == pair[0] + 1));
                }
            }
            (alone, both) => {
                prop_assert_eq!(alone.unwrap_err().to_string(), both.unwrap_err().to_string());
            }
        }
    }

    /// No two groups share a token, and a group is as it is without those that follow.
    #[test]
    fn groups_share_no_token(
        lengths in prop::collection::vec(0_u32..200, 1..20),
        samples in 1_usize..10,
        apart in prop::array::uniform3(0_usize..6),
        sequence_len in 1_usize..40,
        seed: u64,
    ) {
        let text = consecutive(&lengths);
        let asked = options(samples, sequence_len, seed);
        let Ok((fitted, groups)) = token_blocks_in_groups(&text, None, VOCAB, &asked, apart) else {
            return Ok(());
        };
        let mut taken: BTreeSet<u32> = fitted.blocks().concat().into_iter().collect();
        for (group, &wanted) in groups.iter().zip(&apart) {
            prop_assert!(group.blocks().len() <= wanted);
            let ids = group.blocks().concat();
            prop_assert!(ids.iter().all(|id| !taken.contains(id)));
            taken.extend(ids);
        }
        let [first, second, _] = apart;
        let fewer = token_blocks_in_groups(&text, None, VOCAB, &asked, [first, second]).unwrap();
        prop_assert_eq!(&fewer.0, &fitted);
        prop_assert_eq!(&fewer.1[..], &groups[..2]);
    }

    /// Consecutive blocks put together are the text, but for one token at most.
    #[test]
    fn blocks_in_order_cover_the_text(
        lengths in prop::collection::vec(0_u32..40, 1..20),
        sequence_len in 2_usize..40,
    ) {
        let total: u32 = lengths.iter().sum();
        match token_blocks_in_order(&consecutive(&lengths), None, VOCAB, sequence_len) {
            Ok(blocks) => {
                let covered = blocks.blocks().concat();
                prop_assert!(covered.iter().copied().eq(0..covered.len() as u32));
                prop_assert!(total - covered.len() as u32 <= 1);
            }
            Err(_) => prop_assert!(total < 2),
        }
    }
}
