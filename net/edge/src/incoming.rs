//! Bodies of requests, read whole within their limits.

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tidemill_http::Options;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFailure {
    #[error("Request Entity Too Large")]
    TooLarge,
    #[error("the request body did not come in time")]
    Late,
    /// The bodies that are worked on take all memory that they may.
    #[error("the memory budget of request bodies is used up, retry later")]
    NoRoom,
    /// The connection is of no more use.
    #[error("{0}")]
    Broken(String),
}

/// A declared length is believed up to here.
const DECLARED_BYTES_BELIEVED_MAX: u64 = 4 << 20;

/// Reads a whole body as it was sent. `charge` is told of bytes before they are kept, and may refuse them.
///
/// # Errors
/// It is larger than `options.body_bytes_max`, too slow, or broken, or there is no room for it.
pub async fn read_body(
    mut incoming: Incoming,
    options: &Options,
    mut charge: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyFailure> {
    let bytes_max = if options.body_bytes_max == 0 { usize::MAX } else { options.body_bytes_max };
    let declared = incoming.size_hint().exact().unwrap_or(0);
    if declared > bytes_max as u64 {
        return Err(BodyFailure::TooLarge);
    }
    let started = Instant::now();
    let mut body = Vec::new();
    let mut only = None::<Bytes>;
    loop {
        let rate = u64::from(options.body_bytes_per_s_min.max(1));
        let allowed = options.body_deadline + Duration::from_secs(body.len() as u64 / rate);
        let left = allowed.saturating_sub(started.elapsed());
        let next = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context));
        let frame = match crate::within(left, next).await {
            None => return Err(BodyFailure::Late),
            Some(None) => break,
            Some(Some(Err(error))) => return Err(BodyFailure::Broken(error.to_string())),
            Some(Some(Ok(frame))) => frame,
        };
        // Trailers carry nothing that is asked for.
        let Ok(data) = frame.into_data() else { continue };
        if body.len() + only.as_ref().map_or(0, Bytes::len) + data.len() > bytes_max {
            return Err(BodyFailure::TooLarge);
        }
        if !charge(data.len()) {
            return Err(BodyFailure::NoRoom);
        }
        // Most bodies of queries come in one piece, which needs no copy.
        match only.take() {
            None if body.is_empty() => only = Some(data),
            first => {
                if body.is_empty() {
                    body.reserve(declared.min(DECLARED_BYTES_BELIEVED_MAX) as usize);
                }
                body.extend_from_slice(&first.unwrap_or_default());
                body.extend_from_slice(&data);
            }
        }
    }
    Ok(only.unwrap_or_else(|| body.into()))
}
