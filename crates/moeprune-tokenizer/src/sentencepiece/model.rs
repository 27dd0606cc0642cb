//! A SentencePiece model, checked.

use std::collections::BTreeMap;

use prost::Message;

use super::proto::{ModelProto, NormalizerProto, PieceProto, TrainerProto};
use crate::{Error, charsmap};

const FILE: &str = "tokenizer.model";
/// What a space is inside of pieces.
pub(crate) const SPACE: char = '▁';
/// No piece of a model is near this. What is built of pieces takes memory and time by their lengths squared.
const LONGEST_PIECE: usize = 1024;

/// A SentencePiece model whose parts fit together.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    pub(crate) algorithm: Algorithm,
    /// By id. Texts are not empty, and no two are the same.
    pub(crate) pieces: Vec<Piece>,
    /// The one piece that is [`Kind::Unknown`].
    pub(crate) unknown: usize,
    pub(crate) byte_fallback: bool,
    pub(crate) bos_piece: String,
    pub(crate) eos_piece: String,
    pub(crate) normalizer: Normalizer,
}

/// How pieces are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Unigram,
    Bpe,
}

/// A piece. The score is finite.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) score: f32,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// What becomes of a text first.
#[derive(Debug)]
pub(crate) struct Normalizer {
    /// Rules by characters, if there are any; safe to look any text up in.
    pub(crate) charsmap: Option<Vec<u8>>,
    pub(crate) add_dummy_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
    pub(crate) escape_whitespaces: bool,
}

fn error(problem: impl Into<String>) -> Error {
    Error::file(FILE, problem)
}

impl SentencePiece {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let proto = ModelProto::decode(bytes).map_err(|e| {
            error(format!("is no SentencePiece model ({e}); download it again, or put a tokenizer.json beside it"))
        })?;
        let trainer = proto.trainer.unwrap_or_default();
        let algorithm = algorithm(&trainer)?;
        let pieces = pieces(proto.pieces)?;
        let byte_fallback = trainer.byte_fallback.unwrap_or(false);
        let unknown = unknown(&pieces)?;
        check_bytes(&pieces, byte_fallback)?;
        Ok(Self {
            algorithm,
            pieces,
            unknown,
            byte_fallback,
            bos_piece: trainer.bos_piece.unwrap_or_else(|| "<s>".to_owned()),
            eos_piece: trainer.eos_piece.unwrap_or_else(|| "</s>".to_owned()),
            normalizer: normalizer(proto.normalizer.unwrap_or_default())?,
        })
    }

    /// The pieces of one kind, with their ids.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (usize, &Piece)> {
        self.pieces.iter().enumerate().filter(move |(_, piece)| piece.kind == kind)
    }
}

fn algorithm(trainer: &TrainerProto) -> Result<Algorithm, Error> {
    if trainer.treat_whitespace_as_suffix.unwrap_or(false) {
        return Err(error(
            "puts the mark of a space behind words (treat_whitespace_as_suffix), which is not read; save the tokenizer as \
             tokenizer.json with transformers",
        ));
    }
    let word = match trainer.model_type.unwrap_or(1) {
        1 => return Ok(Algorithm::Unigram),
        2 => return Ok(Algorithm::Bpe),
        3 => "word",
        4 => "char",
        other => {
            return Err(error(format!(
                "is of an unknown model type {other}; BPE and unigram are read"
            )));
        }
    };
    Err(error(format!("is a SentencePiece model of type `{word}`; BPE and unigram are read")))
}

fn pieces(protos: Vec<PieceProto>) -> Result<Vec<Piece>, Error> {
    if protos.len() > i32::MAX as usize {
        return Err(error(format!("has {} pieces, which is more than ids go", protos.len())));
    }
    let pieces: Vec<Piece> = protos
        .into_iter()
        .enumerate()
        .map(|(id, proto)| piece(id, proto))
        .collect::<Result<_, _>>()?;
    let mut seen = BTreeMap::new();
    for (id, piece) in pieces.iter().enumerate() {
        if let Some(first) = seen.insert(piece.text.as_str(), id) {
            return Err(error(format!(
                "has the piece {:?} twice, as {first} and {id}",
                piece.text
            )));
        }
    }
    Ok(pieces)
}

fn piece(id: usize, proto: PieceProto) -> Result<Piece, Error> {
    let kind = match proto.kind.unwrap_or(1) {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        other => {
            return Err(error(format!(
                "has piece {id} of an unknown type {other}; expected 1 to 6"
            )));
        }
    };
    let text = proto.piece.unwrap_or_default();
    if text.is_empty() || text.len() > LONGEST_PIECE {
        let got = text.len();
        return Err(error(format!("has piece {id} of {got} bytes; expected 1 to {LONGEST_PIECE}")));
    }
    let score = proto.score.unwrap_or(0.0);
    if !score.is_finite() {
        return Err(error(format!(
            "has the score {score} for piece {id} ({text:?}); expected a number"
        )));
    }
    Ok(Piece { text, score, kind })
}

fn unknown(pieces: &[Piece]) -> Result<usize, Error> {
    let mut unknown = pieces.iter().enumerate().filter(|(_, piece)| piece.kind == Kind::Unknown);
    match (unknown.next(), unknown.next()) {
        (Some((id, _)), None) => Ok(id),
        (Some((id, _)), Some((other, _))) => Err(error(format!(
            "has two pieces for what is unknown, {id} and {other}; expected one"
        ))),
        (None, _) => Err(error(format!(
            "has no piece for what is unknown among its {}; download it again",
            pieces.len()
        ))),
    }
}

/// All 256 bytes, each once, or none.
fn check_bytes(pieces: &[Piece], byte_fallback: bool) -> Result<(), Error> {
    let mut there = [false; 256];
    for (id, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.kind == Kind::Byte) {
        if !byte_fallback {
            return Err(error(format!("has the byte piece {id}, but byte_fallback is off")));
        }
        let byte = byte_of(&piece.text).ok_or_else(|| {
            error(format!("has the byte piece {id} {:?}; expected <0x00> to <0xFF>", piece.text))
        })?;
        there[usize::from(byte)] = true;
    }
    match there.iter().position(|there| !there) {
        Some(byte) if byte_fallback => Err(error(format!(
            "has byte_fallback on, but no piece <0x{byte:02X}>; download it again"
        ))),
        _ => Ok(()),
    }
}

fn byte_of(text: &str) -> Option<u8> {
    let byte = u8::from_str_radix(text.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()?;
    (format!("<0x{byte:02X}>") == text).then_some(byte)
}

fn normalizer(proto: NormalizerProto) -> Result<Normalizer, Error> {
    let charsmap = proto.precompiled_charsmap.filter(|map| !map.is_empty());
    if let Some(map) = &charsmap {
        charsmap::check(map).map_err(|problem| {
            error(format!("has a precompiled_charsmap that {problem}; download it again"))
        })?;
    }
    Ok(Normalizer {
        charsmap,
        add_dummy_prefix: proto.add_dummy_prefix.unwrap_or(true),
        remove_extra_whitespaces: proto.remove_extra_whitespaces.unwrap_or(true),
        escape_whitespaces: proto.escape_whitespaces.unwrap_or(true),
    })
}
