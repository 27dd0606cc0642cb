//! What a server says of a prompt's tokens, seen on two short texts before anything is scored.

use super::{Form, alignment, fields, likelihood::prompt_tokens};
use crate::{
    Endpoint, Error, Vocabulary,
    answer::{Answers, Choice, LogProbabilities},
    endpoint::{Call, Prompt, refuses_form},
};

/// Two texts, the longer of which begins with the shorter: three tokens and more for common tokenizers.
const TEXTS: [&str; 2] = ["The sky is", "The sky is blue and the grass"];

/// How texts are to be sent to this server.
pub(super) fn form(
    endpoint: &Endpoint,
    vocabulary: Option<&Vocabulary<'_>>,
    should_stop: &dyn Fn() -> bool,
) -> Result<Form, Error> {
    let Some(vocabulary) = vocabulary else {
        let answers = ask(endpoint, should_stop)?;
        check(endpoint, &answers, None)?;
        return Ok(Form::Text);
    };
    let mut ids = TEXTS.map(|text| vocabulary.encode(text).map(Some)).into_iter();
    let (short, long) = (ids.next().transpose()?.flatten(), ids.next().transpose()?.flatten());
    let ids: Vec<Vec<u32>> = short.into_iter().chain(long).collect();
    let counts: Vec<usize> = ids.iter().map(Vec::len).collect();
    match endpoint.probe(call(ids.into_iter().map(Prompt::Ids).collect()), should_stop) {
        Ok(answers) => check(endpoint, &answers, Some(&counts)).map(|()| Form::Ids),
        Err(error) if refuses_form(&error) => {
            let answers = ask(endpoint, should_stop)?;
            check(endpoint, &answers, Some(&counts)).map(|()| Form::Text)
        }
        Err(error) => Err(error),
    }
}

fn call(prompts: Vec<Prompt>) -> Call {
    Call { prompts, fields: fields() }
}

/// Asks in text, and takes a refusal for what it says of the server.
fn ask(endpoint: &Endpoint, should_stop: &dyn Fn() -> bool) -> Result<Answers, Error> {
    let prompts = TEXTS.map(|text| Prompt::Text(text.to_owned())).to_vec();
    endpoint.probe(call(prompts), should_stop).map_err(|error| match &error {
        Error::Status { status: 404, .. } => error,
        _ if refuses_form(&error) => {
            let (url, found) = (endpoint.url().to_owned(), format!("asked for them: {error}"));
            Error::NoPromptLogProbabilities { url, found }
        }
        _ => error,
    })
}

/// Whether each prompt came back with a log-probability for each of its tokens and the new one.
fn check(endpoint: &Endpoint, answers: &Answers, counts: Option<&[usize]>) -> Result<(), Error> {
    let mut total = 0;
    let wrong = |problem| endpoint.wrong(problem);
    for (place, choice) in answers.choices.iter().enumerate() {
        let found = prompt_tokens(endpoint, choice)?;
        if let Some(&client) = counts.and_then(|counts| counts.get(place)) {
            let text = Prompt::Text(TEXTS[place].to_owned()).shown();
            let (url, server) = (endpoint.url().to_owned(), found);
            if server != client {
                return Err(Error::TokenCount { url, server, client, text });
            }
        }
        alignment::check(choice, TEXTS[place]).map_err(wrong)?;
        if let Some(problem) = incomplete(choice) {
            let url = endpoint.url().to_owned();
            return Err(Error::NoPromptLogProbabilities { url, found: problem });
        }
        total += found as u64;
    }
    match answers.prompt_tokens {
        Some(said) if said != total => Err(Error::NoPromptLogProbabilities {
            url: endpoint.url().to_owned(),
            found: format!("{total} log-probabilities for {said} tokens"),
        }),
        _ => Ok(()),
    }
}

/// What a choice lacks.
fn incomplete(choice: &Choice) -> Option<String> {
    let LogProbabilities::Tokens { values, largest, .. } = &choice.log_probabilities else {
        return Some("no `token_logprobs`".to_owned());
    };
    let prompt = 1..values.len().saturating_sub(1);
    if prompt.clone().any(|place| values[place].is_none()) {
        return Some("null for some of them".to_owned());
    }
    if prompt.clone().any(|place| largest[place].is_none()) {
        return Some("no `top_logprobs` for some of them".to_owned());
    }
    if values[prompt].iter().all(|value| *value == Some(0.0)) {
        return Some("0 for every token, as if all were certain".to_owned());
    }
    None
}
