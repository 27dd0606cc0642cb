//! Unigram models.

use tokenizers::models::unigram::Unigram;

use super::{
    model::{Kind, SentencePiece},
    vocabulary::Vocabulary,
};
use crate::Error;

/// The model in the tokenizers crate's form, in which a piece for every id may be chosen by its text alone.
pub(crate) fn unigram(model: &SentencePiece, vocabulary: &Vocabulary) -> Result<Unigram, Error> {
    let scores = || model.of_kind(Kind::Normal).map(|(_, piece)| f64::from(piece.score));
    let highest = scores().fold(0.0, f64::max);
    // What is unknown is judged by the lowest score of all.
    let neutral = scores().fold(f64::INFINITY, f64::min);
    let neutral = if neutral.is_finite() { neutral.max(0.0) } else { 0.0 };
    let mut pieces: Vec<(String, f64)> =
        vocabulary.names.iter().cloned().zip([neutral].into_iter().cycle()).collect();
    for (id, piece) in model.pieces.iter().enumerate() {
        match piece.kind {
            Kind::Normal => pieces[id].1 = f64::from(piece.score),
            // Better than anything else that its text could be.
            Kind::UserDefined => pieces[id].1 = (highest + 1.0) * piece.text.chars().count() as f64,
            // Never chosen: spaces are escaped.
            Kind::Unused if !vocabulary.added.contains_key(&(id as u32)) => pieces[id].0.push(' '),
            Kind::Unused | Kind::Unknown | Kind::Control | Kind::Byte => {}
        }
    }
    for id in vocabulary.names.len()..vocabulary.end() {
        let added = vocabulary.added.get(&(id as u32));
        let name = added.map_or_else(|| format!("no piece {id}"), |token| token.content.clone());
        pieces.push((name, neutral));
    }
    Unigram::from(pieces, Some(model.unknown), model.byte_fallback)
        .map_err(|e| Error::file("tokenizer.model", e.to_string()))
}
