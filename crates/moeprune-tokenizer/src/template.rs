//! Special tokens around a text.

use serde_json::{Value, json};
use tokenizers::PostProcessorWrapper;

use crate::Error;

/// Puts BOS before a text and EOS behind it, each an id and its text.
pub(crate) fn around(
    bos: Option<(u32, String)>,
    eos: Option<(u32, String)>,
) -> Result<Option<PostProcessorWrapper>, Error> {
    if bos.is_none() && eos.is_none() {
        return Ok(None);
    }
    let special = |token: &Option<(u32, String)>, part: u32| {
        token.as_ref().map(|(_, text)| json!({"SpecialToken": {"id": text, "type_id": part}}))
    };
    let sequence = |name: &str, part: u32| {
        let text = json!({"Sequence": {"id": name, "type_id": part}});
        special(&bos, part).into_iter().chain([text]).chain(special(&eos, part)).collect::<Vec<_>>()
    };
    let single = sequence("A", 0);
    let pair: Vec<Value> = single.iter().cloned().chain(sequence("B", 1)).collect();
    let known: serde_json::Map<String, Value> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, text)| (text.clone(), json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    serde_json::from_value(json!({
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known
    }))
    .map(Some)
    .map_err(|e| {
        Error::file(
            "tokenizer_config.json",
            format!("has tokens that cannot be put around a text: {e}"),
        )
    })
}
