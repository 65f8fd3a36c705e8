//! Bodies: what is sent to a node, and what is given to a client.

use crate::pool::Lease;
use crate::server::End;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of a request to a node: whole, so that it can be sent again.
#[derive(Clone, Debug, Default)]
pub struct Outgoing(pub Bytes);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// The body of an answer to a client.
pub struct Answer {
    content: Content,
    /// Called once, with the bytes that were handed over, when the answer has ended or its client is gone.
    ended: Vec<Box<dyn FnOnce(u64)>>,
    sent_bytes: u64,
    /// Lives as long as the answer.
    _end: Option<End>,
}

enum Content {
    Bytes(Bytes),
    /// The body of a node's answer, and the connection that it comes by.
    Passed {
        incoming: Incoming,
        lease: Option<Lease>,
    },
}

impl Answer {
    pub fn of_bytes(bytes: impl Into<Bytes>) -> Answer {
        Answer { content: Content::Bytes(bytes.into()), ended: Vec::new(), sent_bytes: 0, _end: None }
    }

    pub(crate) fn passed(incoming: Incoming, lease: Lease) -> Answer {
        Answer {
            content: Content::Passed { incoming, lease: Some(lease) },
            ended: Vec::new(),
            sent_bytes: 0,
            _end: None,
        }
    }

    /// Calls this when the answer has ended.
    pub fn when_ended(mut self, ended: impl FnOnce(u64) + 'static) -> Answer {
        self.ended.push(Box::new(ended));
        self
    }

    pub(crate) fn holding(mut self, end: End) -> Answer {
        self._end = Some(end);
        self
    }

    /// The whole body.
    ///
    /// # Errors
    /// It is longer than this, or the node's connection broke: the text says which.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Bytes, String> {
        let mut collected = Vec::new();
        loop {
            let frame = std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await;
            match frame {
                None => return Ok(collected.into()),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if collected.len() + data.len() > bytes_max {
                        return Err(format!("an answer of more than {bytes_max} bytes"));
                    }
                    collected.extend_from_slice(&data);
                }
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let polled = match &mut this.content {
            Content::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Passed { incoming, lease } => {
                let polled = Pin::new(incoming).poll_frame(context);
                if let Poll::Ready(None) = polled
                    && let Some(lease) = lease.take()
                {
                    lease.give_back();
                }
                polled
            }
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.sent_bytes += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Bytes(bytes) => bytes.is_empty(),
            // Only at the end of the body its connection is given back.
            Content::Passed { incoming, lease } => lease.is_none() && incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Passed { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // The engine does not ask for the end of a body whose length it knows.
        if let Content::Passed { incoming, lease } = &mut self.content
            && incoming.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
        self.ended.drain(..).for_each(|ended| ended(self.sent_bytes));
    }
}
