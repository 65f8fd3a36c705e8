//! The way of a write: line protocol to partition batches, and those to the logs of their partitions.
//!
//! In order: names (database, policy), admission, parse, retention, shard groups, field types, split, propose, answer.
//! A row is stored or named in the answer with a reason (I4); the answer says "written" after all batches are durable.

pub(crate) mod claimed;
mod field_types;
mod rejection;

use crate::{
    data::{
        budget::{Admission, parsing_bytes},
        core::{DataCore, Held},
        message::{CallError, MetaChangeError},
        series_admission::SeriesRefusal,
    },
    replica::ProposeError,
    subscriber::Lines,
};
use rejection::Rejections;
use std::{collections::BTreeSet, rc::Rc, time::Duration};
use tidemill_http::{Consistency, Refusal, WriteOutcome, WriteRequest};
use tidemill_line::{Batch, ParseOptions, Parsed, PartitionImage, ShardGroupRange, SplitPlan, Splitter};
use tidemill_meta::{Command as MetaCommand, DatabaseId, PolicyId, RetentionPolicy};

/// Parsers that a core keeps between requests, and their part of the budget of parsing.
const PARSERS_KEPT_MAX: usize = 16;
const PARSERS_KEPT_PART: usize = 4;
/// How long a request waits for room to parse.
const PARSING_TRIES: u32 = 6;
const PARSING_PAUSE: Duration = Duration::from_millis(5);
/// Times that a request leaves out new series and tries again. Once is enough but for deletes in between.
const SERIES_TRIES_MAX: usize = 4;
/// What a refused client waits, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// Where the rows of a request go.
struct Destination {
    database: DatabaseId,
    policy: PolicyId,
    /// Rows before this time are beyond retention.
    oldest_ns: i64,
}

/// What became of images: those that hold refused series, and the worst failure of the others.
struct Proposed {
    refused: Vec<((u64, u32), SeriesRefusal)>,
    failure: Option<CallError>,
}

/// Gives its part of the budget back when it is dropped.
struct ParsingCharge {
    held: Rc<Held>,
    bytes: usize,
}

impl Drop for ParsingCharge {
    fn drop(&mut self) {
        self.held.parsing_bytes.set(self.held.parsing_bytes.get() - self.bytes);
    }
}

impl DataCore {
    /// Stores a body of line protocol.
    pub async fn write(self: &Rc<Self>, request: WriteRequest) -> WriteOutcome {
        self.figures.requests.set(self.figures.requests.get() + 1);
        self.figures.body_bytes.set(self.figures.body_bytes.get() + request.body.len() as u64);
        let now_ns = self.context.clock.now_ns();
        let mut destination = self.destination(&request, now_ns);
        // Another node may have made it a moment ago.
        if destination.is_err() && self.has_other_nodes() {
            if let Err(error) = self.catch_up_meta().await {
                // Whether it is there cannot be told: "not found" would have clients drop what they wrote.
                return WriteOutcome::Rejected(Refusal::new(503, error.to_string()));
            }
            destination = self.destination(&request, now_ns);
        }
        let destination = match destination {
            Ok(destination) => destination,
            Err(outcome) => return outcome,
        };
        match self.budget.admit(self.held.rows_bytes()) {
            _ if self.gauge.refuses_writes() => return self.overloaded("the server is at its memory limit"),
            Admission::Now => (),
            Admission::After(ms) => {
                self.figures.slowed.set(self.figures.slowed.get() + 1);
                self.context.sleep(Duration::from_millis(ms)).await;
            }
            Admission::Refused => {
                return self.overloaded("the memory budget of rows that are in no file yet is used up");
            }
        }
        let _charge = match self.charge_parsing(&request.body).await {
            Ok(charge) => charge,
            Err(outcome) => return outcome,
        };
        let (mut batch, mut splitter) = self.take_parser();
        batch.take_unsigned(request.target.unsigned);
        // The parts of one request have one time, whoever stores them.
        let now_ns = request.target.claim.as_ref().map_or(now_ns, |claim| claim.now_ns);
        let options = ParseOptions { precision: request.target.precision, now_ns, validate_keys: false };
        let started = self.context.clock.monotonic_ns();
        let outcome = match batch.parse(&request.body, &options) {
            Ok(parsed) => {
                self.figures.parse.record(self.context.clock.monotonic_ns() - started);
                self.store(parsed, &mut splitter, &destination, &request).await
            }
            Err(error) => WriteOutcome::Rejected(Refusal::new(413, error.to_string())),
        };
        self.keep_parser(batch, splitter);
        self.figures.request.record(self.context.clock.monotonic_ns() - started);
        outcome
    }

    fn overloaded(&self, why: &str) -> WriteOutcome {
        self.figures.refused.set(self.figures.refused.get() + 1);
        WriteOutcome::Overloaded { why: format!("{why}, retry later"), retry_after_s: RETRY_AFTER_S }
    }

    /// The body's part of the budget of parsing, until its request ends.
    async fn charge_parsing(&self, body: &[u8]) -> Result<ParsingCharge, WriteOutcome> {
        let (bytes, bytes_max) = (parsing_bytes(body), self.budget.parsing_bytes_max);
        if bytes > bytes_max {
            let why = format!(
                "a body of {} bytes takes {bytes} bytes while it is parsed, more than the memory budget of {bytes_max} \
                 bytes: send smaller bodies",
                body.len()
            );
            return Err(WriteOutcome::Rejected(Refusal::new(413, why)));
        }
        let held = &self.held;
        // A little too much load waits for others to end, far too much is refused.
        for _ in 0..=PARSING_TRIES {
            let room = bytes_max.saturating_sub(held.parsing_bytes.get());
            if bytes + held.parsers_bytes.get() > room {
                self.parsers.borrow_mut().clear();
                held.parsers_bytes.set(0);
            }
            if bytes <= room {
                held.parsing_bytes.set(held.parsing_bytes.get() + bytes);
                return Ok(ParsingCharge { held: held.clone(), bytes });
            }
            self.context.sleep(PARSING_PAUSE).await;
        }
        Err(self.overloaded("the memory budget of parsing is used up"))
    }

    fn take_parser(&self) -> (Batch, Splitter) {
        match self.parsers.borrow_mut().pop() {
            Some((batch, splitter)) => {
                let held = &self.held.parsers_bytes;
                held.set(held.get() - batch.byte_size());
                (batch, splitter)
            }
            None => (Batch::new(self.context.seed.random_u64()), Splitter::new()),
        }
    }

    fn keep_parser(&self, mut batch: Batch, splitter: Splitter) {
        let mut parsers = self.parsers.borrow_mut();
        batch.clear();
        let held = &self.held.parsers_bytes;
        let kept = held.get() + batch.byte_size();
        if parsers.len() < PARSERS_KEPT_MAX && kept <= self.budget.parsing_bytes_max / PARSERS_KEPT_PART {
            held.set(kept);
            parsers.push((batch, splitter));
        }
    }

    fn destination(&self, request: &WriteRequest, now_ns: i64) -> Result<Destination, WriteOutcome> {
        let meta = self.meta();
        let target = &request.target;
        let database = meta.database(&target.database);
        let database = database.ok_or_else(|| WriteOutcome::DatabaseNotFound(target.database.clone()))?;
        let policy = database.policy(target.retention_policy.as_deref()).ok_or_else(|| {
            let name = target.retention_policy.as_deref().unwrap_or(&database.default_policy);
            WriteOutcome::Rejected(Refusal::new(500, format!("retention policy not found: {name}")))
        })?;
        let oldest_ns = match policy.duration_ns {
            0 => i64::MIN,
            duration => now_ns.saturating_sub(duration),
        };
        Ok(Destination { database: database.id, policy: policy.id, oldest_ns })
    }

    async fn store(
        self: &Rc<Self>,
        parsed: Parsed<'_>,
        splitter: &mut Splitter,
        destination: &Destination,
        request: &WriteRequest,
    ) -> WriteOutcome {
        let _typed = self.typed_writes.begin();
        let mut rejections = Rejections::of(&parsed);
        let Some((min_ns, max_ns)) = parsed.time_range() else { return rejections.outcome(&parsed) };
        if min_ns < destination.oldest_ns {
            rejections.retire(&parsed, destination.oldest_ns);
        }
        let groups = match self.shard_groups(destination, &parsed, (min_ns, max_ns), &rejections).await {
            Ok(groups) => groups,
            Err(outcome) => return outcome,
        };
        if let Err(outcome) = self.settle_types(&parsed, &groups, &mut rejections).await {
            return outcome;
        }
        rejections.refuse_separators(&parsed);
        let plan = SplitPlan {
            database: destination.database.0,
            retention_policy: destination.policy.0,
            shard_groups: &groups,
            partitions: self.partition_map,
            session: 0,
            sequence: 0,
        };
        // Images whose new series were refused come again without them; `None`: all images go.
        let mut left: Option<BTreeSet<(u64, u32)>> = None;
        let mut touched = BTreeSet::new();
        for _ in 0..SERIES_TRIES_MAX {
            let started = self.context.clock.monotonic_ns();
            let mut images = match splitter.split(&parsed, &plan, |row, _| rejections.keeps(row)) {
                Ok(images) => images,
                Err(error) => return WriteOutcome::Rejected(Refusal::new(400, error.to_string())),
            };
            if let Some(left) = &left {
                images.retain(|image| left.contains(&(image.shard_group, image.partition)));
            }
            self.figures.split.record(self.context.clock.monotonic_ns() - started);
            if let Some(claim) = &request.target.claim
                && let Err(refusal) = claimed::stamp(claim, &mut images, &groups, (min_ns, max_ns))
            {
                return WriteOutcome::Rejected(refusal);
            }
            touched.extend(images.iter().map(|image| image.partition));
            let Proposed { refused, failure } =
                self.propose_all(images, request.target.consistency == Consistency::Any).await;
            if let Some(error) = failure {
                return match (&request.target.claim, error) {
                    (Some(_), CallError::Forgotten { through }) => WriteOutcome::Rejected(claimed::forgotten(through)),
                    (_, error) => self.failed(error),
                };
            }
            if refused.is_empty() {
                self.publish(&parsed, &rejections, destination, &request.target.database);
                if request.target.consistency == Consistency::All
                    && let Err(error) = self.await_all(&touched).await
                {
                    return WriteOutcome::NotEverywhere(format!("partial write: stored by a majority, but {error}"));
                }
                let outcome = rejections.outcome(&parsed);
                return match (&request.target.session, outcome) {
                    (Some(session), WriteOutcome::Written) => self.written_in_session(session, &touched).await,
                    (_, outcome) => outcome,
                };
            }
            left = Some(refused.iter().map(|(place, _)| *place).collect());
            for (_, SeriesRefusal { why, series }) in refused {
                let hash = |row: &tidemill_line::Row| parsed.series(row.series).hash;
                rejections.refuse(&parsed, &why, |row| series.binary_search(&hash(row)).is_ok());
            }
        }
        self.overloaded("series of this request are dropped and written at the same time")
    }

    /// Gives the rows that were stored to whoever has subscribed to them.
    fn publish(&self, parsed: &Parsed<'_>, rejections: &Rejections, destination: &Destination, database: &str) {
        let policy = {
            let meta = self.meta();
            let known = meta.database_by_id(destination.database);
            let policy = known.and_then(|known| known.policies.iter().find(|policy| policy.id == destination.policy));
            policy.filter(|policy| !policy.subscriptions.is_empty()).map(|policy| policy.name.clone())
        };
        if let Some(policy) = policy.filter(|policy| self.subscribers.is_wanted(database, policy)) {
            self.subscribers.offer(database, &policy, Lines::of(parsed, |row| rejections.keeps(row)));
        }
    }

    /// Proposes images; returns once the fate of each is known.
    async fn propose_all(self: &Rc<Self>, images: Vec<PartitionImage>, may_queue: bool) -> Proposed {
        let started = self.context.clock.monotonic_ns();
        let proposals: Vec<_> = images
            .into_iter()
            .map(|image| {
                let place = (image.shard_group, image.partition);
                (place, image.row_count, self.propose(image.partition, image.bytes, may_queue))
            })
            .collect();
        let mut proposed = Proposed { refused: Vec::new(), failure: None };
        for (place, rows, proposal) in proposals {
            // The worst outcome is the answer: what nobody knows is worse than what was refused.
            match proposal.await {
                Ok(()) => self.figures.rows.set(self.figures.rows.get() + u64::from(rows)),
                Err(CallError::NewSeries(refusal)) => proposed.refused.push((place, refusal)),
                Err(error @ CallError::Unknown(_)) => proposed.failure = Some(error),
                Err(error) => proposed.failure = proposed.failure.or(Some(error)),
            }
        }
        self.figures.commit.record(self.context.clock.monotonic_ns() - started);
        proposed
    }

    fn failed(&self, error: CallError) -> WriteOutcome {
        match error {
            CallError::Refused(ProposeError::Busy(why)) => self.overloaded(why),
            CallError::Refused(error @ (ProposeError::NotLeader(_) | ProposeError::Overtaken)) => {
                self.overloaded(&error.to_string())
            }
            CallError::Refused(ProposeError::DiskFull) => WriteOutcome::DiskFull,
            CallError::Refused(ProposeError::TooLarge(text)) => WriteOutcome::Rejected(Refusal::new(413, text)),
            CallError::Refused(ProposeError::Stopped(text)) => WriteOutcome::Rejected(Refusal::new(500, text)),
            CallError::NewSeries(refusal) => WriteOutcome::PartialWrite(refusal.to_string()),
            error @ CallError::Forgotten { .. } => self.overloaded(&error.to_string()),
            CallError::Unknown(text) => WriteOutcome::Unknown(text),
        }
    }

    fn meta_failed(&self, error: MetaChangeError) -> WriteOutcome {
        match error {
            MetaChangeError::Meta(error) => WriteOutcome::Rejected(Refusal::new(500, error.to_string())),
            MetaChangeError::Call(error) => self.failed(error),
        }
    }

    /// The groups that the kept rows fall into, made where they are missing, in ascending time.
    async fn shard_groups(
        self: &Rc<Self>,
        destination: &Destination,
        parsed: &Parsed<'_>,
        range: (i64, i64),
        rejections: &Rejections,
    ) -> Result<Vec<ShardGroupRange>, WriteOutcome> {
        for _ in 0..2 {
            let missing = {
                let meta = self.meta();
                let policy = meta.database_by_id(destination.database);
                let policy = policy.and_then(|known| known.policies.iter().find(|p| p.id == destination.policy));
                let policy = policy.ok_or_else(dropped_meanwhile)?;
                if let Some(group) = policy.group_at(range.0).filter(|group| range.1 < group.end_ns) {
                    // The common case: all rows in one group.
                    return Ok(vec![ShardGroupRange { id: group.id.0, start: group.start_ns, end: group.end_ns }]);
                }
                let missing = missing_times(policy, parsed, rejections);
                if missing.is_empty() {
                    let groups = policy.groups_in(range.0, range.1);
                    let range = |group: &tidemill_meta::ShardGroup| ShardGroupRange {
                        id: group.id.0,
                        start: group.start_ns,
                        end: group.end_ns,
                    };
                    return Ok(groups.map(range).collect());
                }
                missing
            };
            let command = MetaCommand::CreateShardGroups {
                database: destination.database,
                policy: destination.policy,
                times_ns: missing,
            };
            self.change_meta_surely(command).await.map_err(|error| self.meta_failed(error))?;
        }
        Err(dropped_meanwhile())
    }
}

/// Times of kept rows that no group holds, one a window.
fn missing_times(policy: &RetentionPolicy, parsed: &Parsed<'_>, rejections: &Rejections) -> Vec<i64> {
    let mut times: Vec<i64> = parsed
        .rows()
        .iter()
        .enumerate()
        .filter(|(row, _)| rejections.keeps(*row))
        .map(|(_, row)| row.time)
        .filter(|time| policy.group_at(*time).is_none())
        .collect();
    times.sort_unstable();
    times.dedup_by_key(|time| policy.range_for(*time));
    times
}

fn dropped_meanwhile() -> WriteOutcome {
    WriteOutcome::Rejected(Refusal::new(404, "the database or its retention policy was dropped meanwhile"))
}
