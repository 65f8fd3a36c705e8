//! Segments ahead of need, off the way of commits.

use crate::{
    Poisoned,
    format::segment_header::SegmentHeader,
    groups::Held,
    log::{Shared, State},
    segment::{Segment, make, path_in, reuse, segment_name, spare_name, unfinished_name},
};
use std::{io, rc::Rc};
use tidemill_disk::{Disk, DiskFile};

/// Segments prepared ahead: rolling takes one at once, and another is made while that one fills.
const READY_MAX: usize = 1;

/// Files of full size that are kept for later use; more are removed, so that a burst does not hold the disk for ever.
const SPARES_MAX: usize = 4;

/// After a full disk, refused appends until the next attempt: doubles up to this. An attempt fills what little space
/// there is with zeros for a moment, space that a flush (which would help) needs as well.
const RETRY_AFTER_MAX: u32 = 16;

enum Chore<F> {
    PutAside(Segment<F>),
    Prepare { sequence: u64, bytes: u64 },
}

impl<D: Disk> Shared<D> {
    /// Until the committer has ended or the log is poisoned.
    pub async fn do_chores(&self) -> Result<(), Poisoned> {
        loop {
            let wanted = self.chores.notified();
            let chore = {
                let mut state = self.state.borrow_mut();
                if let Some(poison) = &state.poison {
                    return Err(poison.clone());
                }
                if state.stopped {
                    return Ok(());
                }
                self.next_chore(&mut state)
            };
            match chore {
                Some(Chore::PutAside(segment)) => {
                    let doing = format!("putting segment {:x} aside", segment.sequence);
                    self.put_aside(segment).await.map_err(|error| self.poison(&doing, &error))?;
                }
                Some(Chore::Prepare { sequence, bytes }) => self.prepare(sequence, bytes).await?,
                None => wanted.await,
            }
        }
    }

    fn next_chore(&self, state: &mut State<D>) -> Option<Chore<D::File>> {
        if !self.recovering.get()
            && let Some(segment) = state.retired.pop_front()
        {
            return Some(Chore::PutAside(segment));
        }
        let in_use = state.live.len() + state.ready.len();
        let has_file = !state.spares.is_empty();
        let wanted = state.ready.len() < READY_MAX && in_use < self.options.segments_max;
        if !wanted || !(has_file || Self::may_make(state)) {
            return None;
        }
        let newest = state.ready.back().or(state.live.back()).expect("a segment is being filled");
        Some(Chore::Prepare {
            sequence: newest.sequence + 1,
            bytes: self.options.next_segment_bytes(Some(newest.bytes)),
        })
    }

    /// The name goes first and durably: a segment under its name holds what its name says.
    async fn put_aside(&self, segment: Segment<D::File>) -> io::Result<()> {
        let keep = {
            let state = self.state.borrow();
            segment.bytes == self.options.segment_bytes && state.spares.len() < SPARES_MAX
        };
        let from = path_in(&self.folder, &segment_name(segment.sequence));
        let spare = spare_name(segment.sequence);
        // Recovery may have shared the file; it is gone when a segment is put aside, so this is the only owner.
        if let Ok(file) = Rc::try_unwrap(segment.file) {
            file.close().await?;
        }
        if keep {
            self.disk.rename(&from, &path_in(&self.folder, &spare)).await?;
        } else {
            self.disk.remove(&from).await?;
        }
        self.disk.sync_dir(&self.folder).await?;
        if keep {
            self.state.borrow_mut().spares.push(spare);
        }
        Ok(())
    }

    /// `bytes` is what a new one is long; a spare file is of full size, and there at once.
    async fn prepare(&self, sequence: u64, bytes: u64) -> Result<(), Poisoned> {
        let spare = self.state.borrow_mut().spares.pop();
        let recycled = spare.is_some();
        let bytes = if recycled { self.options.segment_bytes } else { bytes };
        let header = SegmentHeader { log_id: self.log_id, sequence, segment_bytes: bytes };
        let made = match &spare {
            Some(spare) => reuse(&self.disk, &self.folder, spare, header).await,
            None => make(&self.disk, &self.folder, header).await,
        };
        let doing = || format!("preparing segment {sequence:x}");
        match made {
            Ok(file) => {
                let mut state = self.state.borrow_mut();
                state.ready.push_back(Segment { sequence, bytes, file: Rc::new(file), held: Held::default() });
                state.full = None;
                state.retry_after = 0;
                state.metrics.segments_made += u64::from(!recycled);
                state.metrics.segments_recycled += u64::from(recycled);
                // A trim may have waited for a place.
                self.try_trim(&mut state);
                drop(state);
                self.room.notify();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull && !recycled => {
                self.give_up(sequence).await.map_err(|error| self.poison(&doing(), &error))?;
                let mut state = self.state.borrow_mut();
                if state.full.is_none() {
                    tracing::warn!(%error, "no space for another log segment");
                }
                state.retry_after = (state.retry_after * 2).clamp(1, RETRY_AFTER_MAX);
                state.full = Some(state.retry_after);
                drop(state);
                self.room.notify();
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "{} failed, the log takes no more", doing());
                Err(self.poison(&doing(), &error))
            }
        }
    }

    /// Takes away what a full disk left of a segment in the making. Its name may be the final one already.
    async fn give_up(&self, sequence: u64) -> io::Result<()> {
        for name in [unfinished_name(sequence), segment_name(sequence)] {
            match self.disk.remove(&path_in(&self.folder, &name)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
