//! `tokenizer.model`: a SentencePiece model, as the tokenizers crate holds it.

mod bpe;
mod model;
mod proto;
mod text;
mod unigram;
mod vocabulary;

use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

use self::{
    model::{Algorithm, Kind, SentencePiece},
    text::Prefix,
    vocabulary::Vocabulary,
};
use crate::{
    Error, TokenizerFiles, config::TokenizerConfig, error::WITH_TRANSFORMERS, python_json,
};

const FILE: &str = "tokenizer.model";

/// Classes whose ids are not the numbers of the pieces.
const SHIFTED: [&str; 14] = [
    "BarthezTokenizer",
    "CamembertTokenizer",
    "LayoutXLMTokenizer",
    "M2M100Tokenizer",
    "MBart50Tokenizer",
    "MBartTokenizer",
    "MarianTokenizer",
    "NllbTokenizer",
    "PLBartTokenizer",
    "PegasusTokenizer",
    "SeamlessM4TTokenizer",
    "XGLMTokenizer",
    "XLMProphetNetTokenizer",
    "XLMRobertaTokenizer",
];

pub(crate) fn tokenizer(bytes: &[u8], files: &TokenizerFiles) -> Result<Tokenizer, Error> {
    let config = TokenizerConfig::parse(files)?;
    if let Some(class) = config.class().filter(|class| SHIFTED.contains(class)) {
        return Err(Error::Unsupported {
            file: FILE,
            what: format!(
                "a SentencePiece model of a {class}, whose ids are others than the model's"
            ),
            remedy: WITH_TRANSFORMERS,
        });
    }
    let model = SentencePiece::parse(python_json::content(FILE, bytes)?)?;
    let vocabulary = Vocabulary::new(&model, &config)?;
    let prefix = prefix(&model, &config);
    let inner = match model.algorithm {
        Algorithm::Bpe => ModelWrapper::BPE(bpe::bpe(&model, &vocabulary)?),
        Algorithm::Unigram => ModelWrapper::Unigram(unigram::unigram(&model, &vocabulary)?),
    };
    let mut tokenizer = Tokenizer::new(inner);
    let broken = |e: tokenizers::Error| Error::file(FILE, e.to_string());
    tokenizer
        .with_normalizer(Some(text::normalizer(&model, &vocabulary, prefix)?))
        .map_err(broken)?;
    tokenizer.with_pre_tokenizer(text::pre_tokenizer(&model, &vocabulary, prefix)?);
    tokenizer.with_decoder(Some(text::decoder(&model, prefix)?));
    let added: Vec<AddedToken> = vocabulary.added.values().cloned().collect();
    tokenizer.add_tokens(added).map_err(broken)?;
    for (&id, token) in &vocabulary.added {
        if tokenizer.token_to_id(&token.content) != Some(id) {
            let content = &token.content;
            return Err(Error::file(
                FILE,
                format!("has no place {id} for the added token {content:?}"),
            ));
        }
    }
    let (bos, eos) = ends(&model, &config)?;
    let with_id = |text: Option<String>| text.and_then(|t| Some((tokenizer.token_to_id(&t)?, t)));
    let post = crate::template::around(with_id(bos), with_id(eos))?;
    tokenizer.with_post_processor(post);
    Ok(tokenizer)
}

fn prefix(model: &SentencePiece, config: &TokenizerConfig) -> Prefix {
    let wanted = config.flag("add_prefix_space").unwrap_or(model.normalizer.add_dummy_prefix);
    let everywhere = config.flag("legacy").unwrap_or(true) || !model.normalizer.escape_whitespaces;
    match (wanted, everywhere) {
        (false, _) => Prefix::Never,
        (true, true) => Prefix::EachPart,
        (true, false) => Prefix::First,
    }
}

/// BOS and EOS, where they are put around a text.
fn ends(
    model: &SentencePiece,
    config: &TokenizerConfig,
) -> Result<(Option<String>, Option<String>), Error> {
    let closed = ["T5Tokenizer", "MT5Tokenizer"].contains(&config.class().unwrap_or_default());
    let end = |flag: &str, role: &str, piece: &str, default: bool| {
        let said = config.flag(flag);
        if !said.unwrap_or(default) {
            return Ok(None);
        }
        let of_model = model.of_kind(Kind::Control).any(|(_, control)| control.text == piece);
        let text = match config.role(role) {
            Some(text) => text,
            None => of_model.then_some(piece),
        };
        if text.is_none() && said == Some(true) {
            return Err(Error::file(
                "tokenizer_config.json",
                format!("has {flag} on and no {role}; name one, or set {flag} to false"),
            ));
        }
        Ok(text.map(str::to_owned))
    };
    Ok((
        end("add_bos_token", "bos_token", &model.bos_piece, !closed)?,
        end("add_eos_token", "eos_token", &model.eos_piece, closed)?,
    ))
}
