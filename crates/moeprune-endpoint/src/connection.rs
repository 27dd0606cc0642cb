//! Calls over HTTP, made again where the reason passes.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::Value;
use ureq::{
    Agent,
    http::{HeaderMap, HeaderValue, header},
};

use crate::{
    AnswerProblem, EndpointOptions, Error,
    address::{Address, shown},
    answer,
    excerpt::excerpt,
    secret,
};

/// No answer is longer; a server that sends more is not read to the end.
const LONGEST_ANSWER: u64 = 64 << 20;
/// Of what a server says beside a status, so much is read.
const LONGEST_REASON: u64 = 64 << 10;
/// No wait between attempts that the client chooses is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A longer wait is not made even if the server asks for it.
const LONGEST_WAIT_ASKED: Duration = Duration::from_secs(600);
/// A longer wait is said.
const SILENT_WAIT: Duration = Duration::from_secs(5);
/// No call takes longer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);
/// How often a wait looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Servers close connections that are idle for 5 s (uvicorn, which vLLM runs on): ours end before.
const IDLE: Duration = Duration::from_secs(4);
/// A server on this or another machine of the network takes a connection at once.
const CONNECT: Duration = Duration::from_secs(10);

/// A server, and how it is called.
pub(crate) struct Connection {
    agent: Agent,
    address: Address,
    authorization: Option<HeaderValue>,
    /// For what the server says of it to be left out.
    key: Option<String>,
    retries: u32,
    first_wait: Duration,
    repeated: AtomicU64,
    is_told: AtomicBool,
    news: Mutex<Option<String>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("base", &self.address.base()).finish_non_exhaustive()
    }
}

/// An attempt that failed, and how long the server asks to wait.
struct Failed {
    error: Error,
    wait: Option<Duration>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, wait: None }
    }
}

impl Connection {
    pub(crate) fn new(url: &str, options: &EndpointOptions) -> Result<Self, Error> {
        let address = Address::parse(url)?;
        let key = options.key.as_deref().map(str::trim).filter(|key| !key.is_empty());
        let authorization = key.map(bearer).transpose()?;
        // A longer one is none for the clock to add.
        let timeout = options.timeout.min(LONGEST_TIMEOUT);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(timeout))
            .timeout_connect(Some(CONNECT.min(timeout)))
            .max_idle_age(IDLE)
            .max_idle_connections(options.concurrency)
            .max_idle_connections_per_host(options.concurrency)
            .user_agent(concat!("moeprune/", env!("CARGO_PKG_VERSION")));
        if address.is_local() {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().new_agent(),
            address,
            authorization,
            key: key.map(str::to_owned),
            retries: options.retries,
            first_wait: options.first_wait,
            repeated: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
            news: Mutex::new(None),
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// How many attempts were made beyond the first of each call.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Asks for the list of models until `read` accepts it. A server that is not there is not waited for.
    pub(crate) fn models<T>(
        &self,
        cancelled: &AtomicBool,
        read: impl Fn(&[u8]) -> Result<T, AnswerProblem>,
    ) -> Result<T, Error> {
        let url = self.address.models();
        let passes = |error: &Error| match error {
            Error::Transport { is_there, .. } => *is_there,
            error => error.is_passing(),
        };
        self.until(&url, cancelled, passes, || read_from(&url, self.attempt(&url, None)?, &read))
    }

    /// Posts until there is an answer that `read` accepts, or a reason that does not pass.
    pub(crate) fn post<T>(
        &self,
        body: &Value,
        cancelled: &AtomicBool,
        read: impl Fn(&[u8]) -> Result<T, AnswerProblem>,
    ) -> Result<T, Error> {
        let url = self.address.completions();
        let body = body.to_string().into_bytes();
        let once = || read_from(&url, self.attempt(&url, Some(&body))?, &read);
        self.until(&url, cancelled, Error::is_passing, once)
    }

    /// Calls until there is an answer, or a reason that does not pass.
    fn until<T>(
        &self,
        url: &str,
        cancelled: &AtomicBool,
        passes: fn(&Error) -> bool,
        once: impl Fn() -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let mut attempts = 1;
        loop {
            let Failed { error, wait } = match once() {
                Ok(read) => return Ok(read),
                Err(failed) => failed,
            };
            if cancelled.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            if !passes(&error) {
                return Err(error);
            }
            if let (Some(wait), Error::Status { status, .. }) = (wait, &error)
                && wait > LONGEST_WAIT_ASKED
            {
                let (url, seconds) = (url.to_owned(), wait.as_secs());
                return Err(Error::LongWait { url, status: *status, seconds });
            }
            if attempts > self.retries {
                return Err(match attempts {
                    1 => error,
                    _ => Error::GaveUp { attempts, last: Box::new(error) },
                });
            }
            let own = self.first_wait.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST_WAIT);
            // A wait of none would be a storm of calls.
            let wait = wait.unwrap_or_default().max(own);
            self.tell(wait, &error);
            pause(wait, cancelled)?;
            attempts += 1;
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the first long wait said.
    fn tell(&self, wait: Duration, error: &Error) {
        if wait >= SILENT_WAIT && !self.is_told.swap(true, Ordering::Relaxed) {
            let line =
                format!("note: waiting {} s before the next attempt: {error}", wait.as_secs());
            *self.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        }
    }

    /// What a user should know of calls that are under way; each line once.
    pub(crate) fn news(&self) -> Option<String> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn attempt(&self, url: &str, body: Option<&[u8]>) -> Result<Vec<u8>, Failed> {
        let failed = |error| transport(url, error);
        let response = match body {
            None => {
                let mut request = self.agent.get(url);
                if let Some(value) = &self.authorization {
                    request = request.header(header::AUTHORIZATION, value);
                }
                request.call()
            }
            Some(body) => {
                let mut request =
                    self.agent.post(url).header(header::CONTENT_TYPE, "application/json");
                if let Some(value) = &self.authorization {
                    request = request.header(header::AUTHORIZATION, value);
                }
                request.send(body)
            }
        };
        let mut response = response.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            let read = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
            return Ok(secret::hidden(read.map_err(failed)?, self.key.as_deref()));
        }
        let wait = retry_after(response.headers());
        let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
        let key = self.key.as_deref();
        let hidden = |text: &[u8]| secret::hidden(text.to_vec(), key);
        let to = to.map(|to| {
            let to = hidden(to.split(['?', '#']).next().unwrap_or_default().as_bytes());
            excerpt(&shown(&String::from_utf8_lossy(&to)), 200)
        });
        let said = response.body_mut().with_config().limit(LONGEST_REASON).read_to_vec();
        let said = said.map_or_else(|_| String::new(), |said| reason(&hidden(&said)));
        let advice = self.advice(status.as_u16(), &said, to);
        let error = Error::Status { url: url.to_owned(), status: status.as_u16(), said, advice };
        Err(Failed { error, wait })
    }

    fn advice(&self, status: u16, said: &str, to: Option<String>) -> String {
        let is_long =
            ["context length", "context size", "maximum context", "too long", "max_model_len"];
        match (status, to) {
            (300..=399, Some(to)) => format!("; give the URL that it leads to, {to}"),
            (401 | 403, _) if self.authorization.is_none() => {
                "; set OPENAI_API_KEY to the server's key".into()
            }
            (401 | 403, _) => "; it does not accept the key in OPENAI_API_KEY".into(),
            (404 | 405, _) => {
                "; it has no such model, or no completions API there: check the URL and --endpoint-model".into()
            }
            (400 | 413 | 422, _) if is_long.iter().any(|words| said.to_lowercase().contains(words)) => {
                "; pass MODEL, for prompts to be cut to the server's context, or ask with fewer shots".into()
            }
            _ => String::new(),
        }
    }
}

fn read_from<T>(
    url: &str,
    body: Vec<u8>,
    read: impl Fn(&[u8]) -> Result<T, AnswerProblem>,
) -> Result<T, Failed> {
    read(&body).map_err(|problem| Error::Answer { url: url.to_owned(), problem }.into())
}

fn bearer(key: &str) -> Result<HeaderValue, Error> {
    if !key.is_ascii() {
        return Err(Error::Key);
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| Error::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Waits, unless the run is stopped meanwhile.
fn pause(mut left: Duration, cancelled: &AtomicBool) -> Result<(), Error> {
    while !left.is_zero() {
        if cancelled.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let step = left.min(LOOK_EVERY);
        std::thread::sleep(step);
        left -= step;
    }
    Ok(())
}

/// What the server asks to wait: seconds, or until a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What a server says beside a status, in any of the forms that servers have.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let said = answer::json(body).ok().and_then(|json| {
        let places = [
            json.pointer("/error/message"),
            json.get("error"),
            json.get("message"),
            json.get("detail"),
        ];
        let found = places.into_iter().flatten().next()?;
        Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
    });
    excerpt(said.as_deref().unwrap_or(&text), 300)
}

fn transport(url: &str, error: ureq::Error) -> Error {
    let is_list = url.ends_with("/models");
    let of = |problem: String, advice, is_there| {
        let url = url.to_owned();
        Error::Transport { url, problem, advice, is_there }
    };
    let unknown = |error: &std::io::Error| error.to_string().contains("lookup address");
    match error {
        ureq::Error::BodyExceedsLimit(limit) => Error::TooLong { url: url.to_owned(), limit },
        ureq::Error::Timeout(ureq::Timeout::Connect) => of(
            "no connection in time".into(),
            "; is the server running, and the address right?",
            false,
        ),
        ureq::Error::Timeout(_) if is_list => of(
            "no answer in time".into(),
            "; is the server still starting, or busy, or is it another service's port?",
            false,
        ),
        ureq::Error::Timeout(_) => {
            of("no answer in time".into(), "; raise --timeout or lower --concurrency", false)
        }
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => of(
            "no server takes a connection there".into(),
            "; is it running, and the port right?",
            false,
        ),
        ureq::Error::HostNotFound => of("no host has this name".into(), "; check the URL", false),
        ureq::Error::Io(error) if unknown(&error) => {
            of("no host has this name".into(), "; check the URL", false)
        }
        ureq::Error::Io(error) => of(
            format!("the connection was cut ({error})"),
            if is_list { "; is it https, or another service's port?" } else { "" },
            true,
        ),
        ureq::Error::Protocol(error) => of(
            format!("what comes from there is not HTTP ({})", excerpt(&error.to_string(), 100)),
            "; is it https, or another service's port?",
            false,
        ),
        error => of(excerpt(&error.to_string(), 200), "", true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_that_servers_ask_for() {
        let check = |value: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            assert_eq!(retry_after(&headers).map(|wait| wait.as_secs()), expected, "{value}");
        };
        check("3", Some(3));
        check(" 0 ", Some(0));
        check("1.5", Some(1));
        check("-1", None);
        check("NaN", None);
        check("1e300", None);
        check("soon", None);
        check("Wed, 21 Oct 2015 07:28:00 GMT", Some(0));
        assert_eq!(retry_after(&HeaderMap::new()), None);
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(5000));
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(&later).unwrap());
        let wait = retry_after(&headers).unwrap().as_secs();
        assert!((4900..=5000).contains(&wait), "{wait}");
    }

    #[test]
    fn reasons_in_all_forms() {
        let check = |body: &str, expected: &str| assert_eq!(reason(body.as_bytes()), expected);
        check(r#"{"error": {"message": "no such model", "code": 404}}"#, "no such model");
        check(r#"{"error": "overloaded"}"#, "overloaded");
        check(r#"{"object": "error", "message": "bad prompt"}"#, "bad prompt");
        check(r#"{"detail": [{"loc": "prompt"}]}"#, r#"[{"loc":"prompt"}]"#);
        check("Bad\r\nGateway", "Bad  Gateway");
        check("", "");
    }

    #[test]
    fn keys_are_not_shown() {
        let error = bearer("sk-\u{7}secret").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
        let value = bearer("sk-secret").unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer sk-secret");
        assert!(!format!("{value:?}").contains("secret"));
    }
}
