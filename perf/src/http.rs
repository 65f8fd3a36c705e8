//! A blocking HTTP/1.1 client that keeps its connection and costs the load generator little CPU.
//!
//! One connection, one request at a time. Request head and body leave in one `writev`; the body of an answer can be
//! read as a stream, so an answer of any size is never held.
//!
//! Knows no redirects, no TLS, no compression of answers, no proxies.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest answer head that is accepted.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// One read of an answer's body.
const BUFFER_BYTES: usize = 256 << 10;

/// One keep-alive connection to one server.
#[derive(Debug)]
pub struct Client {
    address: String,
    timeout: Duration,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// First header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[derive(Debug)]
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    framing: Framing,
    close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked { remaining: u64, first: bool },
    UntilClose,
    Done,
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl Client {
    /// `address` is host:port. Connects with the first request.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            timeout: Duration::from_secs(600),
            stream: None,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
        }
    }

    /// Longest wait for one read or write of the socket.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The head of a request, ready for `send`. `target` is path and query string.
    pub fn head(&self, method: &str, target: &str, headers: &[(&str, &str)], body_bytes: usize) -> Vec<u8> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if body_bytes > 0 || method == "POST" {
            head.push_str(&format!("Content-Length: {body_bytes}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Sends one request and reads the whole answer.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut answer = self.open(method, target, headers, body)?;
        let mut bytes = Vec::new();
        answer.read_to_end(&mut bytes)?;
        let (status, headers) = (answer.status, std::mem::take(&mut answer.headers));
        Ok(Response { status, headers, body: bytes })
    }

    pub fn get(&mut self, target: &str) -> io::Result<Response> {
        self.request("GET", target, &[], b"")
    }

    /// POST of line protocol; `parameters` such as `db=x&precision=ms`.
    pub fn write(&mut self, parameters: &str, body: &[u8]) -> io::Result<Response> {
        self.request("POST", &format!("/write?{parameters}"), &[], body)
    }

    /// POST of a statement; `parameters` are further query parameters, already encoded (may be empty).
    pub fn query(&mut self, statement: &str, parameters: &str) -> io::Result<Response> {
        self.open_query(statement, parameters)?.into_response()
    }

    /// Like `query`, but the answer is read by the caller.
    pub fn open_query(&mut self, statement: &str, parameters: &str) -> io::Result<Answer<'_>> {
        let target = if parameters.is_empty() { "/query".to_owned() } else { format!("/query?{parameters}") };
        let body = format!("q={}", encode(statement));
        self.open("POST", &target, &[("Content-Type", "application/x-www-form-urlencoded")], body.as_bytes())
    }

    /// Sends one request and returns when the head of the answer is there.
    pub fn open(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer<'_>> {
        let head = self.head(method, target, headers, body.len());
        let answer = self.exchange(&head, body)?;
        let framing = if method == "HEAD" { Framing::Done } else { answer.framing };
        Ok(Answer { status: answer.status, headers: answer.headers, framing, close: answer.close, client: self })
    }

    /// Sends a ready head and body, reads the answer and returns its status; the body is kept only for errors.
    pub fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let answer = self.exchange(head, body)?;
        let (status, framing, close) = (answer.status, answer.framing, answer.close);
        let mut answer = Answer { status, headers: answer.headers, framing, close, client: self };
        let mut bytes = Vec::new();
        if framing != Framing::Length(0) {
            answer.read_to_end(&mut bytes)?;
        }
        Ok((status, bytes))
    }

    /// Drops the connection; the next request opens a new one.
    pub fn disconnect(&mut self) {
        self.stream = None;
        self.start = 0;
        self.end = 0;
    }

    fn exchange(&mut self, head: &[u8], body: &[u8]) -> io::Result<Head> {
        // Bytes left over belong to an answer that was not read to its end: the connection cannot be used again.
        if self.start != self.end {
            self.disconnect();
        }
        let fresh = self.stream.is_none();
        match self.exchange_once(head, body) {
            // A kept connection may have been closed by the server before the request reached it. The request is sent
            // again only if not one byte of an answer came, as RFC 9112 section 9.3.1 allows for a kept connection.
            Err(error) if !fresh && is_closed(&error) && self.end == 0 => {
                self.disconnect();
                // "Nobody listens" would say that the request never left, but its first copy may have.
                self.exchange_once(head, body).map_err(|again| match again.kind() {
                    io::ErrorKind::ConnectionRefused => error,
                    _ => again,
                })
            }
            other => other,
        }
        .inspect_err(|_| self.disconnect())
    }

    fn exchange_once(&mut self, head: &[u8], body: &[u8]) -> io::Result<Head> {
        self.start = 0;
        self.end = 0;
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                stream
            }
        };
        let stream = self.stream.insert(stream);
        if let Err(error) = write_both(stream, head, body) {
            // A server that refuses a body early answers and closes: its answer says more than the broken pipe does.
            return self.read_head().map_err(|_| error);
        }
        self.read_head()
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let stream = self.stream.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let count = stream.read(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    fn read_head(&mut self) -> io::Result<Head> {
        loop {
            let head_bytes = loop {
                let unread = &self.buffer[self.start..self.end];
                if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if unread.len() > HEAD_BYTES_MAX {
                    return Err(invalid("the head of the answer is too long"));
                }
                if self.fill()? == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed before an answer"));
                }
            };
            // Error headers carry pieces of bodies, which may be any bytes.
            let text = String::from_utf8_lossy(&self.buffer[self.start..self.start + head_bytes]);
            let head = parse_head(&text)?;
            self.start += head_bytes;
            if head.status != 100 {
                return Ok(head);
            }
        }
    }

    /// One line of chunk framing, without its line end.
    fn read_line(&mut self) -> io::Result<String> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = unread.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&unread[..at]).trim_end_matches('\r').to_owned();
                self.start += at + 1;
                return Ok(line);
            }
            if unread.len() > HEAD_BYTES_MAX || self.fill()? == 0 {
                return Err(invalid("chunk framing of the answer is broken"));
            }
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn write_both(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < head.len() {
        match stream.write_vectored(&[IoSlice::new(&head[done..]), IoSlice::new(body)])? {
            0 => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            count => done += count,
        }
    }
    stream.write_all(&body[done - head.len()..])
}

fn parse_head(text: &str) -> io::Result<Head> {
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or("");
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse::<u16>().ok())
        .ok_or_else(|| invalid(format!("not an HTTP answer: {status_line:?}")))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let find = |name: &str| headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str());
    let close = find("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let framing = if status == 204 || status == 304 || status < 200 {
        Framing::Length(0)
    } else if find("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        Framing::Chunked { remaining: 0, first: true }
    } else if let Some(length) = find("content-length") {
        Framing::Length(length.parse().map_err(|_| invalid(format!("bad Content-Length {length:?}")))?)
    } else {
        Framing::UntilClose
    };
    Ok(Head { status, headers, framing, close })
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    framing: Framing,
    close: bool,
    client: &'a mut Client,
}

impl Answer<'_> {
    pub fn into_response(mut self) -> io::Result<Response> {
        let mut body = Vec::new();
        self.read_to_end(&mut body)?;
        Ok(Response { status: self.status, headers: std::mem::take(&mut self.headers), body })
    }

    fn take_buffered(&mut self, out: &mut [u8], limit: u64) -> io::Result<usize> {
        let client = &mut *self.client;
        if client.start == client.end && client.fill()? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ends early"));
        }
        let count = out.len().min(client.end - client.start).min(usize::try_from(limit).unwrap_or(usize::MAX));
        out[..count].copy_from_slice(&client.buffer[client.start..client.start + count]);
        client.start += count;
        Ok(count)
    }

    fn finish(&mut self) {
        self.framing = Framing::Done;
        if self.close {
            self.client.disconnect();
        }
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        match self.framing {
            Framing::Done => Ok(0),
            Framing::Length(0) => {
                self.finish();
                Ok(0)
            }
            Framing::Length(remaining) => {
                let count = self.take_buffered(out, remaining)?;
                self.framing = Framing::Length(remaining - count as u64);
                Ok(count)
            }
            Framing::UntilClose => match self.take_buffered(out, u64::MAX) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.close = true;
                    self.finish();
                    Ok(0)
                }
                other => other,
            },
            Framing::Chunked { mut remaining, first } => {
                if remaining == 0 {
                    if !first && !self.client.read_line()?.is_empty() {
                        return Err(invalid("a chunk is longer than announced"));
                    }
                    let line = self.client.read_line()?;
                    let size = line.split(';').next().unwrap_or("").trim();
                    remaining =
                        u64::from_str_radix(size, 16).map_err(|_| invalid(format!("bad chunk size {line:?}")))?;
                    if remaining == 0 {
                        while !self.client.read_line()?.is_empty() {}
                        self.finish();
                        return Ok(0);
                    }
                }
                let count = self.take_buffered(out, remaining)?;
                self.framing = Framing::Chunked { remaining: remaining - count as u64, first: false };
                Ok(count)
            }
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // An answer that was not read to its end leaves bytes of unknown number on the connection.
        match self.framing {
            Framing::Done => {}
            Framing::Length(0) => self.finish(),
            _ => self.client.disconnect(),
        }
    }
}

/// Percent-encodes a query parameter.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3 / 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Serves each canned answer to one request on one connection, a few bytes at a time.
    fn serve(answers: Vec<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read(&mut byte).unwrap() == 0 {
                        return;
                    }
                    request.push(byte[0]);
                }
                for piece in answer.as_bytes().chunks(7) {
                    stream.write_all(piece).unwrap();
                    stream.flush().unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn all_framings_are_read_on_one_connection() {
        let address = serve(vec![
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad",
            "HTTP/1.1 200 OK\r\n\r\nrest",
        ]);
        let mut client = Client::new(address);
        assert_eq!(client.get("/a").unwrap().text(), "hello world");
        let empty = client.get("/b").unwrap();
        assert_eq!((empty.status, empty.header("x-a"), empty.body.len()), (204, Some("b"), 0));
        let bad = client.get("/c").unwrap();
        assert_eq!((bad.status, bad.text().as_str()), (400, "bad"));
        assert_eq!(client.get("/d").unwrap().text(), "rest");
    }

    #[test]
    fn a_short_answer_is_an_error_and_not_a_shorter_body() {
        let address = serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"]);
        let error = Client::new(address).get("/").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let address = serve(vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"]);
        assert!(Client::new(address).get("/").is_err());
    }

    #[test]
    fn a_request_that_may_have_arrived_is_not_called_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            drop(listener);
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            assert!(stream.read(&mut request).unwrap() > 0);
        });
        let mut client = Client::new(address);
        assert_eq!(client.get("/first").unwrap().status, 204);
        assert_ne!(client.get("/second").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        server.join().unwrap();
        assert_eq!(client.get("/third").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn encoding_keeps_unreserved_bytes_only() {
        assert_eq!(encode("a=~/[1-9]/ ü"), "a%3D~%2F%5B1-9%5D%2F%20%C3%BC");
    }
}
