//! Answers of a served model.

use std::fmt;

use moeprune_eval::{BoxError, Ending, Generator, NoteAnswer, Request};
use serde_json::json;

use crate::{
    Endpoint, Error, Vocabulary,
    answer::Answers,
    endpoint::{Call, Prompt, refuses_form},
};

/// A text whose tokens are sent to see whether a server takes token ids.
const SHORT: &str = "The sky is";

/// Answers with a served model: greedily, several prompts at a time.
///
/// With a [`Vocabulary`], prompts are sent as token ids where the server takes these, and lose their beginning where
/// they and the answer exceed the context. Otherwise they are sent as text, and the server judges their length.
pub struct EndpointGenerator<'a> {
    endpoint: Endpoint,
    vocabulary: Option<Vocabulary<'a>>,
    should_stop: Box<dyn Fn() -> bool + 'a>,
    prompts_cut: usize,
    /// How the answers of the last call ended, if the server says of all.
    endings: Option<Vec<Ending>>,
}

impl fmt::Debug for EndpointGenerator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointGenerator")
            .field("endpoint", &self.endpoint)
            .field("vocabulary", &self.vocabulary)
            .field("prompts_cut", &self.prompts_cut)
            .finish_non_exhaustive()
    }
}

impl<'a> EndpointGenerator<'a> {
    /// A generator over a server. With a vocabulary, one call is made to see whether token ids are taken.
    ///
    /// # Errors
    /// If that call fails for another reason.
    pub fn new(endpoint: Endpoint, vocabulary: Option<Vocabulary<'a>>) -> Result<Self, Error> {
        Self::new_stopped_by(endpoint, vocabulary, || false)
    }

    /// As [`new`](Self::new); any call ends with [`Error::Stopped`] soon after `should_stop` says so.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_stopped_by(
        endpoint: Endpoint,
        vocabulary: Option<Vocabulary<'a>>,
        should_stop: impl Fn() -> bool + 'a,
    ) -> Result<Self, Error> {
        let vocabulary = match vocabulary {
            Some(vocabulary) if takes_ids(&endpoint, &vocabulary, &should_stop)? => {
                Some(vocabulary)
            }
            _ => None,
        };
        let should_stop = Box::new(should_stop);
        Ok(Self { endpoint, vocabulary, should_stop, prompts_cut: 0, endings: None })
    }

    /// Whether prompts are sent as token ids.
    #[must_use]
    pub fn sends_ids(&self) -> bool {
        self.vocabulary.is_some()
    }

    /// How many prompts lost their beginning so far.
    #[must_use]
    pub fn prompts_cut(&self) -> usize {
        self.prompts_cut
    }

    fn prompt(&mut self, request: &Request) -> Result<Prompt, Error> {
        let Some(vocabulary) = &self.vocabulary else {
            return Ok(Prompt::Text(request.prompt.clone()));
        };
        let mut ids = vocabulary.encode(&request.prompt)?;
        if let Some(context) = vocabulary.context(self.endpoint.context()) {
            let tokens = request.max_new_tokens;
            let room = context.checked_sub(tokens).filter(|&room| room > 0);
            let room = room.ok_or(Error::NoRoom { tokens, context })?;
            let over = ids.len().saturating_sub(room);
            self.prompts_cut += usize::from(over > 0);
            ids.drain(..over);
        }
        Ok(Prompt::Ids(ids))
    }

    fn call(&mut self, request: &Request) -> Result<Call, Error> {
        let mut fields = json!({"max_tokens": request.max_new_tokens});
        let stop: Vec<&str> =
            request.stop.iter().map(String::as_str).filter(|stop| !stop.is_empty()).collect();
        if !stop.is_empty() {
            fields["stop"] = json!(stop);
        }
        Ok(Call { prompts: vec![self.prompt(request)?], fields })
    }

    fn answers(
        &mut self,
        requests: &[Request],
        note: NoteAnswer<'_>,
    ) -> Result<Vec<String>, Error> {
        self.endings = None;
        let calls = requests.iter().map(|request| self.call(request)).collect::<Result<_, _>>()?;
        let ending_of = |place: usize, answers: &Answers| {
            let has_stops = requests[place].stop.iter().any(|stop| !stop.is_empty());
            answers.choices.first().and_then(|choice| choice.ended(has_stops))
        };
        let mut done = |place, answers: &Answers| {
            note(place, text(answers), ending_of(place, answers)).map_err(Error::Keep)
        };
        let answers = self.endpoint.ask_all(calls, &*self.should_stop, &mut done)?;
        let endings = answers.iter().enumerate().map(|(place, answers)| ending_of(place, answers));
        self.endings = endings.collect();
        Ok(answers.iter().map(|answers| text(answers).to_owned()).collect())
    }
}

/// The text of the one choice that each call has.
fn text(answers: &Answers) -> &str {
    answers.choices.first().map_or("", |choice| &choice.text)
}

/// Whether the server takes a prompt as token ids, and as these.
fn takes_ids(
    endpoint: &Endpoint,
    vocabulary: &Vocabulary<'_>,
    should_stop: &dyn Fn() -> bool,
) -> Result<bool, Error> {
    let ids = vocabulary.encode(SHORT)?;
    let count = ids.len() as u64;
    let call = Call { prompts: vec![Prompt::Ids(ids)], fields: json!({"max_tokens": 1}) };
    match endpoint.probe(call, should_stop) {
        Ok(answers) => Ok(answers.prompt_tokens.is_none_or(|found| found == count)),
        Err(error) if refuses_form(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Generator for EndpointGenerator<'_> {
    fn generate(&mut self, requests: &[Request]) -> Result<Vec<String>, BoxError> {
        self.generate_noting(requests, &mut |_, _, _| Ok(()))
    }

    fn endings(&self) -> Option<&[Ending]> {
        self.endings.as_deref()
    }

    fn pass_over(&mut self, requests: &[Request]) -> Result<(), BoxError> {
        Ok(requests.iter().try_for_each(|request| self.prompt(request).map(drop))?)
    }

    fn generate_noting(
        &mut self,
        requests: &[Request],
        note: NoteAnswer<'_>,
    ) -> Result<Vec<String>, BoxError> {
        Ok(self.answers(requests, note)?)
    }
}
