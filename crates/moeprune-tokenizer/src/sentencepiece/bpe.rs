//! BPE: merges, which a SentencePiece model does not list.

use std::{cmp::Ordering, collections::HashMap};

use tokenizers::{
    Model,
    models::bpe::{BPE, Vocab},
};

use super::{
    model::{Kind, SentencePiece},
    vocabulary::Vocabulary,
};
use crate::Error;

const FILE: &str = "tokenizer.model";

/// Two pieces that become one.
struct Merge {
    score: f32,
    whole: usize,
    left: usize,
    right: usize,
}

/// The model in the tokenizers crate's form.
pub(crate) fn bpe(model: &SentencePiece, vocabulary: &Vocabulary) -> Result<BPE, Error> {
    let mut merges = merges(model)?;
    let build = |names: &[String], merges: &[Merge], whole_words: bool| {
        let mut ids: Vocab = names.iter().cloned().zip(0..).collect();
        ids.extend(vocabulary.aliases.iter().map(|(name, &id)| (name.clone(), id)));
        ids.extend(vocabulary.beyond().map(|(id, name)| (name.to_owned(), id)));
        let name = |id: usize| names[id].clone();
        let merges = merges.iter().map(|merge| (name(merge.left), name(merge.right))).collect();
        BPE::builder()
            .vocab_and_merges(ids, merges)
            .unk_token(name(model.unknown))
            .fuse_unk(true)
            .byte_fallback(model.byte_fallback)
            .ignore_merges(whole_words)
            .build()
            .map_err(|e| Error::file(FILE, format!("has pieces that do not fit together: {e}")))
    };
    let plain = build(&vocabulary.names, &merges, false)?;
    if vocabulary.user_defined.is_empty() {
        return Ok(plain);
    }
    // User-defined pieces come alone, as words that are looked up before merging. So would other pieces that are a whole word,
    // even those that no merges lead to, unless their names cannot occur: spaces are escaped.
    let mut names = vocabulary.names.clone();
    let unreachable = unreachable(model, &plain);
    for &id in &unreachable {
        names[id].push(' ');
    }
    merges.retain(|Merge { whole, left, right, .. }| {
        [whole, left, right].iter().all(|id| unreachable.binary_search(id).is_err())
    });
    build(&names, &merges, true)
}

/// All ways to put a normal piece together of two: by score, the highest first, then by ids.
fn merges(model: &SentencePiece) -> Result<Vec<Merge>, Error> {
    let ids: HashMap<&str, usize> =
        model.of_kind(Kind::Normal).map(|(id, piece)| (piece.text.as_str(), id)).collect();
    let most = 4096 + 16 * model.pieces.len();
    let mut merges = Vec::new();
    for (whole, piece) in model.of_kind(Kind::Normal) {
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                merges.push(Merge { score: piece.score, whole, left, right });
            }
        }
        if merges.len() > most {
            return Err(Error::file(
                FILE,
                format!(
                    "has {} pieces that can be put together in more than {most} ways, unlike any model",
                    ids.len()
                ),
            ));
        }
    }
    merges.sort_by(|a, b| {
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score.then((a.whole, a.left, a.right).cmp(&(b.whole, b.left, b.right)))
    });
    Ok(merges)
}

/// Normal pieces that are not made of their own text, and hence of no text: tokens beside a token do not change it.
fn unreachable(model: &SentencePiece, plain: &BPE) -> Vec<usize> {
    if !model.normalizer.escape_whitespaces {
        return Vec::new();
    }
    let is_made = |text: &str| plain.tokenize(text).is_ok_and(|tokens| tokens.len() == 1);
    let normal = model.of_kind(Kind::Normal);
    normal.filter(|(_, piece)| !is_made(&piece.text)).map(|(id, _)| id).collect()
}
