//! `/snapshots`: what a backup takes away.
//!
//! `POST /snapshots` makes one and answers with its name and the list of its files; `GET /snapshots/NAME/PATH?offset=N`
//! gives the bytes of a file; `DELETE /snapshots/NAME` lets it go. Ours alone, so there is no upstream to be like.
//! An answer that ends early is told from a whole one by the length that the list says.

use crate::body::{Outlet, Payload};
use crate::parameters::Parameters;
use crate::reply::{Reply, Spelling};
use crate::service::{ByteSource, Caller, Service, SnapshotOutcome, SnapshotRequest};
use hyper::{Method, StatusCode};
use std::rc::Rc;

pub(crate) const PATH: &str = "/snapshots";
/// What stands before the name of a snapshot.
pub(crate) const PREFIX: &str = "/snapshots/";

pub(crate) async fn snapshot<S: Service>(
    service: &S,
    spelling: Spelling<'_>,
    caller: &Caller,
    method: &Method,
    path: &str,
    url: &Parameters,
) -> Reply {
    if let Err(refusal) = service.admit_to_insides(caller) {
        return Reply::refusal(spelling, &refusal);
    }
    let Some(request) = request(method, path, url) else {
        return Reply::error(spelling, StatusCode::BAD_REQUEST, "POST /snapshots, GET or DELETE /snapshots/NAME/...");
    };
    match service.snapshot(request).await {
        Ok(SnapshotOutcome::Taken(json)) => Reply::of_type(StatusCode::CREATED, "application/json", json),
        Ok(SnapshotOutcome::Dropped) => Reply::empty(StatusCode::NO_CONTENT),
        Ok(SnapshotOutcome::Bytes(source)) => {
            let outlet = Rc::new(Outlet::default());
            let producer = Box::pin(pass_on(source, outlet.clone()));
            let mut reply = Reply::new(StatusCode::OK, Payload::Produced { outlet, producer });
            reply.content_type = Some("application/octet-stream");
            reply
        }
        Err(refusal) => Reply::refusal(spelling, &refusal),
    }
}

fn request(method: &Method, path: &str, url: &Parameters) -> Option<SnapshotRequest> {
    if path == PATH {
        return (*method == Method::POST).then_some(SnapshotRequest::Take);
    }
    let below = path.strip_prefix(PREFIX)?;
    match (method, below.split_once('/')) {
        (&Method::DELETE, None) => Some(SnapshotRequest::Drop { name: below.to_owned() }),
        (&Method::GET, Some((name, file))) => {
            let offset = match url.value("offset") {
                "" => 0,
                text => text.parse().ok()?,
            };
            Some(SnapshotRequest::Read { name: name.to_owned(), path: file.to_owned(), offset })
        }
        _ => None,
    }
}

async fn pass_on(mut source: Box<dyn ByteSource>, outlet: Rc<Outlet>) {
    while let Some(bytes) = source.next().await {
        outlet.send(bytes.into()).await;
    }
}
