//! Where a subscription's points go.

use crate::http_agent::{Trust, agent_builder};
use crate::subscriber::{Lines, SubscriberOptions};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    net::UdpSocket,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// A destination that no points can go to; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid subscription URL: {0}")]
pub struct InvalidDestination(String);

/// The parts of a destination's URL.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    scheme: &'a str,
    /// `name:password`
    user: Option<&'a str>,
    /// Host and port.
    authority: &'a str,
}

/// Checks the URL of a destination: `udp`, `http` or `https`, with host and port.
pub fn check_destination(url: &str) -> Result<(), InvalidDestination> {
    parts(url).map(drop)
}

fn parts(url: &str) -> Result<Parts<'_>, InvalidDestination> {
    let invalid = || InvalidDestination(url.to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(invalid)?;
    if !matches!(scheme, "udp" | "http" | "https") {
        return Err(invalid());
    }
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, authority) = match place.rsplit_once('@') {
        Some((user, authority)) => (Some(user), authority),
        None => (None, place),
    };
    let (host, port) = authority.rsplit_once(':').ok_or_else(invalid)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(invalid());
    }
    Ok(Parts { scheme, user, authority })
}

/// A server that gets points.
pub struct Destination {
    url: String,
    way: Way,
    pub points_written: AtomicU64,
    pub write_failures: AtomicU64,
}

enum Way {
    Udp { authority: String, socket: Mutex<Option<UdpSocket>> },
    Http { agent: ureq::Agent, url: String, authorization: Option<String> },
}

impl Destination {
    /// # Errors
    /// The URL makes no sense, or certificates cannot be read. Whether anybody listens is seen when points are sent.
    pub fn open(url: &str, place: &(String, String), options: &SubscriberOptions) -> anyhow::Result<Destination> {
        let parts = parts(url)?;
        let way = if parts.scheme == "udp" {
            Way::Udp { authority: parts.authority.to_owned(), socket: Mutex::default() }
        } else {
            let trust = Trust { anybody: options.trusts_anybody, ca_certs: options.ca_certs.clone() };
            let builder = agent_builder(url, &trust)?.timeout_global(Some(options.http_timeout));
            let endpoint = format!("{}://{}/write?", parts.scheme, parts.authority);
            let query_start = endpoint.len();
            let mut target = form_urlencoded::Serializer::for_suffix(endpoint, query_start);
            target.append_pair("db", &place.0).append_pair("rp", &place.1).append_pair("precision", "ns");
            let authorization = parts.user.map(|user| format!("Basic {}", BASE64_STANDARD.encode(user)));
            Way::Http { agent: builder.build().into(), url: target.finish(), authorization }
        };
        let (points_written, write_failures) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Destination { url: url.to_owned(), way, points_written, write_failures })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends lines; whether they were taken. Nobody says so of what goes by UDP.
    pub fn send(&self, lines: &Lines) -> bool {
        let sent = match &self.way {
            Way::Udp { authority, socket } => send_datagrams(authority, socket, lines),
            Way::Http { agent, url, authorization } => {
                let mut request = agent.post(url);
                if let Some(authorization) = authorization {
                    request = request.header("Authorization", authorization);
                }
                match request.send(lines.text()) {
                    Ok(answer) if answer.status().is_success() => Ok(()),
                    Ok(answer) => Err(format!("the answer is {}", answer.status())),
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        match &sent {
            Ok(()) => self.points_written.fetch_add(lines.point_count(), Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(error, destination = self.url, "points did not get to a subscription's destination");
                self.write_failures.fetch_add(1, Ordering::Relaxed)
            }
        };
        sent.is_ok()
    }
}

/// One datagram a point.
fn send_datagrams(authority: &str, socket: &Mutex<Option<UdpSocket>>, lines: &Lines) -> Result<(), String> {
    let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
    let sent = (|| {
        let connected = match &mut *socket {
            Some(connected) => connected,
            none => {
                let opened = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
                opened.connect(authority).or_else(|_| {
                    // Without IPv6 the other kind of socket gets there.
                    let plain = UdpSocket::bind("0.0.0.0:0")?;
                    plain.connect(authority)?;
                    *none = Some(plain);
                    std::io::Result::Ok(())
                })?;
                match none {
                    Some(plain) => plain,
                    none => none.insert(opened),
                }
            }
        };
        lines.iter().try_for_each(|line| connected.send(line).map(drop))
    })();
    sent.map_err(|error: std::io::Error| {
        *socket = None;
        error.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_need_a_known_scheme_a_host_and_a_port() {
        for url in ["udp://localhost:9", "http://a:8086", "https://u:p@[::1]:1/x?y", "http://10.0.0.1:1/"] {
            assert_eq!(check_destination(url), Ok(()), "{url}");
        }
        for url in ["", "ftp://x:1", "udp://x", "http://:1", "http://x:", "http://x:99999", "x:1", "tcp://a:1"] {
            let error = check_destination(url).unwrap_err().to_string();
            assert_eq!(error, format!("invalid subscription URL: {url}"));
        }
        let expected = Parts { scheme: "http", user: Some("u:p@"), authority: "h:1" };
        assert_eq!(parts("http://u:p@@h:1/w").unwrap(), expected);
    }
}
