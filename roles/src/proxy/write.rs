//! The way of a write through a proxy: dealt to data groups, sent to a node of each, answered when every group has it.
//!
//! Each part carries identities for the partitions that it touches, so that it can be given to one node after the other
//! until one says what became of it, and is stored once (I6).
//! Invariants: a part of which nobody knows anything is sent again only with the identities that it had; what is refused to
//! the client was certainly not stored by this request, or is named as not known; a request is answered after all its
//! parts are settled, so that what comes behind it on its connection does not overtake it.
//! Knows nothing of fields, shard groups and types: the nodes do.

use super::{
    edge::{Edge, end_to_end},
    gather::{Joined, is_joinable},
    nodes::Node,
    parts::{Part, deal},
    verdict::{Claiming, Verdict, claiming, error_text, joined},
};
use crate::{access::proof, data::Outstanding};
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, ORIGIN, RETRY_AFTER,
    },
    http::request,
};
use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tidemill_edge::{Answer, Outgoing, Peer, SendFailure, sleep, spawn, within};
use tidemill_http::{Gunzip, Parameters, X_TIDEMILL_CLAIM, X_TIDEMILL_OUTCOME, X_TIDEMILL_PROOF, X_TIDEMILL_SESSION};
use tidemill_line::{BatchClaim, ParseOptions, PartitionMap, Precision};
use tidemill_raft::NodeId;

/// Bytes of a node's answer to a write.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Between two rounds over the nodes.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// Times that a part is claimed anew: its shard groups may be added to in between.
const CLAIMS_MAX: usize = 4;
/// Nodes that are asked where one is too busy: it may be the node, or the group.
const BUSY_TRIES: usize = 2;
const RETRY_AFTER_S: u32 = 1;

/// What the parts of one request have in common.
struct Call<'a> {
    head: &'a request::Parts,
    headers: HeaderMap,
    peer: &'a Peer,
    secret: &'a str,
    now_ns: i64,
    deadline: Instant,
}

/// How a try with a claim ended.
enum Delivered {
    Settled(Verdict),
    Claim(Claiming),
}

impl Edge {
    /// Answers a write.
    pub(super) async fn write(
        self: &Rc<Self>,
        head: &request::Parts,
        url: &Parameters,
        body: Bytes,
        peer: &Peer,
    ) -> Response<Answer> {
        let whole = |body| self.pass(head, body, peer, false, self.options.write_deadline);
        let (Some(map), Some(lines)) = (self.placed(head, url), self.lines(head, &body)) else {
            return whole(body).await;
        };
        let verdict = match self.target(head, &lines) {
            Some(target) => self.store_together(target, head, url, lines, peer).await,
            None => self.store(head, url, lines, peer, map).await,
        };
        let Some(verdict) = verdict else { return whole(body).await };
        match verdict {
            Verdict::Stored { session } => {
                let mut response = self.own(&head.headers, StatusCode::NO_CONTENT, None, Bytes::new());
                if let Some(Ok(session)) = session.map(HeaderValue::try_from) {
                    response.headers_mut().insert(X_TIDEMILL_SESSION, session);
                }
                response
            }
            Verdict::Told { status, text } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut response = self.refused(head, status, &text);
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
                }
                response
            }
        }
    }

    /// Of a write that may go with others: what they must have in common.
    fn target(&self, head: &request::Parts, lines: &Bytes) -> Option<String> {
        let is_small = lines.len() < self.options.flush_bytes && is_joinable(lines);
        // A session's token is for its own write.
        if !is_small || head.headers.contains_key(X_TIDEMILL_SESSION) {
            return None;
        }
        let caller = head.headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        Some(format!("{}\n{}", head.uri, String::from_utf8_lossy(caller)))
    }

    /// Stores a write together with others of its target that come meanwhile.
    async fn store_together(
        self: &Rc<Self>,
        target: String,
        head: &request::Parts,
        url: &Parameters,
        lines: Bytes,
        peer: &Peer,
    ) -> Option<Verdict> {
        let Joined { load, is_first } = self.gather.join(&target, lines.clone());
        if is_first {
            let (edge, load, head, url, peer) = (self.clone(), load.clone(), head.clone(), url.clone(), peer.clone());
            // On its own, so that it does not end with its first client.
            spawn(async move {
                let under_way = edge.gather.depart(&target, &load, edge.options.flush_bytes).await;
                let stored = match edge.nodes.map() {
                    Some(map) => edge.store(&head, &url, under_way.body.clone(), &peer, map).await,
                    None => None,
                };
                edge.figures.joined.set(edge.figures.joined.get() + load.count() as u64 - 1);
                load.settle(stored);
            });
        }
        let verdict = load.settled().await;
        match &verdict {
            // Whose lines are wrong, and how, each is told for itself; what was stored of them is stored once more, as it is.
            Some(Verdict::Told { status: 400, .. }) | None if load.count() > 1 => {
                let map = self.nodes.map()?;
                self.store(head, url, lines, peer, map).await
            }
            _ => verdict,
        }
    }

    /// Deals lines to data groups and gives each its part. `None`: there is no line.
    async fn store(
        &self,
        head: &request::Parts,
        url: &Parameters,
        lines: Bytes,
        peer: &Peer,
        map: PartitionMap,
    ) -> Option<Verdict> {
        let parts = deal(&mut self.router.borrow_mut(), &lines, map);
        if parts.is_empty() {
            return None;
        }
        let mut headers = end_to_end(&head.headers);
        // Answers are for this proxy, which spells them for its client; the body is no longer packed.
        for name in [ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, ORIGIN] {
            headers.remove(name);
        }
        let now_ns = now_ns();
        let secret = &self.options.shared_secret;
        let deadline = Instant::now() + self.options.write_deadline;
        let call = Call { head, headers, peer, secret, now_ns, deadline };
        let verdicts = all(parts.iter().map(|part| self.settle(&call, part))).await;
        let options = ParseOptions { precision: precision(head, url), now_ns, validate_keys: false };
        Some(joined(verdicts, &lines, &options, url.is_true("unsigned")))
    }

    /// Where series go, if a write to this path can be dealt.
    fn placed(&self, head: &request::Parts, url: &Parameters) -> Option<PartitionMap> {
        let is_lines = matches!(head.uri.path(), "/write" | "/api/v2/write") && head.method == Method::POST;
        // A node that keeps a write for others to take later gives it an identity of its own.
        let may_wait = url.value("consistency").eq_ignore_ascii_case("any");
        if !is_lines || may_wait || self.options.shared_secret.is_empty() {
            return None;
        }
        self.nodes.map()
    }

    /// The body as line protocol; `None`: a node is to say what is wrong with it.
    fn lines(&self, head: &request::Parts, body: &Bytes) -> Option<Bytes> {
        match head.headers.get(CONTENT_ENCODING) {
            Some(coding) if coding == "gzip" => {
                let bytes_max = self.options.http.body_bytes_max;
                let mut gunzip = Gunzip::new(if bytes_max == 0 { usize::MAX - 1 } else { bytes_max });
                gunzip.push(body).ok()?;
                gunzip.finish().ok().map(Bytes::from)
            }
            _ => Some(body.clone()),
        }
    }

    /// Sends a part until it is known what became of it, or the time is over.
    async fn settle(&self, call: &Call<'_>, part: &Part) -> Verdict {
        let mut claim = BatchClaim { now_ns: call.now_ns, ..BatchClaim::default() };
        for _ in 0..CLAIMS_MAX {
            let count = claim.shard_groups.len().max(1) as u64;
            let begin = |partition: &u32| self.senders.begin_several(*partition, self.sender, self.session_ns, count);
            // They are on their way until this is dropped.
            let outstanding: Vec<Outstanding<'_>> = part.partitions.iter().map(begin).collect();
            claim.identities = outstanding.iter().map(|one| (one.partition(), one.identity)).collect();
            match self.deliver(call, part, &claim).await {
                Delivered::Settled(verdict) => return verdict,
                Delivered::Claim(Claiming::Groups(groups)) => claim.shard_groups = groups,
                Delivered::Claim(Claiming::Forgotten(through)) => {
                    part.partitions.iter().for_each(|partition| self.senders.renew(*partition, through));
                    return busy("a partition remembers no proxy that is so old; it begins anew, retry later");
                }
            }
        }
        busy("shard groups are made faster than this write is claimed, retry later")
    }

    /// Gives a part to one node after the other, as the same batches.
    async fn deliver(&self, call: &Call<'_>, part: &Part, claim: &BatchClaim) -> Delivered {
        let told = |status: u16, text: String| Delivered::Settled(Verdict::Told { status, text });
        let unknown = |why: &str| told(500, format!("nobody knows what became of this write: {why}"));
        let text = claim.to_string();
        let proof = proof(call.secret, &text);
        // Why it may be stored although nobody has said so.
        let mut doubt: Option<String> = None;
        let mut why = "no node answers".to_owned();
        let mut busy_tries = 0;
        loop {
            for node in self.nodes.of_group(part.group, &part.partitions) {
                let left = call.deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let request = self.part_request(call, part, &text, &proof);
                let answered = within(left, answered(&node, request)).await;
                let (status, text, response) = match answered {
                    Some(Ok(answered)) => answered,
                    Some(Err(SendFailure::NotSent(failure))) => {
                        why = format!("node {}: {failure}", node.name);
                        continue;
                    }
                    Some(Err(SendFailure::Unknown(failure))) => {
                        doubt = Some(format!("node {}: {failure}", node.name));
                        self.figures.resent.set(self.figures.resent.get() + 1);
                        continue;
                    }
                    None => {
                        doubt = Some(format!("node {}: no answer in time", node.name));
                        break;
                    }
                };
                if status == 204 {
                    let session = response.get(X_TIDEMILL_SESSION).and_then(|token| token.to_str().ok());
                    return Delivered::Settled(Verdict::Stored { session: session.map(str::to_owned) });
                }
                match (claiming(status, &text), &doubt) {
                    (Some(claiming), None) => return Delivered::Claim(claiming),
                    // Then no node has done anything by this claim, whatever became of its answer.
                    (Some(claiming @ Claiming::Groups(_)), _) if claim.shard_groups.is_empty() => {
                        return Delivered::Claim(claiming);
                    }
                    (Some(_), Some(doubt)) => return unknown(&format!("{doubt}; node {}: {text}", node.name)),
                    _ => {}
                }
                if response.contains_key(X_TIDEMILL_OUTCOME) {
                    doubt = Some(text);
                    continue;
                }
                // Too busy now: what was in doubt is still in doubt.
                if status == 503 {
                    busy_tries += 1;
                    if doubt.is_none() && busy_tries >= BUSY_TRIES {
                        return told(status, text);
                    }
                    why = format!("node {}: {text}", node.name);
                    continue;
                }
                return match doubt {
                    // The words of a node that has stored what is to be stored, whoever did it first.
                    Some(doubt) if status != 400 => unknown(&format!("{doubt}; node {}: {text}", node.name)),
                    _ => told(status, text),
                };
            }
            if call.deadline <= Instant::now() + ROUND_PAUSE {
                return match doubt {
                    Some(doubt) => unknown(&format!("{doubt}; {why}")),
                    None => told(503, why),
                };
            }
            sleep(ROUND_PAUSE).await;
        }
    }

    fn part_request(&self, call: &Call<'_>, part: &Part, claim: &str, proof: &str) -> Request<Outgoing> {
        let mut request = self.outgoing(call.head, part.body.clone(), call.peer);
        let headers = request.headers_mut();
        let forwarded = std::mem::replace(headers, call.headers.clone());
        for (name, value) in &forwarded {
            if name.as_str() == "x-forwarded-for" {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in [(X_TIDEMILL_CLAIM, claim), (X_TIDEMILL_PROOF, proof)] {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
        request
    }
}

fn busy(text: &str) -> Verdict {
    Verdict::Told { status: 503, text: text.to_owned() }
}

/// A node's whole answer: status, error text, headers.
async fn answered(node: &Node, request: Request<Outgoing>) -> Result<(u16, String, HeaderMap), SendFailure> {
    let (head, body) = node.send(request).await?.into_parts();
    let status = head.status.as_u16();
    let body = body.collect(ANSWER_BYTES_MAX).await;
    let text = match body {
        Ok(body) => error_text(&body),
        // The status has said what matters.
        Err(why) => why,
    };
    Ok((status, text, head.headers))
}

fn precision(head: &request::Parts, url: &Parameters) -> Precision {
    let word = url.value("precision");
    let known = match head.uri.path() {
        "/write" => Precision::from_v1_name(word),
        _ => Precision::from_v2_name(word),
    };
    known.unwrap_or(Precision::Nanosecond)
}

/// ns since the epoch.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The number of a proxy's thread among those who give identities: above those of nodes, which are small.
pub(super) fn sender_number(random: u64) -> NodeId {
    const TOP: u64 = crate::data::NODE_MAX.div_ceil(2);
    NodeId(TOP | (random % TOP))
}

/// Runs futures beside each other; what they give, in their order.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(move |context| {
        let mut is_done = true;
        for (future, output) in &mut running {
            if output.is_none() {
                match Pin::new(future).poll(context) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => is_done = false,
                }
            }
        }
        match is_done {
            true => Poll::Ready(running.iter_mut().filter_map(|(_, output)| output.take()).collect()),
            false => Poll::Pending,
        }
    })
    .await
}
