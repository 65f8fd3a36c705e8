//! The access log: a line for each answered request, in the format that upstream writes.
//!
//! Owns: the line, what is left out of it, and what writes the lines of all cores to a file or to standard error.
//! Invariants: a request never waits for its line: when the writer does not keep up, lines are dropped and their number
//! is told; no password stands in a line, whether it came as a parameter, in a statement or bound to one.
//! A file that was moved away is made anew, so that it can be rotated.

use hyper::HeaderMap;
use hyper::header::{HeaderName, REFERER, USER_AGENT};
use hyper::http::request;
use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::parameters::{Parameters, credentials};
use crate::service::Credentials;

/// What is logged, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLogOptions {
    pub is_enabled: bool,
    /// Writes are left out.
    pub leaves_out_writes: bool,
    /// Empty for standard error.
    pub path: PathBuf,
    /// Answers that are logged; none for all.
    pub filters: Vec<StatusFilter>,
}

/// A pattern of status codes: three digits, of which the last may be `x` for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusFilter([u8; 3]);

/// A text that is no pattern of status codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no pattern of status codes like 404, 50x or 4xx")]
pub struct StatusFilterError(String);

impl FromStr for StatusFilter {
    type Err = StatusFilterError;

    fn from_str(text: &str) -> Result<StatusFilter, StatusFilterError> {
        let lower = text.to_ascii_lowercase();
        let error = || StatusFilterError(text.to_owned());
        let pattern: [u8; 3] = lower.as_bytes().try_into().map_err(|_| error())?;
        let digits = pattern.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_pattern = (b'1'..=b'5').contains(&pattern[0]) && pattern[digits..].iter().all(|byte| *byte == b'x');
        if is_pattern { Ok(StatusFilter(pattern)) } else { Err(error()) }
    }
}

impl std::fmt::Display for StatusFilter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{}", char::from(*byte)))
    }
}

impl StatusFilter {
    fn accepts(&self, status: u16) -> bool {
        let digits = [status / 100 % 10, status / 10 % 10, status % 10];
        self.0.iter().zip(digits).all(|(wanted, digit)| *wanted == b'x' || u16::from(*wanted - b'0') == digit)
    }
}

/// Lines that wait for the writer; some MiB at most.
const LINES_WAITING_MAX: usize = 8192;
/// How often a moved file is noticed and the number of dropped lines is told.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The way to the writer. Shared by all cores.
#[derive(Clone)]
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    leaves_out_writes: bool,
    filters: Arc<[StatusFilter]>,
}

impl AccessLog {
    /// The log, and what writes its lines, which belongs on a thread of its own; `None` if nothing is to be logged.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(options: &AccessLogOptions) -> io::Result<Option<(AccessLog, LogWriter)>> {
        if !options.is_enabled {
            return Ok(None);
        }
        let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let writer = LogWriter { target: Target::open(&options.path)?, lines: waiting, dropped: dropped.clone() };
        let (leaves_out_writes, filters) = (options.leaves_out_writes, options.filters.clone().into());
        Ok(Some((AccessLog { lines, dropped, leaves_out_writes, filters }, writer)))
    }

    pub(crate) fn wants(&self, is_write: bool) -> bool {
        !(is_write && self.leaves_out_writes)
    }

    fn push(&self, status: u16, line: Vec<u8>) {
        let is_wanted = self.filters.is_empty() || self.filters.iter().any(|filter| filter.accepts(status));
        if is_wanted && self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes the lines of all cores.
pub struct LogWriter {
    target: Target,
    lines: Receiver<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// Where lines go.
enum Target {
    StandardError,
    File { path: PathBuf, file: File },
}

impl Target {
    fn open(path: &Path) -> io::Result<Target> {
        if path.as_os_str().is_empty() {
            return Ok(Target::StandardError);
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Target::File { path: path.to_owned(), file })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Target::StandardError => io::stderr().write_all(lines),
            Target::File { file, .. } => file.write_all(lines),
        }
    }

    /// Opens the file anew if another one, or none, stands in its place.
    fn follow(&mut self) -> io::Result<()> {
        let Target::File { path, file } = self else { return Ok(()) };
        let is_same = |found: std::fs::Metadata| -> io::Result<bool> {
            let own = file.metadata()?;
            Ok((found.dev(), found.ino()) == (own.dev(), own.ino()))
        };
        if std::fs::metadata(&*path).and_then(is_same).unwrap_or(false) {
            return Ok(());
        }
        *self = Target::open(path)?;
        Ok(())
    }
}

impl LogWriter {
    /// Blocks until no core can log any more.
    pub fn run(self) {
        let LogWriter { mut target, lines, dropped } = self;
        let prefix: &[u8] = if matches!(target, Target::StandardError) { b"[httpd] " } else { b"" };
        loop {
            let mut batch = Vec::new();
            let mut has_ended = false;
            match lines.recv_timeout(LOOK_INTERVAL) {
                Ok(line) => {
                    for line in std::iter::once(line).chain(lines.try_iter().take(LINES_WAITING_MAX)) {
                        batch.extend_from_slice(prefix);
                        batch.extend_from_slice(&line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => has_ended = true,
            }
            match dropped.swap(0, Ordering::Relaxed) {
                0 => {}
                count => tracing::warn!(count, "lines of the access log were dropped"),
            }
            if let Err(error) = target.follow().and_then(|()| target.write(&batch)) {
                tracing::warn!(%error, "access log");
                std::thread::sleep(LOOK_INTERVAL);
            }
            if has_ended {
                return;
            }
        }
    }
}

/// The beginning of a request's line, made when its head was read.
pub(crate) struct Entry {
    log: AccessLog,
    head: String,
    /// Of a POST: what its form says.
    form: String,
    tail: String,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Entry {
    pub(crate) fn new(log: &AccessLog, request: &request::Parts, peer: Option<IpAddr>, request_id: &str) -> Entry {
        let text = |name: HeaderName| {
            request
                .headers
                .get(name)
                .map_or("-".to_owned(), |value| cleaned(&String::from_utf8_lossy(value.as_bytes())))
        };
        let mut hosts: Vec<String> = request
            .headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .map(|value| cleaned(&String::from_utf8_lossy(value.as_bytes())))
            .collect();
        hosts.push(peer.map_or("-".to_owned(), |peer| peer.to_string()));
        let url = request.uri.query().unwrap_or_default();
        let user = user(&Parameters::from_urlencoded(url.as_bytes()), &request.headers);
        let head = format!(
            "{} - {} [{}] \"{} {} {:?}",
            hosts.join(","),
            user.map_or("-".to_owned(), |user| cleaned(&user)),
            time_text(SystemTime::now()),
            request.method,
            cleaned(&redacted_target(request.uri.path(), url)),
            request.version,
        );
        let tail = format!("\"{}\" \"{}\" {}", text(REFERER), text(USER_AGENT), cleaned(request_id));
        Entry { log: log.clone(), head, form: String::new(), tail }
    }

    /// Notes what the form of a POST said.
    pub(crate) fn note_form(&mut self, form: &Parameters) {
        let mentions_password = mentions_password(form.value("q"));
        let shown = form.pairs().map(|(name, value)| {
            let value = redacted_value(name, value, mentions_password);
            format!("'{}': '{}'", cleaned(name), cleaned(&value))
        });
        self.form = format!(" {{{}}}", shown.collect::<Vec<_>>().join(", "));
    }

    pub(crate) fn finish(self, status: u16, response_bytes: u64, latency: Duration) {
        let Entry { log, head, form, tail } = self;
        let line = format!("{head}{form}\" {status} {response_bytes} {tail} {}\n", latency.as_micros());
        log.push(status, line.into_bytes());
    }
}

/// Who the request says it comes from.
pub(crate) fn user(url: &Parameters, headers: &HeaderMap) -> Option<String> {
    match credentials(url, headers)? {
        Credentials::Password { user, .. } => Some(user),
        // Its name is inside, and not proved yet.
        Credentials::Bearer(_) => None,
    }
}

/// One line, without quotes that would end its fields.
fn cleaned(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('"', "'")
}

const REDACTED: &str = "[REDACTED]";

/// Path and query string without secrets.
fn redacted_target(path: &str, query: &str) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let mentions_password = pairs.iter().any(|(name, value)| name == "q" && mentions_password(value));
    let mut shown = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &pairs {
        shown.append_pair(name, &redacted_value(name, value, mentions_password));
    }
    format!("{path}?{}", shown.finish().replace("%5BREDACTED%5D", REDACTED))
}

fn redacted_value<'a>(name: &str, value: &'a str, mentions_password: bool) -> Cow<'a, str> {
    match name {
        "p" => REDACTED.into(),
        // A password may be bound to a name.
        "params" if mentions_password => REDACTED.into(),
        "q" => without_passwords(value),
        _ => value.into(),
    }
}

fn mentions_password(text: &str) -> bool {
    text.to_ascii_lowercase().contains("password")
}

/// A statement without what follows the word PASSWORD: its strings, or everything up to the next statement if it has
/// none.
fn without_passwords(text: &str) -> Cow<'_, str> {
    const WORD: &str = "password";
    if !mentions_password(text) {
        return text.into();
    }
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = lower.get(at..).and_then(|rest| rest.find(WORD)) {
        let after = at + found + WORD.len();
        out.push_str(&text[at..after]);
        let (mut kept, mut has_string) = (String::new(), false);
        let mut characters = text[after..].char_indices();
        at = text.len();
        while let Some((position, character)) = characters.next() {
            match character {
                ';' => {
                    at = after + position;
                    break;
                }
                '\'' => {
                    has_string = true;
                    kept.push_str(REDACTED);
                    while let Some((_, inside)) = characters.next() {
                        match inside {
                            '\\' => drop(characters.next()),
                            '\'' => break,
                            _ => {}
                        }
                    }
                }
                character => kept.push(character),
            }
        }
        out.push_str(if has_string { &kept } else { " [REDACTED]" });
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out.into()
}

/// `02/Jan/2006:15:04:05 +0000`
fn time_text(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ns = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    // 2006-01-02T15:04:05..
    let text = tidemill_influxql::TimestampText(ns).to_string();
    let (year, month, day, clock) = (&text[0..4], &text[5..7], &text[8..10], &text[11..19]);
    let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month - 1)).unwrap_or(&"Jan");
    format!("{day}/{month}/{year}:{clock} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_take_classes_and_codes() {
        let accepts = |filter: &str, status| filter.parse::<StatusFilter>().unwrap().accepts(status);
        assert!(accepts("4xx", 404) && accepts("50X", 503) && accepts("204", 204));
        assert!(!accepts("4xx", 500) && !accepts("50x", 510) && !accepts("204", 200));
        for wrong in ["", "4", "4x4", "xxx", "9xx", "4xxx", "40\u{e9}"] {
            assert!(wrong.parse::<StatusFilter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_secret_stands_in_a_target() {
        let target = |query: &str| redacted_target("/query", query);
        assert_eq!(target("u=a&p=hunter2&db=d"), "/query?u=a&p=[REDACTED]&db=d");
        for query in [
            "q=CREATE+USER+a+WITH+PASSWORD+'hunter2'",
            "q=create%20user%20a%20with%20password%20%27hun%5C%27hunter2%27&x=1",
            "q=SET+PASSWORD+FOR+%22a%22+=+'hunter2'%3B+SHOW+USERS",
            "q=CREATE+USER+a+WITH+PASSWORD+%22hunter2%22",
            "q=CREATE+USER+a+WITH+PASSWORD+$p&params=%7B%22p%22%3A%22hunter2%22%7D",
            "params=%7B%22p%22%3A%22hunter2%22%7D&q=CREATE+USER+a+WITH+PASSWORD+$p",
            "q=CREATE+USER+a+WITH+PASSWORD+'x'%3B+SET+PASSWORD+FOR+b+%3D+'hunter2",
        ] {
            assert!(!target(query).contains("hunter2"), "{query}: {}", target(query));
        }
        let kept = without_passwords("SET PASSWORD FOR a = 'x;y'; SELECT 'z' FROM n");
        assert_eq!(kept, "SET PASSWORD FOR a = [REDACTED]; SELECT 'z' FROM n");
    }

    #[test]
    fn times_are_those_of_web_servers() {
        let time = UNIX_EPOCH + Duration::from_secs(1_136_214_245);
        assert_eq!(time_text(time), "02/Jan/2006:15:04:05 +0000");
    }

    #[test]
    fn lines_reach_the_file_and_one_that_was_moved_away_is_made_anew() {
        let folder = std::env::temp_dir().join(format!("access-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("access.log");
        let mut target = Target::open(&path).unwrap();
        target.write(b"one\n").unwrap();
        std::fs::rename(&path, folder.join("old.log")).unwrap();
        target.follow().unwrap();
        target.write(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(std::fs::read_to_string(folder.join("old.log")).unwrap(), "one\n");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
