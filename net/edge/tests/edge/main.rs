//! The server and the connections to nodes, against each other and against peers that misbehave.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tidemill_edge::{Answer, Handler, Outgoing, Peer, Pool, PoolOptions, SendFailure, Server, read_body, run, spawn};
use tidemill_http::Options;

const OPTIONS: PoolOptions =
    PoolOptions { connections_max: 2, connect_deadline: Duration::from_secs(5), idle_max: Duration::from_secs(60) };

/// Answers with what was asked; `/held` waits until it is let go.
#[derive(Default)]
struct Echo {
    requests: Cell<u32>,
    is_let_go: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Echo {
    fn let_go(&self) {
        self.is_let_go.set(true);
        self.wakers.borrow_mut().drain(..).for_each(Waker::wake);
    }

    async fn until_let_go(&self) {
        poll_fn(|context| {
            if self.is_let_go.get() {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Handler for Echo {
    async fn handle(self: Rc<Self>, request: Request<Incoming>, _: Peer) -> Response<Answer> {
        self.requests.set(self.requests.get() + 1);
        let is_held = request.uri().path() == "/held";
        let body = read_body(request.into_body(), &Options::default(), |_| true).await.unwrap();
        if is_held {
            self.until_let_go().await;
        }
        Response::new(Answer::of_bytes(body))
    }
}

fn request(path: &str, body: impl Into<Bytes>) -> Request<Outgoing> {
    Request::builder().method("POST").uri(path).header("host", "x").body(Outgoing(body.into())).unwrap()
}

/// Runs against a server that ends when the test does; what came of it.
fn with_server<T: 'static, F: Future<Output = T>>(test: impl FnOnce(SocketAddr, Rc<Echo>) -> F) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    run(async move {
        let echo = Rc::new(Echo::default());
        let server = Server::new(echo.clone(), Options::default());
        let outcome = Rc::new(RefCell::new(None));
        let stop = async { *outcome.borrow_mut() = Some(test(address, echo).await) };
        server.run(listener, stop).await.unwrap();
        outcome.borrow_mut().take().unwrap()
    })
    .unwrap()
}

#[test]
fn connections_are_used_again() {
    with_server(|address, echo| async move {
        let pool = Pool::new(address, OPTIONS);
        for size in [0, 1, 100_000, 3_000_000] {
            let body = Bytes::from(vec![b'x'; size]);
            let response = pool.send(request("/", body.clone())).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert!(response.into_body().collect(4_000_000).await.unwrap() == body);
            assert_eq!(pool.open_count(), 1);
        }
        assert_eq!(echo.requests.get(), 4);
        pool.close_idle();
        assert_eq!(pool.open_count(), 0);
    });
}

#[test]
fn requests_wait_for_a_connection_and_one_that_is_given_up_is_closed() {
    with_server(|address, echo| async move {
        let pool = Pool::new(address, OPTIONS);
        let answered = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let (pool, answered) = (pool.clone(), answered.clone());
            spawn(async move {
                let response = pool.send(request("/held", "a")).await.unwrap();
                assert_eq!(response.into_body().collect(10).await.unwrap(), "a");
                answered.set(answered.get() + 1);
            });
        }
        while echo.requests.get() < 2 {
            tidemill_edge::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((pool.open_count(), answered.get()), (2, 0));
        echo.let_go();
        while answered.get() < 5 {
            tidemill_edge::sleep(Duration::from_millis(1)).await;
            assert!(pool.open_count() <= 2);
        }
        // An answer that is not taken ends its connection.
        let response = pool.send(request("/", vec![b'x'; 5_000_000])).await.unwrap();
        let before = pool.open_count();
        drop(response);
        assert_eq!(pool.open_count(), before - 1);
        assert!(pool.send(request("/", "b")).await.is_ok());
    });
}

#[test]
fn what_was_not_sent_is_told_from_what_nobody_knows_of() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = refused.local_addr().unwrap();
    drop(refused);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rude = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = [0; 1024];
        let count = stream.read(&mut seen).unwrap();
        assert!(count > 0);
        // Half an answer, and gone.
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut seen).unwrap() > 0);
    });
    run(async move {
        let sent = Pool::new(nobody, OPTIONS).send(request("/", "a")).await;
        assert!(matches!(sent, Err(SendFailure::NotSent(_))));
        let pool = Pool::new(address, OPTIONS);
        let half = pool.send(request("/", "a")).await.unwrap();
        assert!(half.into_body().collect(1000).await.is_err());
        assert!(matches!(pool.send(request("/", "a")).await, Err(SendFailure::Unknown(_))));
        assert_eq!(pool.open_count(), 0);
    })
    .unwrap();
    rude.join().unwrap();
}
