//! A long text in pieces.
//!
//! The text is tokenised in windows that overlap. Two of them are joined where a run of tokens in the overlap is the same in both: the
//! same ids at the same bytes, with words that begin at the same tokens. Where none is, the windows become one, up to the whole text.

mod joint;
mod window;

use rayon::prelude::*;
use tokenizers::{ModelWrapper, Tokenizer};

use self::{
    joint::{AROUND, Joints, joint},
    window::{Span, Window},
};
use crate::Error;

/// Bytes of a window; an encoding takes about a hundred times as many.
const WINDOW: usize = 32 << 10;
const LONGEST_OVERLAP: usize = 1 << 10;
/// Windows that are tokenised at once, by all threads.
const AT_ONCE: usize = 8;

/// Tokenises a text that comes in pieces, with the ids of `encode(whole, true)`: special tokens once, at the beginning and the
/// end of the whole.
///
/// The memory is in proportion to the longest piece, unless the tokens of the text depend on all of it: a text without a word's
/// beginning for a unigram model, or a run of a single character.
#[derive(Debug)]
pub struct PieceEncoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Ids before and after each text; `None` if they are not always the same. Texts are then tokenised whole.
    ends: Option<[Vec<u32>; 2]>,
    joints: Joints,
    window: usize,
    overlap: usize,
    /// The text, from before the open window's beginning on.
    text: String,
    /// Where in the whole text that is.
    base: u64,
    /// The window whose tokens are certain up to its last joint.
    open: Option<Window>,
}

impl<'a> PieceEncoder<'a> {
    /// An encoder for one text.
    ///
    /// # Errors
    /// If the tokenizer refuses even a letter.
    pub fn new(tokenizer: &'a Tokenizer) -> Result<Self, Error> {
        Self::with_window(tokenizer, WINDOW)
    }

    /// As [`new`](Self::new), with windows of about `bytes`. The ids are the same with any number.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_window(tokenizer: &'a Tokenizer, bytes: usize) -> Result<Self, Error> {
        let overlap = (bytes / 2).clamp(1, LONGEST_OVERLAP);
        Ok(Self {
            tokenizer,
            ends: ends(tokenizer)?,
            joints: joints(tokenizer.get_model()),
            window: bytes.max(2),
            overlap,
            text: String::new(),
            base: 0,
            open: None,
        })
    }

    /// Takes the next piece of the text, of any length, and returns the next ids that are certain by now.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn push(&mut self, piece: &str) -> Result<Vec<u32>, Error> {
        self.text.push_str(piece);
        let mut ids = Vec::new();
        while self.ends.is_some() && self.advance(false, &mut ids)? {}
        Ok(ids)
    }

    /// Returns the ids that are left, once the whole text is there.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn finish(mut self) -> Result<Vec<u32>, Error> {
        if self.open.is_none() {
            let encoding = self.tokenizer.encode(self.text, true);
            let encoding = encoding.map_err(|e| Error::Encode { at: 0, problem: e.to_string() })?;
            return Ok(encoding.get_ids().to_vec());
        }
        let mut ids = Vec::new();
        while self.advance(true, &mut ids)? {}
        if let Some(open) = &self.open {
            ids.extend(open.tokens[open.joint..].iter().map(|token| token.id));
        }
        ids.extend(self.ends.into_iter().flat_map(|[_, after]| after));
        Ok(ids)
    }

    /// Goes on as far as the text allows; returns whether it went on at all.
    fn advance(&mut self, last: bool, ids: &mut Vec<u32>) -> Result<bool, Error> {
        let spans = self.next_spans(last);
        let windows: Vec<Window> = spans
            .par_iter()
            .map(|&span| Window::encode(self.tokenizer, &self.text, self.base, span))
            .collect::<Result<_, _>>()?;
        let went_on = !windows.is_empty();
        for next in windows {
            let Some(mut open) = self.open.take() else {
                ids.extend(self.ends.iter().flat_map(|[before, _]| before));
                self.open = Some(next);
                continue;
            };
            match joint(&open, &next, self.joints, |at| self.follows_no_space(at)) {
                Some((left, right)) => {
                    ids.extend(open.tokens[open.joint..left].iter().map(|token| token.id));
                    open = Window { joint: right, ..next };
                    self.overlap = self.overlap.min(self.usual_overlap());
                    self.forget(open.span.start);
                    self.open = Some(open);
                }
                None => {
                    self.grow(&open, next.span.end)?;
                    break;
                }
            }
        }
        Ok(went_on)
    }

    /// What comes after a run of spaces may take all of it: an added token that strips, or the end of the text.
    fn follows_no_space(&self, at: u64) -> bool {
        let before = self.text.get(..(at - self.base) as usize);
        before.is_some_and(|text| !text.ends_with(char::is_whitespace))
    }

    fn usual_overlap(&self) -> usize {
        (self.window / 2).clamp(1, LONGEST_OVERLAP)
    }

    /// Windows after the open one that there is text for: each begins before the end of the one before.
    fn next_spans(&self, last: bool) -> Vec<Span> {
        let text_end = self.base + self.text.len() as u64;
        let mut spans: Vec<Span> = Vec::new();
        // Where windows were not joined lately, the next may not be either.
        let most = if self.overlap == self.usual_overlap() { AT_ONCE } else { 1 };
        while spans.len() < most {
            let before = spans.last().or_else(|| self.open.as_ref().map(|open| &open.span));
            let (start, fresh, least) = match before {
                None => (self.base, self.window, self.window),
                Some(before) => {
                    let overlap = (self.overlap as u64).min(before.end - before.start);
                    let fresh = self.window.saturating_sub(self.overlap).max(self.overlap);
                    (self.floor(before.end - overlap), self.overlap + fresh, fresh)
                }
            };
            let covered = before.map_or(self.base, |before| before.end);
            let left = text_end - covered;
            if left == 0 || (left < least as u64 && !last) || (before.is_none() && last) {
                break;
            }
            let end = self.floor((start + fresh as u64).max(covered + 1).min(text_end));
            let end = if end > covered { end } else { self.ceil(covered + 1) };
            spans.push(Span { start, end });
        }
        spans
    }

    /// No joint was found: one window instead of two, and a longer overlap for the next.
    fn grow(&mut self, open: &Window, end: u64) -> Result<(), Error> {
        let span = Span { start: open.span.start, end };
        let mut grown = Window::encode(self.tokenizer, &self.text, self.base, span)?;
        // Behind the first window's beginning, tokens before the joint were handed out already.
        if let Some(kept) = open.tokens.get(open.joint).filter(|_| open.joint > 0) {
            let before = &open.tokens[open.joint.saturating_sub(AROUND)..open.joint];
            let at = grown.tokens.partition_point(|token| token.start < kept.start);
            if !grown.tokens[..at].ends_with(before) {
                return Err(Error::Joint { at: kept.start });
            }
            grown.joint = at;
        }
        self.overlap = (2 * self.overlap).min((span.end - span.start) as usize);
        self.open = Some(grown);
        Ok(())
    }

    /// Lets go of the text before `start`, once that is most of it, so that a long piece is not moved for each window.
    fn forget(&mut self, start: u64) {
        let passed = (start - self.base) as usize;
        if 2 * passed >= self.text.len() {
            self.text.drain(..passed);
            self.base = start;
        }
    }

    /// The last place up to `at` where a character begins.
    fn floor(&self, at: u64) -> u64 {
        let at = (at - self.base) as usize;
        let floor = (0..=at).rev().find(|&at| self.text.is_char_boundary(at));
        self.base + floor.unwrap_or(0) as u64
    }

    /// The first place from `at` on where a character begins.
    fn ceil(&self, at: u64) -> u64 {
        let at = (at - self.base) as usize;
        let ceil = (at..self.text.len()).find(|&at| self.text.is_char_boundary(at));
        self.base + ceil.unwrap_or(self.text.len()) as u64
    }
}

/// Which places windows may be joined at, by what the tokens of a word depend on.
fn joints(model: &ModelWrapper) -> Joints {
    match model {
        // What is beside a token has not changed it, and so does not: merges go by rank, within a word.
        ModelWrapper::BPE(bpe) if !bpe.ignore_merges => Joints::Anywhere,
        ModelWrapper::BPE(bpe) => {
            let longest = bpe.get_vocab().keys().map(String::len).max().unwrap_or(0);
            Joints::InWordsOf(4 * longest)
        }
        _ => Joints::BetweenWords,
    }
}

/// What stands before and after each text.
fn ends(tokenizer: &Tokenizer) -> Result<Option<[Vec<u32>; 2]>, Error> {
    let both = |text: &str| {
        let encode = |special| tokenizer.encode(text, special);
        Ok((encode(true)?, encode(false)?))
    };
    let both = |text: &str| {
        both(text).map_err(|e: tokenizers::Error| Error::Encode { at: 0, problem: e.to_string() })
    };
    let (with, _) = both("a")?;
    let special = with.get_special_tokens_mask();
    let before = special.iter().take_while(|&&mask| mask == 1).count();
    let after = special[before..].iter().rev().take_while(|&&mask| mask == 1).count();
    let ids = with.get_ids();
    let ends = [ids[..before].to_vec(), ids[ids.len() - after..].to_vec()];
    for text in ["", "a", "a b a"] {
        let (with, without) = both(text)?;
        if [&ends[0], without.get_ids(), &ends[1]].concat() != with.get_ids() {
            return Ok(None);
        }
    }
    Ok(Some(ends))
}
