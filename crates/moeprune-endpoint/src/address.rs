//! Where a server is.

use ureq::http::Uri;

use crate::{Error, excerpt::excerpt};

/// The base of a server's API: scheme, host and path up to `/v1`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    base: String,
    is_local: bool,
}

impl Address {
    /// Reads what a user gives: with or without `/v1`, a last `/` or the name of the call.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let bad = |problem: &str| Error::Url { url: shown(url), problem: problem.to_owned() };
        let trimmed = url.trim();
        let Some((scheme, rest)) = trimmed.split_once("://") else {
            return Err(bad("it does not begin with http:// or https://"));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" if cfg!(feature = "https") => {}
            "https" => return Err(Error::Https { url: shown(url) }),
            _ => return Err(bad("it does not begin with http:// or https://")),
        }
        if rest.contains(['?', '#']) {
            return Err(bad("it has a query or a fragment; give the URL up to /v1"));
        }
        let uri: Uri = trimmed.parse().map_err(|_| bad("it is not a URL"))?;
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty())
        else {
            return Err(bad("it names no host"));
        };
        if authority.as_str().contains('@') {
            return Err(bad(
                "it has a user name or a password; keys are read from the variable OPENAI_API_KEY",
            ));
        }
        let port = &authority.as_str()[authority.host().len()..];
        if !port.is_empty() && authority.port_u16().is_none() {
            return Err(bad("its port is no number up to 65535"));
        }
        let path = uri.path().trim_end_matches('/');
        let path = path
            .strip_suffix("/completions")
            .or_else(|| path.strip_suffix("/models"))
            .unwrap_or(path);
        let version = if path.ends_with("/v1") { "" } else { "/v1" };
        let base = format!("{}://{authority}{path}{version}", scheme.to_ascii_lowercase());
        Ok(Self { base, is_local: is_loopback(authority.host()) })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn completions(&self) -> String {
        format!("{}/completions", self.base)
    }

    pub(crate) fn models(&self) -> String {
        format!("{}/models", self.base)
    }

    /// Whether the server is this machine itself, so that no proxy is between.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A URL for messages: what may be a password or a key is left out, and all of what cannot be read as one.
pub(crate) fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default().trim();
    let start = plain.find("://").map_or(0, |at| at + 3);
    let is_read = plain.parse::<Uri>().is_ok();
    match plain[start..].rfind('@') {
        None if is_read || plain.is_empty() => excerpt(plain, 200),
        Some(at) if is_read => {
            format!("{}…{}", &plain[..start], excerpt(&plain[start + at..], 200))
        }
        _ => "(not shown)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_give() {
        let check = |url: &str, base: &str, local: bool| {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.base(), address.is_local()), (base, local), "{url}");
        };
        check("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", true);
        check("http://localhost:8000/", "http://localhost:8000/v1", true);
        check("http://[::1]:8000/v1", "http://[::1]:8000/v1", true);
        check("HTTP://gpu7:8000/v1/", "http://gpu7:8000/v1", false);
        check("http://gpu7/v1/completions", "http://gpu7/v1", false);
        check("http://gpu7/v1/models", "http://gpu7/v1", false);
        check(" http://gpu7/api/openai ", "http://gpu7/api/openai/v1", false);
    }

    #[test]
    fn what_is_no_endpoint() {
        let check = |url: &str, expected: &str| {
            let said = Address::parse(url).unwrap_err().to_string();
            assert!(said.contains(expected), "{url}: {said}");
        };
        check("gpu7:8000", "does not begin with http");
        check("ftp://gpu7", "does not begin with http");
        check("", "does not begin with http");
        check("http://", "not a URL");
        check("http://a b", "not a URL");
        check("http://gpu7/v1?key=1", "query");
        check("http://gpu7:99999999/", "port");
        check("http://gpu7:/", "port");
        check("http://me:secret@gpu7/", "OPENAI_API_KEY");
        assert!(
            !Address::parse("http://me:secret@gpu7/").unwrap_err().to_string().contains("secret")
        );
        for url in [
            "http://gpu7/v1?key=secret",
            "http://me:se/secret@gpu7/",
            "http://a b?secret",
            "http://a secret",
        ] {
            let said = Address::parse(url).unwrap_err().to_string();
            assert!(!said.contains("secret"), "{said}");
        }
        if cfg!(not(feature = "https")) {
            check("https://gpu7/", "--features https");
        }
    }
}
