//! Smaller models of a published one's form.

use serde_json::Value;

use crate::{Error, Published, form::Form, form::HeadsForm};

/// Narrower heads have too few rotary frequencies to be called attention.
const NARROWEST_HEAD: usize = 8;

/// Tokens of the config that must be in the vocabulary.
const TOKENS: [&str; 3] = ["eos_token_id", "bos_token_id", "pad_token_id"];

/// How a model differs from the published one.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "every way to be smaller")]
pub struct Reduction {
    /// Decoder layers; `None`: as published.
    pub layers: Option<usize>,
    /// Experts in each layer; `None`: as published.
    pub experts: Option<usize>,
    /// Rows of the embedding; `None`: as published.
    pub vocab: Option<usize>,
    /// Every width is divided by this.
    pub scale: usize,
}

impl Default for Reduction {
    /// None.
    fn default() -> Self {
        Self { layers: None, experts: None, vocab: None, scale: 1 }
    }
}

impl Reduction {
    /// Puts the sizes of the reduced model in the place of the published ones.
    pub(crate) fn apply(&self, published: Published, form: &mut Form) -> Result<(), Error> {
        let number = |form: &Form, key: &str| {
            form.number(key).ok_or_else(|| published.damaged(format!("no `{key}`")))
        };
        let reduce = form.reduce.clone();
        let layers = self.layers.map_or_else(|| number(form, &reduce.layers), Ok)?;
        let experts = self.experts.map_or_else(|| number(form, &reduce.experts), Ok)?;
        let vocab = self.vocab.map_or_else(|| number(form, "vocab_size"), Ok)?;
        let top_k = number(form, &reduce.top_k)?;
        let dense = reduce.dense.as_ref().map_or(Ok(0), |key| number(form, key))?;
        at_least("experts", experts, top_k, "which a token goes through")?;
        at_least("layers", layers, dense + 1, "or none has experts")?;
        at_least("tokens of vocabulary", vocab, 3, "two of which begin and end a text")?;
        let mut sizes = self.widths(published, form)?;
        sizes.extend([
            (reduce.layers, layers),
            (reduce.experts, experts),
            ("vocab_size".to_owned(), vocab),
        ]);
        let keys = form.keys_mut().ok_or_else(|| published.damaged("no such object"))?;
        for (key, value) in sizes {
            keys.insert(key, value.into());
        }
        for list in &reduce.lists {
            if let Some(list) = keys.get_mut(list).and_then(Value::as_array_mut) {
                list.truncate(layers);
            }
        }
        for (last, key) in (1..).zip(TOKENS) {
            if let Some(token) = keys.get_mut(key) {
                bring_into(token, vocab, last);
            }
        }
        Ok(())
    }

    /// All widths and counts of heads, divided.
    fn widths(&self, published: Published, form: &Form) -> Result<Vec<(String, usize)>, Error> {
        divided(form, self.scale).ok_or_else(|| {
            let widest = form.reduce.widths.first().and_then(|key| form.number(key)).unwrap_or(1);
            let works = (1..=widest).filter(|&scale| divided(form, scale).is_some());
            let works: Vec<String> = works.map(|scale| scale.to_string()).collect();
            Error::Scale {
                scale: self.scale,
                model: published.name(),
                narrowest: NARROWEST_HEAD,
                works: works.join(", "),
            }
        })
    }
}

/// Every width over `scale`. Heads that share keys and values stay as many; there are fewer such
/// groups as long as `scale` divides their number, and narrower heads beyond.
fn divided(form: &Form, scale: usize) -> Option<Vec<(String, usize)>> {
    let over = |key: &String, scale: usize| {
        let value = form.number(key)?;
        (scale > 0 && value.is_multiple_of(scale)).then(|| (key.clone(), value / scale))
    };
    let mut sizes = Vec::new();
    for key in &form.reduce.widths {
        sizes.push(over(key, scale)?);
    }
    let hidden = sizes.first()?.1;
    for HeadsForm { counts, widths } in &form.reduce.heads {
        let fewest = counts.iter().filter_map(|key| form.number(key)).min()?;
        let (fewer, heads) = (1..=scale.min(fewest)).rev().find_map(|fewer| {
            let heads = counts.iter().map(|key| over(key, fewer)).collect::<Option<Vec<_>>>()?;
            scale.is_multiple_of(fewer).then_some((fewer, heads))
        })?;
        let narrower =
            widths.iter().map(|key| over(key, scale / fewer)).collect::<Option<Vec<_>>>();
        let (narrower, first) = (narrower?, heads.first()?.1);
        if widths.is_empty() && !(hidden.is_multiple_of(first) && is_head(hidden / first)) {
            return None;
        }
        if !narrower.iter().all(|&(_, width)| is_head(width)) {
            return None;
        }
        sizes.extend(heads);
        sizes.extend(narrower);
    }
    Some(sizes)
}

/// Rotary embeddings turn pairs.
fn is_head(width: usize) -> bool {
    width.is_multiple_of(2) && width >= NARROWEST_HEAD
}

/// Tokens beyond the vocabulary become one of its last.
fn bring_into(token: &mut Value, vocab: usize, last: usize) {
    match token {
        Value::Array(tokens) => {
            for (at, token) in tokens.iter_mut().enumerate() {
                bring_into(token, vocab, last + at);
            }
        }
        token if token.as_u64().is_some_and(|id| id >= vocab as u64) => {
            *token = vocab.saturating_sub(last).into();
        }
        _ => {}
    }
}

fn at_least(
    what: &'static str,
    got: usize,
    least: usize,
    because: &'static str,
) -> Result<(), Error> {
    if got >= least { Ok(()) } else { Err(Error::TooFew { what, got, least, because }) }
}
