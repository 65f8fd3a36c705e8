//! Bodies of requests in, bodies of answers out.
//!
//! Owns: reading a body within its limits (size, time, rate), and the answer bodies: none, one buffer, or a producer
//! that is asked for the next buffer when the client took the last one.
//! Invariants: a producer is dropped with its body, which happens as soon as the client is gone; the request's
//! figures are recorded exactly once, when its body is dropped.
//! Knows nothing of endpoints.

use crate::access_log::Entry;
use crate::connection::Connection;
use crate::gunzip::{Gunzip, GunzipError};
use crate::held::{Charge, HeldBody, NoRoom};
use crate::metrics::{Endpoint, HttpMetrics, RequestFigures};
use crate::options::Options;
use bytes::Bytes;
use futures_lite::future;
use glommio::timer::Timer;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("Request Entity Too Large")]
    TooLarge,
    #[error("the request body did not come in time")]
    Late,
    /// The bodies that the core works on take all memory that they may.
    #[error("the memory budget of request bodies is used up, retry later")]
    NoRoom,
    #[error("{0}")]
    Gunzip(GunzipError),
    /// The connection is of no more use: half a body, or one whose framing is broken.
    #[error("{0}")]
    Broken(hyper::Error),
}

/// A declared length is believed up to here; beyond, the buffer grows with what really comes.
const DECLARED_BYTES_BELIEVED_MAX: u64 = 4 << 20;

/// How long a body waits for room, together: shorter than the 100 ms within which a refusal should come.
const ROOM_TRIES: u32 = 10;
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// Where the bytes of a body go.
enum Sink {
    Plain(Vec<u8>),
    Gzip(Box<Gunzip>),
}

/// Reads a whole body, decompressed if it is compressed. Also says how many bytes came in.
pub(crate) async fn read_body(
    mut incoming: Incoming,
    is_gzip: bool,
    options: &Options,
    metrics: &Rc<HttpMetrics>,
    received: &Cell<u64>,
) -> Result<HeldBody, BodyError> {
    let bytes_max = if options.body_bytes_max == 0 { usize::MAX - 1 } else { options.body_bytes_max };
    let declared = incoming.size_hint().exact().unwrap_or(0);
    if declared > bytes_max as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut charge = Charge::new(metrics, options.bodies_bytes_max as u64);
    let mut sink = match is_gzip {
        true => Sink::Gzip(Box::new(Gunzip::new(bytes_max))),
        false => {
            let believed = declared.min(DECLARED_BYTES_BELIEVED_MAX) as usize;
            raise(&mut charge, believed).await?;
            Sink::Plain(Vec::with_capacity(believed))
        }
    };
    let mut clock = BodyClock::new(options);
    while let Some(data) = clock.next_data(&mut incoming, received).await? {
        if received.get() > bytes_max as u64 {
            return Err(BodyError::TooLarge);
        }
        match &mut sink {
            Sink::Plain(body) => {
                let len = body.len() + data.len();
                if len > body.capacity() {
                    // To the declared length, or by doubling, but not beyond what is allowed.
                    let wanted = if declared > 0 { declared as usize } else { 2 * body.capacity() };
                    let capacity = wanted.clamp(len, bytes_max.max(len));
                    raise(&mut charge, capacity).await?;
                    body.reserve_exact(capacity - body.len());
                }
                body.extend_from_slice(&data);
            }
            Sink::Gzip(gunzip) => {
                gunzip.push(&data).map_err(from_gunzip)?;
                raise(&mut charge, gunzip.held_bytes()).await?;
            }
        }
    }
    let bytes = match sink {
        Sink::Plain(body) => body,
        Sink::Gzip(gunzip) => gunzip.finish().map_err(from_gunzip)?,
    };
    Ok(charge.hold(bytes))
}

/// Waits a moment for other bodies to end before it gives up: a little too much load is slowed, far too much is refused.
async fn raise(charge: &mut Charge, bytes: usize) -> Result<(), NoRoom> {
    for _ in 0..ROOM_TRIES {
        if charge.try_raise_to(bytes).is_ok() {
            return Ok(());
        }
        Timer::new(ROOM_PAUSE).await;
    }
    charge.raise_to(bytes)
}

impl From<NoRoom> for BodyError {
    fn from(_: NoRoom) -> BodyError {
        BodyError::NoRoom
    }
}

fn from_gunzip(error: GunzipError) -> BodyError {
    match error {
        GunzipError::TooLarge => BodyError::TooLarge,
        error => BodyError::Gunzip(error),
    }
}

/// The deadline of one body. Most bodies are there at once, so a timer is armed only for those that are not.
struct BodyClock<'a> {
    options: &'a Options,
    started: Instant,
}

impl<'a> BodyClock<'a> {
    fn new(options: &'a Options) -> BodyClock<'a> {
        BodyClock { options, started: Instant::now() }
    }

    async fn next_data(&mut self, incoming: &mut Incoming, received: &Cell<u64>) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = match poll_once(next_frame(incoming)).await {
                Some(frame) => frame,
                None => {
                    let rate = u64::from(self.options.body_bytes_per_s_min.max(1));
                    let allowed = self.options.body_deadline + Duration::from_secs(received.get() / rate);
                    let left = allowed.saturating_sub(self.started.elapsed());
                    let late = async {
                        Timer::new(left).await;
                        Err(BodyError::Late)
                    };
                    future::or(async { Ok(next_frame(incoming).await) }, late).await?
                }
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(BodyError::Broken(error)),
                Some(Ok(frame)) => {
                    // Trailers carry nothing that we ask for.
                    let Ok(data) = frame.into_data() else { continue };
                    received.set(received.get() + data.len() as u64);
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn next_frame(incoming: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context)).await
}

async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    future::poll_once(future).await
}

/// Through which a producer hands its buffers to the body.
#[derive(Default)]
pub(crate) struct Outlet(RefCell<Option<Bytes>>);

impl Outlet {
    /// Hands over a buffer and waits until it is taken. Needs no waker: the body polls its producer whenever it is
    /// polled itself and holds no buffer.
    pub(crate) async fn send(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        *self.0.borrow_mut() = Some(bytes);
        poll_fn(|_| if self.0.borrow().is_none() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

type Producer = Pin<Box<dyn Future<Output = ()>>>;

enum Content {
    Empty,
    Full(Bytes),
    Produced { outlet: Rc<Outlet>, producer: Option<Producer> },
}

/// The body of an answer.
pub(crate) struct ResponseBody {
    content: Content,
    record: RequestRecord,
}

/// Lives as long as the request and records it at its end.
pub(crate) struct RequestRecord {
    pub(crate) connection: Rc<Connection>,
    pub(crate) metrics: Rc<HttpMetrics>,
    pub(crate) endpoint: Endpoint,
    pub(crate) started: Instant,
    /// 0 until there is an answer.
    pub(crate) status: u16,
    pub(crate) request_bytes: Rc<Cell<u64>>,
    pub(crate) response_bytes: u64,
    /// Its line in the access log.
    pub(crate) entry: Rc<RefCell<Option<Entry>>>,
}

/// The status under which requests are counted whose client went away before there was an answer.
const STATUS_CLIENT_GONE: u16 = 499;

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.connection.end_request();
        let status = if self.status == 0 { STATUS_CLIENT_GONE } else { self.status };
        let latency = self.started.elapsed();
        if let Some(entry) = self.entry.borrow_mut().take() {
            entry.finish(status, self.response_bytes, latency);
        }
        self.metrics.record(RequestFigures {
            endpoint: self.endpoint,
            status,
            latency,
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes,
        });
    }
}

/// What an endpoint gives as its body.
pub(crate) enum Payload {
    Bytes(Vec<u8>),
    Produced { outlet: Rc<Outlet>, producer: Producer },
}

impl ResponseBody {
    pub(crate) fn new(payload: Payload, record: RequestRecord) -> ResponseBody {
        let content = match payload {
            Payload::Bytes(bytes) if bytes.is_empty() => Content::Empty,
            Payload::Bytes(bytes) => Content::Full(bytes.into()),
            Payload::Produced { outlet, producer } => Content::Produced { outlet, producer: Some(producer) },
        };
        ResponseBody { content, record }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let bytes = match &mut this.content {
            Content::Empty => return Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Empty;
                bytes
            }
            Content::Produced { outlet, producer } => {
                if outlet.0.borrow().is_none()
                    && let Some(running) = producer
                    && running.as_mut().poll(context).is_ready()
                {
                    *producer = None;
                }
                let bytes = outlet.0.borrow_mut().take();
                match (bytes, producer) {
                    (Some(bytes), _) => bytes,
                    (None, None) => return Poll::Ready(None),
                    (None, Some(_)) => return Poll::Pending,
                }
            }
        };
        this.record.response_bytes += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Produced { .. } => SizeHint::default(),
        }
    }
}
