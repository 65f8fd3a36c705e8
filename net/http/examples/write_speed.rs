//! How many writes of 1000 rows one core takes in, with nothing behind it:
//! `cargo run --release -p tidemill-http --example write_speed`.

use glommio::net::TcpListener;
use glommio::{LocalExecutorBuilder, Placement};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tidemill_http::metrics::HttpMetrics;
use tidemill_http::{
    Front, Options, Piece, Pieces, QueryRequest, Refusal, RequestIds, Server, Service, WriteOutcome, WriteRequest,
};

struct Nothing;

struct NoPieces;

impl Pieces for NoPieces {
    async fn next(&mut self) -> Option<Piece> {
        None
    }
}

impl Service for Nothing {
    type Pieces = NoPieces;

    async fn write(&self, request: WriteRequest) -> WriteOutcome {
        assert!(!request.body.is_empty());
        WriteOutcome::Written
    }

    async fn query(&self, _: QueryRequest) -> Result<NoPieces, Refusal> {
        Ok(NoPieces)
    }

    async fn metrics_text(&self) -> String {
        String::new()
    }

    async fn debug_vars(&self) -> String {
        String::new()
    }
}

const SECONDS: u64 = 5;
const CONNECTIONS: usize = 8;

fn main() {
    let (sender, receiver) = mpsc::channel();
    let server = LocalExecutorBuilder::new(Placement::Unbound).spawn(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        sender.send(listener.local_addr().expect("bound")).expect("main waits");
        let ids = RequestIds::new([1; 6], 1, || 0);
        let server = Rc::new(Server::new(
            Rc::new(Nothing),
            Options::default(),
            Rc::new(HttpMetrics::default()),
            ids,
            Front::default(),
        ));
        let watched = server.clone();
        glommio::spawn_local(async move {
            glommio::timer::Timer::new(Duration::from_secs(SECONDS + 1)).await;
            watched.shutdown();
        })
        .detach();
        server.run(listener).await;
    });
    let address = receiver.recv().expect("the server starts");
    for rows in [1, 1000] {
        let count = drive(address, rows, Duration::from_millis(SECONDS * 500));
        let per_second = count as f64 / (SECONDS as f64 / 2.0);
        println!(
            "{rows:5} rows a request: {per_second:9.0} requests/s {:6.2} M rows/s",
            per_second * rows as f64 / 1e6
        );
    }
    server.expect("an executor").join().expect("no panic");
}

/// Requests answered in the time.
fn drive(address: SocketAddr, rows: usize, time: Duration) -> usize {
    let body: String = (0..rows)
        .map(|row| {
            format!("cpu,host=host_{},region=eu usage=0.64,idle=93.1,count={row}i 1422568543702900257\n", row % 100)
        })
        .collect();
    let request =
        format!("POST /write?db=d HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut streams: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < time {
        for stream in &mut streams {
            stream.write_all(request.as_bytes()).expect("sent");
        }
        for stream in &mut streams {
            let mut answer = [0; 1024];
            let len = stream.read(&mut answer).expect("an answer");
            assert!(answer[..len].starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer[..len]));
            count += 1;
        }
    }
    count
}
