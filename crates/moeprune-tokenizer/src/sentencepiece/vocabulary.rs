//! Which text has which id: pieces, and what a config adds to them or calls otherwise.

use std::{cmp::Reverse, collections::BTreeMap, ops::Range};

use tokenizers::{AddedToken, normalizers::Precompiled};

use super::model::{Algorithm, Kind, SentencePiece};
use crate::{Error, config::TokenizerConfig};

const FILE: &str = "tokenizer_config.json";
/// A unigram model holds a piece for each id up to the highest; a higher id than this beyond the pieces is a mistake.
const LARGEST_GAP: usize = 1 << 16;

/// Characters for private use, none of which any text is known to have, that stand for pieces while rules for characters are applied.
pub(crate) const STAND_INS: Range<u32> = 0x10_ff00..0x10_ff80;

/// All texts with ids.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    /// The text of each piece, some by another name than in the model. No two are the same.
    pub(crate) names: Vec<String>,
    /// Further texts of ids that pieces have; of BPE models alone.
    pub(crate) aliases: BTreeMap<String, u32>,
    /// What is cut out of a text before anything else, by id. Ids that no piece has are here alone.
    pub(crate) added: BTreeMap<u32, AddedToken>,
    /// Pieces that SentencePiece takes whole wherever they stand in the text it works on, the longest first.
    pub(crate) user_defined: Vec<usize>,
    /// Those of them that the rules for characters would change, which they may not.
    pub(crate) kept_from_rules: Vec<usize>,
}

impl Vocabulary {
    pub(crate) fn new(model: &SentencePiece, config: &TokenizerConfig) -> Result<Self, Error> {
        let mut vocabulary = Self {
            names: model.pieces.iter().map(|piece| piece.text.clone()).collect(),
            aliases: BTreeMap::new(),
            added: BTreeMap::new(),
            user_defined: Vec::new(),
            kept_from_rules: Vec::new(),
        };
        vocabulary.take_control(model);
        vocabulary.take_added(model, config)?;
        let ids = vocabulary.ids()?;
        vocabulary.take_special(config, ids)?;
        vocabulary.take_user_defined(model)?;
        Ok(vocabulary)
    }

    /// Ids end below.
    pub(crate) fn end(&self) -> usize {
        let last = self.added.keys().next_back().map_or(0, |&id| id as usize + 1);
        last.max(self.names.len())
    }

    /// The text of an id that no piece has.
    pub(crate) fn beyond(&self) -> impl Iterator<Item = (u32, &str)> {
        let added = self.added.range(self.names.len() as u32..);
        added.map(|(&id, token)| (id, token.content.as_str()))
    }

    fn take_control(&mut self, model: &SentencePiece) {
        for (id, piece) in model.pieces.iter().enumerate() {
            if matches!(piece.kind, Kind::Control | Kind::Unknown) {
                let token = AddedToken::from(piece.text.clone(), true).normalized(false);
                self.added.insert(id as u32, token);
            }
        }
    }

    fn take_added(&mut self, model: &SentencePiece, config: &TokenizerConfig) -> Result<(), Error> {
        for (&id, token) in config.added.iter().filter(|(_, token)| !token.content.is_empty()) {
            if let Some(piece) = model.pieces.get(id as usize)
                && piece.text != token.content
            {
                match (piece.kind, model.algorithm) {
                    (Kind::Normal, Algorithm::Unigram) => {
                        let (content, text) = (&token.content, &piece.text);
                        return Err(Error::file(
                            FILE,
                            format!(
                                "calls id {id} {content:?}, which is the piece {text:?} in tokenizer.model; take the config that \
                             belongs to the model"
                            ),
                        ));
                    }
                    (Kind::Normal, Algorithm::Bpe) => {
                        self.aliases.insert(token.content.clone(), id);
                    }
                    _ => self.names[id as usize].clone_from(&token.content),
                }
            }
            self.added.insert(id, token.clone());
        }
        if model.algorithm == Algorithm::Unigram && self.end() - self.names.len() > LARGEST_GAP {
            return Err(Error::file(
                FILE,
                format!(
                    "has an added token with id {}, far beyond the {} pieces of tokenizer.model",
                    self.end() - 1,
                    self.names.len()
                ),
            ));
        }
        Ok(())
    }

    /// Each text with its id.
    fn ids(&self) -> Result<BTreeMap<String, u32>, Error> {
        let mut ids = BTreeMap::new();
        let names = self.names.iter().zip(0..).map(|(name, id)| (id, name.as_str()));
        let aliases = self.aliases.iter().map(|(name, &id)| (id, name.as_str()));
        for (id, name) in names.chain(aliases).chain(self.beyond()) {
            if let Some(first) = ids.insert(name.to_owned(), id) {
                return Err(Error::file(
                    FILE,
                    format!(
                        "gives {name:?} the id {id}, which is {first} in tokenizer.model; take the config that belongs to the model"
                    ),
                ));
            }
        }
        Ok(ids)
    }

    /// Special tokens that have no id yet get the next ones.
    fn take_special(
        &mut self,
        config: &TokenizerConfig,
        ids: BTreeMap<String, u32>,
    ) -> Result<(), Error> {
        let mut next = self.end() as u32;
        for token in &config.special {
            match ids.get(&token.content) {
                Some(&id) => self.added.entry(id).or_insert_with(|| token.clone()).special = true,
                None if next < i32::MAX as u32 => {
                    self.added.insert(next, token.clone());
                    next += 1;
                }
                None => {
                    return Err(Error::file(
                        FILE,
                        "has added tokens up to the highest id there is",
                    ));
                }
            }
        }
        Ok(())
    }

    fn take_user_defined(&mut self, model: &SentencePiece) -> Result<(), Error> {
        let rules = model.normalizer.charsmap.as_deref().map(Precompiled::from).transpose();
        let rules = rules.map_err(|e| Error::file("tokenizer.model", e.to_string()))?;
        for (id, _) in model.of_kind(Kind::UserDefined) {
            let name = &self.names[id];
            if self.added.contains_key(&(id as u32)) {
                continue;
            }
            if name.contains(' ') {
                // Spaces are escaped before pieces are looked for, but not yet when added tokens are.
                let token = AddedToken::from(name.clone(), false).normalized(false);
                self.added.insert(id as u32, token);
                continue;
            }
            if rules.as_ref().is_some_and(|rules| rules.normalize_string(name) != *name) {
                self.kept_from_rules.push(id);
            }
            self.user_defined.push(id);
        }
        for ids in [&mut self.user_defined, &mut self.kept_from_rules] {
            ids.sort_by_key(|&id| (Reverse(self.names[id].len()), id));
        }
        if self.kept_from_rules.len() > STAND_INS.len() {
            return Err(Error::file(
                "tokenizer.model",
                format!(
                    "has {} user-defined pieces that its rules for characters would change; at most {} are read",
                    self.kept_from_rules.len(),
                    STAND_INS.len()
                ),
            ));
        }
        Ok(())
    }
}
