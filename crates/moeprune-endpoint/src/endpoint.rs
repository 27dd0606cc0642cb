//! A server and the model that it serves.

use std::sync::{Arc, atomic::AtomicBool};

use serde_json::{Value, json};

use crate::{
    AnswerProblem, EndpointOptions, Error,
    answer::{self, Answers},
    connection::Connection,
    excerpt::excerpt,
    pool,
};

/// A server with a completions API, and the model there that answers.
#[derive(Clone, Debug)]
pub struct Endpoint {
    connection: Arc<Connection>,
    served: Served,
    concurrency: usize,
    seed: u64,
}

/// A model of a server's list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Served {
    name: String,
    context: Option<usize>,
    /// What else is said of it and stays while the same model is served.
    described: Vec<(&'static str, String)>,
}

impl Served {
    fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    fn of(model: &Value) -> Option<Self> {
        // vLLM and SGLang say it so, llama.cpp beneath `meta`.
        let context = model.get("max_model_len").or_else(|| model.pointer("/meta/n_ctx"));
        let context = context.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let stays = [
            ("root", "/root"),
            ("parent", "/parent"),
            ("max_model_len", "/max_model_len"),
            ("meta.n_ctx", "/meta/n_ctx"),
            ("meta.n_params", "/meta/n_params"),
            ("meta.size", "/meta/size"),
            ("meta.n_vocab", "/meta/n_vocab"),
        ];
        let described = stays.into_iter().filter_map(|(name, place)| {
            let value = model.pointer(place).filter(|value| !value.is_null())?;
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some((name, excerpt(&value, 400)))
        });
        Some(Self {
            name: model.get("id")?.as_str()?.to_owned(),
            context: context.filter(|&n| n > 0),
            described: described.collect(),
        })
    }
}

/// A prompt as it is sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

impl Prompt {
    fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Ids(ids) => json!(ids),
        }
    }

    /// Its beginning, for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{:?}", excerpt(text, 60)),
            Self::Ids(ids) => excerpt(&format!("tokens {ids:?}"), 60),
        }
    }
}

/// One call: prompts, and the other fields of its body.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) fields: Value,
}

impl Endpoint {
    /// Asks the server at `url` (`http://host:port`, with or without `/v1`) which models it serves, and chooses one.
    ///
    /// ```no_run
    /// use moeprune_endpoint::{Endpoint, EndpointGenerator, EndpointOptions};
    /// use moeprune_eval::{Generator as _, Request};
    ///
    /// let endpoint = Endpoint::connect("http://localhost:8000", EndpointOptions::default())?;
    /// let mut generator = EndpointGenerator::new(endpoint, None)?;
    /// let request = Request::new("Question: 6 * 7?\nAnswer:", vec!["Question:".into()], 256);
    /// println!("{:?}", generator.generate(&[request])?);
    /// # Ok::<(), moeprune_eval::BoxError>(())
    /// ```
    ///
    /// # Errors
    /// If the URL is none, the server does not answer or refuses, or the model is not among its models or there are
    /// several and none is chosen. A server without a list of models is taken at its word if one is chosen.
    pub fn connect(url: &str, options: EndpointOptions) -> Result<Self, Error> {
        Self::connect_unless(url, options, &|| false)
    }

    /// As [`connect`](Self::connect), and ends with [`Error::Stopped`] soon after `should_stop` says so.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_unless(
        url: &str,
        options: EndpointOptions,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let connection = Arc::new(Connection::new(url, &options)?);
        let asked = Arc::clone(&connection);
        let list: pool::Work<(), Vec<Served>> =
            Arc::new(move |(), cancelled| asked.models(cancelled, served));
        let found = pool::run(vec![()], 1, list, should_stop, &mut |_, _| Ok(()));
        let served = match (found.map(|lists| lists.concat()), options.model) {
            (Ok(models), wanted) => choose(connection.address().base(), models, wanted)?,
            (Err(Error::Status { status: 404 | 405, .. }), Some(wanted)) => Served::named(wanted),
            (Err(Error::Status { status: 404 | 405, .. }), None) => {
                return Err(Error::NoModel { url: connection.address().base().to_owned() });
            }
            (Err(error), _) => return Err(error),
        };
        let concurrency = options.concurrency.max(1);
        Ok(Self { connection, served, concurrency, seed: options.seed })
    }

    /// The model's name at the server.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.served.name
    }

    /// The model's name for people: shortened, and without what terminals obey.
    #[must_use]
    pub fn shown_model(&self) -> String {
        excerpt(self.model(), 200)
    }

    /// The base of the server's API, up to `/v1`.
    #[must_use]
    pub fn url(&self) -> &str {
        self.connection.address().base()
    }

    /// The most tokens that a prompt and its answer have together, if the server says.
    #[must_use]
    pub fn context(&self) -> Option<usize> {
        self.served.context
    }

    /// What else the server says of the model, by name, as far as it stays while the same model is served: the path it
    /// was loaded from, its size, its context.
    #[must_use]
    pub fn described(&self) -> &[(&'static str, String)] {
        &self.served.described
    }

    /// How many calls were made again so far.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.connection.repeated()
    }

    /// What a user should know of calls that are under way, such as a long wait; each line once.
    #[must_use]
    pub fn news(&self) -> Option<String> {
        self.connection.news()
    }

    /// One call that shows what the server takes.
    pub(crate) fn probe(
        &self,
        call: Call,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Answers, Error> {
        let mut answers = self.ask_all(vec![call], should_stop, &mut |_, _| Ok(()))?;
        answers.pop().ok_or(Error::Lost { missing: 1 })
    }

    fn ask(&self, call: &Call, cancelled: &AtomicBool) -> Result<Answers, Error> {
        let prompts: Vec<Value> = call.prompts.iter().map(Prompt::to_json).collect();
        let mut body = json!({
            "model": self.served.name,
            "prompt": match &prompts[..] {
                // A single text is what every server takes.
                [Value::String(_)] => prompts[0].clone(),
                _ => Value::from(prompts),
            },
            "temperature": 0,
            "seed": self.seed,
        });
        if let (Value::Object(body), Value::Object(fields)) = (&mut body, &call.fields) {
            body.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let count = call.prompts.len();
        self.connection.post(&body, cancelled, |answer| answer::read(answer, count))
    }

    /// Makes all calls, several at a time. `done` receives each answer when it is there.
    pub(crate) fn ask_all(
        &self,
        calls: Vec<Call>,
        should_stop: &dyn Fn() -> bool,
        done: &mut dyn FnMut(usize, &Answers) -> Result<(), Error>,
    ) -> Result<Vec<Answers>, Error> {
        let endpoint = self.clone();
        let work: pool::Work<Call, Answers> =
            Arc::new(move |call, cancelled| endpoint.ask(call, cancelled));
        pool::run(calls, self.concurrency, work, should_stop, done)
    }

    /// An answer that cannot be used.
    pub(crate) fn wrong(&self, problem: AnswerProblem) -> Error {
        Error::Answer { url: self.connection.address().completions(), problem }
    }
}

/// Whether an error says that the server does not take prompts of this form. What passes says nothing, but for a 500
/// that stays: some servers fail so.
pub(crate) fn refuses_form(error: &Error) -> bool {
    match error {
        Error::Status { status, .. } => {
            matches!(status, 400 | 404 | 405 | 413 | 415 | 422 | 500 | 501)
        }
        Error::Answer { .. } => !error.is_passing(),
        Error::GaveUp { last, .. } => matches!(**last, Error::Status { status: 500, .. }),
        _ => false,
    }
}

/// The models of a list.
fn served(body: &[u8]) -> Result<Vec<Served>, AnswerProblem> {
    let json = answer::json(body)?;
    let models = json.get("data").and_then(Value::as_array);
    let missing = || AnswerProblem::Missing {
        what: "list `data` of models",
        start: excerpt(&String::from_utf8_lossy(&body[..body.len().min(800)]), 200),
    };
    let models = models.ok_or_else(missing)?;
    Ok(models.iter().filter_map(Served::of).collect())
}

/// The model that answers.
fn choose(url: &str, served: Vec<Served>, wanted: Option<String>) -> Result<Served, Error> {
    let url = url.to_owned();
    let names = || {
        let mut shown: Vec<String> =
            served.iter().take(20).map(|model| excerpt(&model.name, 100)).collect();
        if served.len() > shown.len() {
            shown.push(format!("{} more", served.len() - shown.len()));
        }
        shown.join(", ")
    };
    match (wanted, &served[..]) {
        (Some(name), []) => Ok(Served::named(name)),
        (Some(name), some) => match some.iter().find(|known| known.name == name) {
            Some(model) => Ok(model.clone()),
            None => Err(Error::UnknownModel { url, name, names: names() }),
        },
        (None, []) => Err(Error::NoModel { url }),
        (None, [one]) => Ok(one.clone()),
        (None, _) => Err(Error::ManyModels { url, names: names() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_servers_list() {
        let check = |body: Value, expected: &[(&str, Option<usize>)]| {
            let found = served(body.to_string().as_bytes()).unwrap();
            let found: Vec<(&str, Option<usize>)> =
                found.iter().map(|m| (&*m.name, m.context)).collect();
            assert_eq!(found, expected, "{body}");
        };
        check(json!({"data": [{"id": "m", "max_model_len": 4096}]}), &[("m", Some(4096))]);
        check(
            json!({"data": [{"id": "m", "meta": {"n_ctx": 512, "n_ctx_train": 4096}}]}),
            &[("m", Some(512))],
        );
        check(
            json!({"data": [{"id": "a"}, {"id": "b", "max_model_len": null}]}),
            &[("a", None), ("b", None)],
        );
        check(json!({"data": [{"id": 3}, null, {"id": "b", "max_model_len": 0}]}), &[("b", None)]);
        check(json!({"data": []}), &[]);
        for body in ["[]", "{}", r#"{"data": {}}"#, "<html>", ""] {
            assert!(served(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn what_stays_of_a_served_model() {
        let described = |model: Value| Served::of(&model).unwrap().described;
        let vllm = |root: &str, created: u64| {
            described(
                json!({"id": "m", "root": root, "parent": null, "max_model_len": 40, "created": created}),
            )
        };
        let expected = [("root", "/a".to_owned()), ("max_model_len", "40".to_owned())];
        assert_eq!(vllm("/a", 1), expected);
        assert_eq!(vllm("/a", 1), vllm("/a", 2));
        assert_ne!(vllm("/a", 1), vllm("/b", 1));
        let llama = json!({"id": "m", "meta": {"size": 7, "n_params": 3, "else": {}}});
        let expected = [("meta.n_params", "3".to_owned()), ("meta.size", "7".to_owned())];
        assert_eq!(described(llama), expected);
    }

    #[test]
    fn which_model_is_asked() {
        let check = |names: &[&str], wanted: Option<&str>, expected: Result<&str, &str>| {
            let served = names.iter().map(|&name| Served::named(name.to_owned())).collect();
            let found = choose("http://x/v1", served, wanted.map(str::to_owned));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.name, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}")
                }
                (found, _) => panic!("{names:?} {wanted:?}: {found:?}"),
            }
        };
        check(&["m"], None, Ok("m"));
        check(&["m"], Some("m"), Ok("m"));
        check(&["m"], Some("n"), Err("serves no model `n`; it serves m"));
        check(&["a", "b"], None, Err("choose one with --endpoint-model: a, b"));
        check(&["a", "b"], Some("b"), Ok("b"));
        check(&[], None, Err("names no model"));
        check(&[], Some("m"), Ok("m"));
        let many: Vec<String> = (0..30).map(|n| format!("m{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, None, Err("m19, 10 more"));
    }

    #[test]
    fn keys_are_not_shown() {
        let options = EndpointOptions { key: Some("secret".into()), ..EndpointOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
