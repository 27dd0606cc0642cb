//! How calls to a server are made.

use std::{fmt, time::Duration};

/// How calls to a server are made.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct EndpointOptions {
    /// The model's name, if the server serves several or names none.
    pub model: Option<String>,
    /// Sent as `Authorization: Bearer`.
    pub key: Option<String>,
    /// The most calls at a time: 8 unless set.
    pub concurrency: usize,
    /// After which a call is given up: 300 s unless set.
    pub timeout: Duration,
    /// How often a call is made again where the reason passes (429, 5xx, cut connections, timeouts): 8 unless set.
    pub retries: u32,
    /// The wait before the first repetition, doubled for each further one up to 30 s, unless the server names a wait
    /// (`Retry-After`): 0.5 s unless set.
    pub first_wait: Duration,
    /// Sent with each call. Greedy decoding needs none, but servers that break ties at random take it.
    pub seed: u64,
}

impl fmt::Debug for EndpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, key, concurrency, timeout, retries, first_wait, seed } = self;
        f.debug_struct("EndpointOptions")
            .field("model", model)
            .field("key", &key.as_ref().map(|_| "…"))
            .field("concurrency", concurrency)
            .field("timeout", timeout)
            .field("retries", retries)
            .field("first_wait", first_wait)
            .field("seed", seed)
            .finish()
    }
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            model: None,
            key: None,
            concurrency: 8,
            timeout: Duration::from_secs(300),
            retries: 8,
            first_wait: Duration::from_millis(500),
            seed: 0,
        }
    }
}
