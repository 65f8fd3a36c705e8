//! The first reading of a log: what is there, where it ends, and whether to go on from it.
//!
//! Reads all that is needed, verifies every checksum and every chain before a single record is handed out, and decides
//! by the table of [`crate::decision`]. Changes nothing before it has decided to go on.

use crate::{
    LogMetrics, LogOptions, OpenError, Record,
    append::Pending,
    decision::{Decision, Finding},
    format::{
        commit::CommitHeader,
        segment_header::{HeaderError, SegmentHeader},
    },
    groups::{Discontinuity, Group, Groups, Held},
    log::State,
    range::FramePlace,
    recovery::{Cut, ReadRange, Replaced, Surviving, each_record},
    segment::{FIRST_COMMIT, Look, Named, Segment, SegmentReader, make, parse_name, path_in, segment_name, spare_name},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    rc::Rc,
};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose};
use tidemill_raft::{GroupId, LogIndex};

pub(crate) struct Survey<D: Disk> {
    pub log_id: u64,
    pub state: State<D>,
    pub read: Surviving<D::File>,
    /// Number of the newest commit.
    pub tail_number: u64,
}

/// A file under a segment's name.
struct Found<F> {
    sequence: u64,
    file: Rc<F>,
    header: Result<SegmentHeader, Finding>,
}

/// The newest commit that counts.
#[derive(Clone, Copy)]
struct Tail {
    header: CommitHeader,
    crc: u32,
    /// Which of the found segments holds it, and where.
    at: usize,
    offset: u64,
}

/// Entries are missing from `next` on. That is no loss if a later entry replaces `next` and so all behind it: the
/// missing ones were replaced, too, and their segment was given up for it.
struct Gap {
    next: LogIndex,
    sequence: u64,
    offset: u64,
    wrong: Discontinuity,
}

/// What the walk over the commits gathers.
struct Walk<'a, F> {
    from: &'a dyn Fn(GroupId) -> LogIndex,
    groups: Groups,
    held: Vec<Held>,
    replaced: Replaced,
    ordinal: u64,
    tail: Option<Tail>,
    ranges: VecDeque<ReadRange<F>>,
    cut: Option<Cut>,
    /// Groups with entries missing before what is there, so far.
    gaps: BTreeMap<GroupId, Gap>,
    /// Segment being filled and where to go on in it.
    filling: usize,
    end: u64,
}

pub(crate) async fn survey<D: Disk>(
    disk: &D,
    folder: &str,
    options: &LogOptions,
    from: &dyn Fn(GroupId) -> LogIndex,
) -> Result<Survey<D>, OpenError> {
    let io = |doing: &str| {
        let doing = format!("{doing} {folder}");
        move |source| OpenError::Io { doing, source }
    };
    disk.create_dir(folder).await.map_err(io("making the log folder"))?;
    let names = disk.list(folder).await.map_err(io("listing the log folder"))?;
    let of_kind = |kind: Named| names.iter().filter(move |name| parse_name(name) == kind);
    let sequences: Vec<u64> = names
        .iter()
        .filter_map(|name| match parse_name(name) {
            Named::Segment(sequence) => Some(sequence),
            _ => None,
        })
        .collect();
    let mut found = open_segments(disk, folder, &sequences).await?;
    let log_id = log_id_of(folder, &found)?.unwrap_or(options.new_log_id);
    let first = check_sequence(folder, &found)?;
    let mut walk = Walk {
        from,
        groups: Groups::new(),
        held: found.iter().map(|_| Held::default()).collect(),
        replaced: Replaced::default(),
        ordinal: 0,
        tail: None,
        ranges: VecDeque::new(),
        cut: None,
        gaps: BTreeMap::new(),
        filling: first,
        end: FIRST_COMMIT,
    };
    if !found.is_empty() {
        walk.run(folder, &found, first, log_id).await?;
        walk.check_oldest(folder, &found, first)?;
        walk.check_gaps(folder)?;
    }

    // Decided to go on: from here the folder is changed.
    for name in of_kind(Named::Unfinished) {
        disk.remove(&path_in(folder, name)).await.map_err(io("removing an unfinished segment in"))?;
    }
    let mut spares: Vec<String> = Vec::new();
    for name in of_kind(Named::Spare) {
        if is_spare(disk, folder, name, options).await.map_err(io("reading a spare segment in"))? {
            spares.push(name.clone());
        } else {
            disk.remove(&path_in(folder, name)).await.map_err(io("removing a spare segment in"))?;
        }
    }
    if let Some(tail) = walk.tail {
        rewrite(&found[tail.at], tail).await.map_err(io("writing the last commit again in"))?;
    }
    let oldest = walk.tail.map_or(1, |tail| tail.header.oldest);
    let mut state = State {
        live: VecDeque::new(),
        ready: VecDeque::new(),
        retired: VecDeque::new(),
        spares,
        pending: Pending::new(walk.end, walk.tail.map_or(1, |tail| tail.header.number + 1)),
        groups: walk.groups,
        oldest,
        durable_sequence: 0,
        durable_end: walk.end,
        previous_crc: walk.tail.map_or(0, |tail| tail.crc),
        unsettled: walk.tail.is_some_and(|tail| tail.header.frames > 0),
        settle_wanted: false,
        closed: false,
        stopped: false,
        poison: None,
        full: None,
        retry_after: 0,
        metrics: LogMetrics::default(),
    };
    if found.is_empty() {
        let segment_bytes = options.next_segment_bytes(None);
        let header = SegmentHeader { log_id, sequence: 1, segment_bytes };
        let file = make(disk, folder, header).await.map_err(io("making the first segment in"))?;
        found.push(Found { sequence: 1, file: Rc::new(file), header: Ok(header) });
        walk.held.push(Held::default());
    }
    let mut unusable = false;
    for (at, (Found { sequence, file, header }, held)) in found.into_iter().zip(walk.held).enumerate() {
        // Behind the end and damaged: nothing was ever committed into it, nor into those behind it, whose numbers would
        // leave a gap without it. Their headers are written anew before they are used.
        unusable |= header.is_err() && at > walk.filling;
        let Some(header) = header.ok().filter(|_| !unusable) else {
            let (from, to) = (path_in(folder, &segment_name(sequence)), path_in(folder, &spare_name(sequence)));
            if file.len().await.map_err(io("reading an unused segment in"))? == options.segment_bytes {
                disk.rename(&from, &to).await.map_err(io("putting an unused segment aside in"))?;
                state.spares.push(spare_name(sequence));
            } else {
                disk.remove(&from).await.map_err(io("removing an unused segment in"))?;
            }
            continue;
        };
        let segment = Segment { sequence, bytes: header.segment_bytes, file, held };
        if sequence < oldest {
            state.retired.push_back(segment);
        } else if at <= walk.filling {
            state.live.push_back(segment);
        } else {
            state.ready.push_back(segment);
        }
    }
    disk.sync_dir(folder).await.map_err(io("syncing the log folder"))?;
    state.durable_sequence = state.live.back().map_or(1, |segment| segment.sequence);
    let released: BTreeMap<GroupId, LogIndex> =
        state.groups.iter().map(|(group, known)| (*group, known.released)).collect();
    let read = Surviving { ranges: walk.ranges, released, replaced: walk.replaced, cut: walk.cut };
    Ok(Survey { log_id, state, read, tail_number: walk.tail.map_or(0, |tail| tail.header.number) })
}

fn refuse(finding: Finding, folder: &str, sequence: u64, offset: u64, detail: String) -> OpenError {
    assert!(finding.decision() == Decision::Refuse, "the table decides otherwise about a {finding}");
    OpenError::Refused { finding, file: path_in(folder, &segment_name(sequence)), offset, detail }
}

async fn open_segments<D: Disk>(disk: &D, folder: &str, sequences: &[u64]) -> Result<Vec<Found<D::File>>, OpenError> {
    let mut found = Vec::with_capacity(sequences.len());
    for sequence in sequences.iter().copied() {
        let path = path_in(folder, &segment_name(sequence));
        let io = |source| OpenError::Io { doing: format!("opening {path}"), source };
        let file = disk.open(&path, Purpose::Log).await.map_err(io)?;
        let len = file.len().await.map_err(io)?;
        let block = file.read_at(0, BLOCK_BYTES).await.map_err(io)?;
        let header = match SegmentHeader::decode(block.as_ref()) {
            Ok(header) if header.sequence != sequence => {
                let detail = format!("its header says {:x}", header.sequence);
                return Err(refuse(Finding::MisnamedSegment, folder, sequence, 0, detail));
            }
            Ok(header) if len < header.segment_bytes => {
                let detail = format!("{len} of {} bytes", header.segment_bytes);
                return Err(refuse(Finding::ShortSegment, folder, sequence, len, detail));
            }
            Ok(header) => Ok(header),
            Err(HeaderError::Version(version)) => {
                let detail = format!("version {version}");
                return Err(refuse(Finding::UnknownVersion, folder, sequence, 0, detail));
            }
            Err(HeaderError::Damaged) => Err(Finding::DamagedHeader),
        };
        found.push(Found { sequence, file: Rc::new(file), header });
    }
    Ok(found)
}

/// The id that all segments agree on.
fn log_id_of<F>(folder: &str, found: &[Found<F>]) -> Result<Option<u64>, OpenError> {
    let mut id = None;
    for Found { sequence, header, .. } in found {
        let Ok(header) = header else { continue };
        let known = *id.get_or_insert(header.log_id);
        if header.log_id != known {
            let detail = format!("log {:016x} among segments of {known:016x}", header.log_id);
            return Err(refuse(Finding::ForeignLog, folder, *sequence, 0, detail));
        }
    }
    Ok(id)
}

/// The first of the segments that follow each other up to the newest one. Older ones may remain from before a crash;
/// whether one is missing that is needed, the newest commit says.
fn check_sequence<F>(folder: &str, found: &[Found<F>]) -> Result<usize, OpenError> {
    let mut first = found.len().saturating_sub(1);
    while first > 0 && found[first - 1].sequence + 1 == found[first].sequence {
        first -= 1;
    }
    // A damaged header at the very start: nothing tells what the segment was.
    if let Some(Found { sequence, header: Err(finding), .. }) = found.get(first) {
        return Err(refuse(*finding, folder, *sequence, 0, "its checksum is wrong".to_owned()));
    }
    Ok(first)
}

async fn is_spare<D: Disk>(disk: &D, folder: &str, name: &str, options: &LogOptions) -> io::Result<bool> {
    let file = disk.open(&path_in(folder, name), Purpose::Log).await?;
    let len = file.len().await?;
    file.close().await?;
    Ok(len == options.segment_bytes)
}

/// The sync of the last commit may have failed before the restart, and a second sync would not say so: only a new write
/// brings its bytes to the device for certain.
async fn rewrite<F: DiskFile>(found: &Found<F>, tail: Tail) -> io::Result<()> {
    let buf = found.file.read_at(tail.offset, tail.header.commit_bytes()).await?;
    found.file.write_at(buf, tail.offset).await?;
    found.file.sync_data().await
}

impl<F: DiskFile> Walk<'_, F> {
    /// From the first segment to the end of the log.
    async fn run(&mut self, folder: &str, found: &[Found<F>], first: usize, log_id: u64) -> Result<(), OpenError> {
        for (at, segment) in found.iter().enumerate().skip(first) {
            let header = match segment.header {
                Ok(header) => header,
                Err(finding) => {
                    let detail = "its checksum is wrong, and the segment before it is sealed".to_owned();
                    return Err(refuse(finding, folder, segment.sequence, 0, detail));
                }
            };
            let mut reader = SegmentReader::new(segment.file.clone(), header.segment_bytes);
            self.filling = at;
            if self.segment(folder, segment, at, &mut reader, log_id).await? {
                if found.get(at + 1).is_none() {
                    let detail = format!("segment {:x} is sealed, so there was a next one", segment.sequence);
                    return Err(refuse(Finding::MissingSegment, folder, segment.sequence + 1, 0, detail));
                }
                continue;
            }
            return self.prove_end(folder, found, at, &mut reader, log_id).await;
        }
        Ok(())
    }

    /// Takes in the commits of one segment. `true`: it is sealed.
    async fn segment(
        &mut self,
        folder: &str,
        segment: &Found<F>,
        at: usize,
        reader: &mut SegmentReader<F>,
        log_id: u64,
    ) -> Result<bool, OpenError> {
        let sequence = segment.sequence;
        let mut offset = FIRST_COMMIT;
        let mut sealed = false;
        while !sealed {
            let io =
                |source| OpenError::Io { doing: format!("reading {} at {offset}", segment_name(sequence)), source };
            let Look::Commit(header, crc) = reader.look(offset, log_id, sequence).await.map_err(io)? else { break };
            let follows = match self.tail {
                Some(tail) => header.number == tail.header.number + 1 && header.previous_crc == tail.crc,
                // The one before the first may be gone with its segment.
                None => sequence != 1 || (header.number == 1 && header.previous_crc == 0),
            };
            if !follows {
                let expected = self.tail.map_or(1, |tail| tail.header.number + 1);
                let detail = format!("commit {} where {expected} follows", header.number);
                return Err(refuse(Finding::BrokenChain, folder, sequence, offset, detail));
            }
            let bytes = reader.bytes(offset, header.commit_bytes()).await.map_err(io)?;
            let begun = self.ordinal;
            let place = |ordinal: u64| FramePlace { sequence, offset, frame: (ordinal - begun) as u32 };
            each_record(&header, bytes, |record| self.record(record, place(self.ordinal), at))
                .map_err(|wrong| refuse(wrong.finding, folder, sequence, offset, wrong.detail))?;
            self.tail = Some(Tail { header, crc, at, offset });
            sealed = header.sealed;
            offset += header.commit_bytes() as u64;
        }
        self.end = if sealed { FIRST_COMMIT } else { offset };
        self.ranges.push_back(ReadRange { sequence, file: segment.file.clone(), from: FIRST_COMMIT, until: offset });
        Ok(sealed)
    }

    fn record(&mut self, record: Record<'_>, place: FramePlace, at: usize) -> Result<(), Discontinuity> {
        let FramePlace { sequence, offset, .. } = place;
        let from = self.from;
        let id = record.group();
        let group = self.groups.entry(id).or_insert_with(|| Group { released: from(id), ..Group::default() });
        // A group that does not concern the caller may have gone on in another log.
        if group.released < LogIndex(u64::MAX) {
            let index = match record {
                Record::Entry { index, .. } => index,
                Record::HardState { .. } => LogIndex(u64::MAX),
            };
            if self.gaps.get(&id).is_some_and(|gap| index <= gap.next) {
                self.gaps.remove(&id);
            }
            match group.check(&record) {
                Ok(()) => {}
                Err(wrong) if wrong.finding == Finding::IndexGap && index > LogIndex(0) => {
                    let next = group.highest().next();
                    self.gaps.entry(id).or_insert(Gap { next, sequence, offset, wrong });
                }
                Err(wrong) => return Err(wrong),
            }
        }
        let replaces = group.note(&record, place);
        if let Record::Entry { group, index, .. } = record {
            if replaces {
                self.replaced.note(group, self.ordinal, index);
                self.held.iter_mut().for_each(|held| held.replaced_from(group, index));
            }
            self.held[at].note(group, index);
        }
        self.ordinal += 1;
        Ok(())
    }

    fn check_gaps(&mut self, folder: &str) -> Result<(), OpenError> {
        match self.gaps.pop_first() {
            Some((_, Gap { sequence, offset, wrong, .. })) => {
                Err(refuse(wrong.finding, folder, sequence, offset, wrong.detail))
            }
            None => Ok(()),
        }
    }

    /// The commits end in this segment. Whether nothing of the log lies behind is what tells a torn end from damage.
    async fn prove_end(
        &mut self,
        folder: &str,
        found: &[Found<F>],
        at: usize,
        reader: &mut SegmentReader<F>,
        log_id: u64,
    ) -> Result<(), OpenError> {
        let sequence = found[at].sequence;
        let end = self.end;
        let io = |source| OpenError::Io { doing: format!("reading {} from {end}", segment_name(sequence)), source };
        let look = reader.look(end, log_id, sequence).await.map_err(io)?;
        let behind = end + BLOCK_BYTES as u64;
        if let Some(later) = reader.find_commit(behind, log_id, sequence).await.map_err(io)? {
            let detail = format!("a whole commit follows at offset {later}");
            return Err(refuse(Finding::DamageInside, folder, sequence, end, detail));
        }
        for later in &found[at + 1..] {
            let bytes = match later.header {
                Ok(header) => header.segment_bytes,
                Err(_) => later.file.len().await.map_err(io)? / BLOCK_BYTES as u64 * BLOCK_BYTES as u64,
            };
            let mut reader = SegmentReader::new(later.file.clone(), bytes);
            if let Some(offset) = reader.find_commit(FIRST_COMMIT, log_id, later.sequence).await.map_err(io)? {
                if let Err(finding) = later.header {
                    let detail = format!("its checksum is wrong, and a whole commit is at offset {offset}");
                    return Err(refuse(finding, folder, later.sequence, 0, detail));
                }
                let detail = format!("not sealed, and a whole commit follows in {}", segment_name(later.sequence));
                return Err(refuse(Finding::DamageInside, folder, sequence, end, detail));
            }
        }
        if let Look::Broken(bytes) = look {
            let file = path_in(folder, &segment_name(sequence));
            tracing::warn!(file, offset = end, bytes, "cut a torn commit off the end of the log: nothing follows it");
            self.cut = Some(Cut { file, offset: end, bytes: bytes as u64 });
        }
        Ok(())
    }

    /// Whether all that the newest commit needs is there.
    fn check_oldest(&self, folder: &str, found: &[Found<F>], first: usize) -> Result<(), OpenError> {
        let there = found[first].sequence;
        let missing = match self.tail {
            Some(tail) => (tail.header.oldest < there).then_some((there - 1, tail.header.oldest)),
            // The first segment of a log is 1, and a later one is made only behind commits.
            None => (there != 1).then_some((there - 1, 1)),
        };
        let Some((missing, oldest)) = missing else { return Ok(()) };
        let detail = format!("segments from {oldest:x} on are needed, {there:x} is the first that is there");
        Err(refuse(Finding::MissingSegment, folder, missing, 0, detail))
    }
}
