//! Parameters of a request: from its URL, from forms, from headers.
//!
//! Owns: percent decoding, form bodies, credentials, and the words that stand for consistencies.
//! Invariant: the first value of a name counts; what a body says comes before what the URL says.
//! Knows nothing of endpoints.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::service::{Consistency, Credentials, ReadLevel};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use memchr::memmem;
use std::time::Duration;

/// Names and values, in the order in which they count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Of a URL's query string or a urlencoded form. A pair with a `%` that no byte follows is left out.
    pub fn from_urlencoded(text: &[u8]) -> Parameters {
        let pairs = text.split(|byte| *byte == b'&').filter(|pair| is_decodable(pair));
        let pairs = pairs.flat_map(form_urlencoded::parse);
        Parameters(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The body of a form, if the content type is one; `None` for other bodies.
    pub fn from_form(headers: &HeaderMap, body: &[u8]) -> Option<Parameters> {
        let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let (media_type, attributes) = content_type.split_once(';').unwrap_or((content_type, ""));
        match media_type.trim().to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => Some(Parameters::from_urlencoded(body)),
            "multipart/form-data" => Some(Parameters(parts(body, boundary(attributes)?))),
            _ => None,
        }
    }

    /// Adds parameters that count less than those here.
    pub fn append(&mut self, other: Parameters) {
        self.0.extend(other.0);
    }

    /// The first value of this name, or "".
    pub fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The first value of this name, unless it is empty.
    pub fn text(&self, name: &str) -> Option<String> {
        Some(self.value(name)).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// All names and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether the first value of this name is `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.value(name) == "true"
    }
}

fn is_decodable(pair: &[u8]) -> bool {
    memchr::memchr_iter(b'%', pair)
        .all(|at| pair.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

/// The boundary among the attributes of a multipart content type (RFC 2046, 5.1.1).
fn boundary(attributes: &str) -> Option<&str> {
    attributes.split(';').find_map(|attribute| {
        let (name, value) = attribute.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("boundary") && !value.is_empty()).then_some(value)
    })
}

/// Names and values of a multipart body; what is not a named part is left out.
fn parts(body: &[u8], boundary: &str) -> Vec<(String, String)> {
    // Every delimiter but the first stands behind a line break, which is not part of the value before it.
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = match body.strip_prefix(delimiter.get(2..).unwrap_or_default().as_bytes()) {
        Some(rest) => rest,
        None => match memmem::find(body, delimiter.as_bytes()) {
            Some(at) => body.get(at + delimiter.len()..).unwrap_or_default(),
            None => return Vec::new(),
        },
    };
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut found = Vec::new();
    while let Some(end) = finder.find(rest) {
        if let Some(part) = rest.get(..end).and_then(part) {
            found.push(part);
        }
        rest = rest.get(end + delimiter.len()..).unwrap_or_default();
    }
    found
}

/// Name and value of one part: the end of the delimiter's line, headers, an empty line, the value.
fn part(bytes: &[u8]) -> Option<(String, String)> {
    let headers = bytes.get(memmem::find(bytes, b"\r\n")?..)?;
    let head_end = memmem::find(headers, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(headers.get(..head_end)?);
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let name = disposition.split(';').find_map(|attribute| attribute.trim().strip_prefix("name="))?;
    let value = headers.get(head_end + 4..)?;
    Some((name.trim_matches('"').to_owned(), String::from_utf8_lossy(value).into_owned()))
}

pub(crate) fn consistency(word: &str) -> Option<Consistency> {
    Some(match word.to_ascii_lowercase().as_str() {
        "any" => Consistency::Any,
        "" | "one" => Consistency::One,
        "quorum" => Consistency::Quorum,
        "all" => Consistency::All,
        _ => return None,
    })
}

/// A client's session: what it has seen, in requests and answers.
pub const X_TIDEMILL_SESSION: HeaderName = HeaderName::from_static("x-tidemill-session");
/// How old an answer may be without `max_staleness`.
const STALENESS_DEFAULT: Duration = Duration::from_secs(10);

/// The session that a request belongs to.
pub(crate) fn session(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(X_TIDEMILL_SESSION)?.to_str().unwrap_or("?").to_owned())
}

/// How new the answer to a query must be.
///
/// # Errors
/// What is not understood of `read` or `max_staleness`, with its name.
pub(crate) fn read_level(parameters: &Parameters, headers: &HeaderMap) -> Result<ReadLevel, String> {
    let bound = match parameters.value("max_staleness") {
        "" => STALENESS_DEFAULT,
        text => {
            let ns = tidemill_influxql::parse_duration(text).ok().and_then(|ns| u64::try_from(ns).ok());
            Duration::from_nanos(ns.ok_or_else(|| format!("invalid max_staleness {text:?}: a duration such as 5s"))?)
        }
    };
    match parameters.value("read").to_ascii_lowercase().as_str() {
        "" | "linearizable" => Ok(ReadLevel::Linearizable),
        "bounded" => Ok(ReadLevel::Bounded(bound)),
        "session" => Ok(ReadLevel::Session(session(headers).unwrap_or_default())),
        "eventual" => Ok(ReadLevel::Eventual),
        _ => Err(format!(
            "invalid read level {:?} (use linearizable, bounded, session or eventual)",
            parameters.value("read")
        )),
    }
}

/// What the request proves itself with: `u` and `p` of the URL, else the header.
pub(crate) fn credentials(url: &Parameters, headers: &HeaderMap) -> Option<Credentials> {
    if let (Some(user), Some(password)) = (url.text("u"), url.text("p")) {
        return Some(Credentials::Password { user, password });
    }
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = header.split_once(' ')?;
    if secret.contains(' ') {
        return None;
    }
    match scheme {
        "Bearer" => Some(Credentials::Bearer(secret.to_owned())),
        "Token" => password(secret),
        _ if scheme.eq_ignore_ascii_case("basic") => password(&String::from_utf8(STANDARD.decode(secret).ok()?).ok()?),
        _ => None,
    }
}

fn password(pair: &str) -> Option<Credentials> {
    let (user, password) = pair.split_once(':')?;
    Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn with_header(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn the_first_value_counts_and_bodies_come_first() {
        let headers = with_header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8");
        let mut form = Parameters::from_form(&headers, b"q=a+b%2Bc&x=1").unwrap();
        form.append(Parameters::from_urlencoded(b"q=url&db=d&db=e"));
        assert_eq!((form.value("q"), form.value("db"), form.value("none")), ("a b+c", "d", ""));
        let broken = Parameters::from_urlencoded(b"q=%zz&q=%4&db=%41");
        assert_eq!((broken.value("q"), broken.value("db")), ("", "A"));
    }

    #[test]
    fn multipart_fields_and_files_are_found() {
        let headers = with_header(CONTENT_TYPE, "multipart/form-data; boundary=\"xx\"");
        let body =
            b"--xx\r\nContent-Disposition: form-data; name=\"db\"\r\n\r\nd\r\n--xx\r\nContent-Type: text/plain\r\n\
            content-disposition: form-data; name=\"q\"; filename=\"q.txt\"\r\n\r\nSELECT\r\n1\r\n--xx--\r\n";
        let form = Parameters::from_form(&headers, body).unwrap();
        assert_eq!((form.value("db"), form.value("q")), ("d", "SELECT\r\n1"));
        assert_eq!(Parameters::from_form(&with_header(CONTENT_TYPE, "application/vnd.influxql"), body), None);
    }

    #[test]
    fn read_levels_are_known_by_name() {
        let headers = with_header(X_TIDEMILL_SESSION, "1-0.5");
        let level = |text: &str| read_level(&Parameters::from_urlencoded(text.as_bytes()), &headers);
        assert_eq!(level(""), Ok(ReadLevel::Linearizable));
        assert_eq!(level("read=Eventual"), Ok(ReadLevel::Eventual));
        assert_eq!(level("read=bounded"), Ok(ReadLevel::Bounded(STALENESS_DEFAULT)));
        assert_eq!(level("read=bounded&max_staleness=3s"), Ok(ReadLevel::Bounded(Duration::from_secs(3))));
        assert_eq!(level("read=session"), Ok(ReadLevel::Session("1-0.5".into())));
        assert!(level("read=dirty").unwrap_err().contains("invalid read level \"dirty\""));
        assert!(level("read=bounded&max_staleness=soon").unwrap_err().contains("max_staleness"));
        assert_eq!(
            read_level(&Parameters::from_urlencoded(b"read=session"), &HeaderMap::new()),
            Ok(ReadLevel::Session(String::new()))
        );
    }

    #[test]
    fn credentials_come_from_the_url_before_the_header() {
        let basic = with_header(AUTHORIZATION, "Basic dXNlcjpwYTpzcw==");
        let expected = |user: &str, password: &str| {
            Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
        };
        let nothing = Parameters::default();
        assert_eq!(credentials(&Parameters::from_urlencoded(b"u=a&p=b"), &basic), expected("a", "b"));
        assert_eq!(credentials(&Parameters::from_urlencoded(b"u=a"), &basic), expected("user", "pa:ss"));
        assert_eq!(credentials(&nothing, &with_header(AUTHORIZATION, "Token a:b:c")), expected("a", "b:c"));
        assert_eq!(
            credentials(&nothing, &with_header(AUTHORIZATION, "Bearer x")),
            Some(Credentials::Bearer("x".into()))
        );
        for broken in ["Basic", "Basic !!!!", "Basic a b", "Digest x", "Token nocolon"] {
            assert_eq!(credentials(&nothing, &with_header(AUTHORIZATION, broken)), None);
        }
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_parsers(body in proptest::collection::vec(any::<u8>(), 0..200), boundary in "[a-z\"-]{1,3}") {
            parts(&body, &boundary);
            let marked: Vec<u8> = body.iter().flat_map(|byte| if byte % 5 == 0 { format!("\r\n--{boundary}").into_bytes() } else { vec![*byte] }).collect();
            parts(&marked, &boundary);
        }
    }
}
