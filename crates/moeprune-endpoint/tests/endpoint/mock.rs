//! A server on a free port of this machine that answers as a closure says.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use moeprune_endpoint::{Endpoint, EndpointOptions};
use serde_json::{Value, json};

/// What a client asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Value,
    /// How many calls of completions came before.
    pub(crate) number: usize,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The prompts as a list, in any form that they were sent in.
    pub(crate) fn prompts(&self) -> Vec<Value> {
        match &self.body["prompt"] {
            Value::Array(prompts) if prompts.first().is_some_and(|p| !p.is_number()) => {
                prompts.clone()
            }
            one => vec![one.clone()],
        }
    }
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status 200 and JSON.
    Json(Value),
    /// A status, more header lines, and a body.
    Status(u16, &'static str, String),
    /// As `Json`, in chunks of so many bytes.
    Chunked(Value, usize),
    /// As `Json`, and the connection is cut after so many bytes of the body.
    Cut(Value, usize),
    /// As `Cut`, with no length that was promised.
    CutWithoutLength(Value, usize),
    /// As the other, after a while.
    After(Duration, Box<Self>),
    /// The connection is closed with no word.
    Hangup,
    /// Bytes as they are, and the connection is closed.
    Raw(Vec<u8>),
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// The server. It stops taking connections when it is dropped.
pub(crate) struct Mock {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Mock {
    /// Serves one model, `m`, and completions as `answer` says.
    pub(crate) fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_models(Reply::Json(json!({"data": [{"id": "m", "max_model_len": 64}]})), answer)
    }

    pub(crate) fn with_models(
        models: Reply,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = {
            let (numbered, log) = (AtomicUsize::new(0), Arc::clone(&log));
            Arc::new(move |asked: &Asked| {
                let is_list = asked.line.starts_with("GET");
                let number = if is_list { 0 } else { numbered.fetch_add(1, Ordering::SeqCst) };
                let asked = Asked { number, ..asked.clone() };
                log.lock().unwrap().push(asked.clone());
                if is_list { models.clone() } else { answer(&asked) }
            })
        };
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let (Ok(stream), answer) = (stream, Arc::clone(&answer)) else { continue };
                std::thread::spawn(move || serve(stream, &*answer));
            }
        });
        Self { address, over, log }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint_with(options())
    }

    pub(crate) fn endpoint_with(&self, options: EndpointOptions) -> Endpoint {
        Endpoint::connect(&self.url(), options).unwrap()
    }

    /// What was asked of completions so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|asked| asked.line.starts_with("POST")).cloned().collect()
    }

    /// All that was asked so far.
    pub(crate) fn all(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }
}

/// Options that do not wait.
pub(crate) fn options() -> EndpointOptions {
    let mut options = EndpointOptions::default();
    options.first_wait = Duration::from_millis(1);
    options
}

/// Answers on one connection until it ends.
fn serve(mut stream: TcpStream, answer: &Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(asked) = read(&mut reader) {
        if !write(&mut stream, answer(&asked)) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let length = lines.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Some(Asked { line: lines.remove(0), headers: lines, body, number: 0 })
}

/// Whether the connection stays.
fn write(stream: &mut TcpStream, reply: Reply) -> bool {
    let head = |status: u16, more: &str, length: usize| {
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n"
        )
    };
    let (bytes, stays) = match reply {
        Reply::Json(value) => {
            let body = value.to_string();
            ((head(200, "", body.len()) + &body).into_bytes(), true)
        }
        Reply::Status(status, more, body) => {
            ((head(status, more, body.len()) + &body).into_bytes(), true)
        }
        Reply::Chunked(value, size) => {
            let mut bytes =
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for chunk in value.to_string().as_bytes().chunks(size) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            (bytes, true)
        }
        Reply::Cut(value, at) => {
            let body = value.to_string();
            let mut bytes = head(200, "", body.len()).into_bytes();
            bytes.extend(&body.as_bytes()[..at.min(body.len() - 1)]);
            (bytes, false)
        }
        Reply::CutWithoutLength(value, at) => {
            let body = value.to_string();
            let mut bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
            bytes.extend(&body.as_bytes()[..at.min(body.len() - 1)]);
            (bytes, false)
        }
        Reply::After(wait, reply) => {
            std::thread::sleep(wait);
            return write(stream, *reply);
        }
        Reply::Hangup => (Vec::new(), false),
        Reply::Raw(bytes) => (bytes, false),
    };
    stream.write_all(&bytes).and_then(|()| stream.flush()).is_ok() && stays
}

/// A choice with this text.
pub(crate) fn text(text: &str) -> Reply {
    Reply::Json(json!({"object": "text_completion", "model": "m", "choices": [
        {"index": 0, "text": text, "logprobs": null, "finish_reason": "stop"}
    ]}))
}
