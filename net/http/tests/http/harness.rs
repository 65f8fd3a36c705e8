//! The server under test and a client that speaks bytes.

use glommio::net::TcpListener;
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tidemill_column::{Column, Values};
use tidemill_http::metrics::{HttpMetrics, TextWriter};
use tidemill_http::{
    Caller, Credentials, Front, Options, Piece, Pieces, QueryRequest, Refusal, RequestIds, Server, Service,
    WriteOutcome, WriteRequest, WriteTarget,
};
use tidemill_query::{ResultColumn, ResultSeries};

/// What the service saw, from outside of its thread.
#[derive(Default)]
pub struct Seen {
    pub writes: Mutex<Vec<WriteRequest>>,
    pub queries: Mutex<Vec<QueryRequest>>,
    pub piece_count: AtomicUsize,
    pub dropped_stream_count: AtomicUsize,
}

/// Answers by the name of the database.
struct Fake {
    seen: Arc<Seen>,
    metrics: Rc<HttpMetrics>,
}

pub struct FakePieces {
    seen: Arc<Seen>,
    pieces: Box<dyn Iterator<Item = Piece>>,
    pause: Option<Duration>,
}

impl Drop for FakePieces {
    fn drop(&mut self) {
        self.seen.dropped_stream_count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Pieces for FakePieces {
    async fn next(&mut self) -> Option<Piece> {
        if let Some(pause) = self.pause {
            Timer::new(pause).await;
        }
        self.seen.piece_count.fetch_add(1, Ordering::SeqCst);
        self.pieces.next()
    }
}

pub fn series(rows: std::ops::Range<i64>) -> ResultSeries {
    ResultSeries {
        name: "m".into(),
        tags: [("host".to_owned(), "a".to_owned())].into(),
        columns: ["time".to_owned(), "v".to_owned()].into(),
        values: vec![
            ResultColumn::Time(rows.clone().collect()),
            ResultColumn::Values(Column::dense(Values::Float(rows.map(|row| row as f64 / 2.0).collect()))),
        ],
        partial: false,
    }
}

impl Service for Fake {
    type Pieces = FakePieces;

    async fn authenticate(&self, credentials: Option<Credentials>, peer: Option<IpAddr>) -> Result<Caller, Refusal> {
        assert!(peer.is_some_and(|peer| peer.is_loopback()));
        match credentials {
            Some(Credentials::Password { user, password }) if password != "wrong" => Ok(Caller::User(user.into())),
            Some(_) => Err(Refusal::new(401, "authorization failed")),
            None => Ok(Caller::Anyone),
        }
    }

    fn admit_to_insides(&self, caller: &Caller) -> Result<(), Refusal> {
        match caller {
            Caller::User(name) if name.as_ref() == "root" => Ok(()),
            _ => Err(Refusal::new(403, "error authorizing admin access")),
        }
    }

    fn admit_write(&self, target: &WriteTarget) -> Result<(), WriteOutcome> {
        match target.database.as_str() {
            "unknown" => Err(WriteOutcome::DatabaseNotFound("unknown".to_owned())),
            _ => Ok(()),
        }
    }

    async fn write(&self, request: WriteRequest) -> WriteOutcome {
        let outcome = match request.target.database.as_str() {
            "partial" => WriteOutcome::PartialWrite("partial write: a\nb dropped=0".to_owned()),
            "overloaded" => WriteOutcome::Overloaded { why: "overloaded, retry later".into(), retry_after_s: 7 },
            "full" => WriteOutcome::DiskFull,
            "lost" => WriteOutcome::Unknown("timeout".to_owned()),
            "secret" => WriteOutcome::Rejected(Refusal::new(401, "authorization failed")),
            "slow" => {
                Timer::new(Duration::from_millis(300)).await;
                WriteOutcome::Written
            }
            _ => WriteOutcome::Written,
        };
        self.seen.writes.lock().unwrap().push(request);
        outcome
    }

    async fn query(&self, request: QueryRequest) -> Result<FakePieces, Refusal> {
        let statement_count = request.query.statements.len() as u32;
        let one = |statement| {
            [Piece::Series { statement, series: series(0..3), more: false }, Piece::StatementDone(statement)]
        };
        let endless = (0..).map(|piece| Piece::Series {
            statement: 0,
            series: series(piece * 1000..(piece + 1) * 1000),
            more: true,
        });
        let pieces: Box<dyn Iterator<Item = Piece>> = match request.database.as_str() {
            "refused" => return Err(Refusal::new(403, "no")),
            "empty" => Box::new((0..statement_count).map(Piece::StatementDone)),
            "failing" => Box::new([Piece::Error { statement: 0, text: "it failed".to_owned() }].into_iter()),
            "endless" | "dripping" => Box::new(endless),
            "large" => Box::new(endless.take(1000).chain([Piece::StatementDone(0)])),
            _ => Box::new((0..statement_count).flat_map(one)),
        };
        let pause = (request.database == "dripping").then(|| Duration::from_millis(20));
        self.seen.queries.lock().unwrap().push(request);
        Ok(FakePieces { seen: self.seen.clone(), pieces, pause })
    }

    async fn metrics_text(&self) -> String {
        let mut writer = TextWriter::new();
        self.metrics.snapshot().write_text(&mut writer);
        writer.finish()
    }

    async fn debug_vars(&self) -> String {
        "{\"system\": {}}".to_owned()
    }
}

pub struct TestServer {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<glommio::ExecutorJoinHandle<()>>,
}

impl TestServer {
    pub fn start(options: Options) -> TestServer {
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let (sender, receiver) = mpsc::channel();
        let (seen_inside, stop_inside) = (seen.clone(), stop.clone());
        let options = Options { sweep_interval: Duration::from_millis(10), ..options };
        let thread = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(1 << 20)
            .spawn(move || async move {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                let metrics = Rc::new(HttpMetrics::default());
                let service = Rc::new(Fake { seen: seen_inside, metrics: metrics.clone() });
                let ids = RequestIds::new([1; 6], 1, || 1_422_568_543_702_900_257);
                let server = Rc::new(Server::new(service, options, metrics, ids, Front::default()));
                let watched = server.clone();
                let watch = glommio::spawn_local(async move {
                    while !stop_inside.load(Ordering::SeqCst) {
                        Timer::new(Duration::from_millis(5)).await;
                    }
                    watched.shutdown();
                });
                server.run(listener).await;
                watch.await;
            })
            .unwrap();
        let address = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        TestServer { address, seen, stop, thread: Some(thread) }
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    /// One request on a connection of its own.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer().expect("an answer")
    }

    pub fn get(&self, target: &str) -> Answer {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    pub fn post(&self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask(post(target, headers, body))
    }

    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits for the end of the server.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

pub fn post(target: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request =
        format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

/// Waits until it is true; panics when that takes absurdly long.
pub fn eventually(what: &str, is_true: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_true() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Client {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// True when there was something to read.
    pub fn fill(&mut self) -> bool {
        let mut part = [0; 65536];
        match self.stream.read(&mut part) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&part[..count]);
                true
            }
        }
    }

    /// True when the server has closed the connection, whatever it sent before.
    pub fn is_closed_at_last(&mut self) -> bool {
        let mut part = [0; 65536];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill() {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..at + 2).take(at).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    pub fn head(&mut self) -> Option<Answer> {
        let status = self.line()?.split(' ').nth(1)?.parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
                None => return Some(Answer { status, headers, body: Vec::new() }),
            };
        }
    }

    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).unwrap();
        let mut chunk = self.take(size + 2)?;
        chunk.truncate(size);
        Some(chunk)
    }

    /// The next answer; `None` when the connection ends before its end.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head()?;
        if answer.header("transfer-encoding") == "chunked" {
            loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    return Some(answer);
                }
                answer.body.extend(chunk);
            }
        }
        if let Some(length) = answer.headers.get("content-length") {
            answer.body = self.take(length.parse().unwrap())?;
        } else if answer.status == 200 {
            while self.fill() {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        Some(answer)
    }
}
