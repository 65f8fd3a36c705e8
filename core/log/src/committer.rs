//! Group commit: whatever was appended while the last commit was on its way is the next one.

use crate::{
    Durability, Poisoned,
    append::Limit,
    batch::{Batch, Place},
    log::{Shared, State},
};
use std::io;
use tidemill_disk::{Disk, DiskFile};

type BufOf<D> = <<D as Disk>::File as DiskFile>::Buf;

impl<D: Disk> Shared<D> {
    /// One commit after the other, until the log is closed and all is durable.
    pub async fn commit_all(&self) -> Result<(), Poisoned> {
        loop {
            let work = self.work.notified();
            match self.next_batch()? {
                Some(batch) => self.commit(batch).await?,
                None if self.state.borrow().closed => return Ok(()),
                None => work.await,
            }
        }
    }

    /// The next batch, its bytes complete.
    fn next_batch(&self) -> Result<Option<Batch<D::File>>, Poisoned> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Some(poison) = &state.poison {
            return Err(poison.clone());
        }
        if state.pending.batches.is_empty() && state.unsettled && (state.settle_wanted || state.closed) {
            // In the room for commands if there is no other; without that, too, there will be a seal or a trim behind the
            // newest commit soon enough.
            let _ = self.open_batch(state, 0, Limit::Frames) || self.open_batch(state, 0, Limit::Commands);
        }
        if state.pending.batches.is_empty() {
            state.settle_wanted = false;
        }
        let filling = state.live.back().expect("a segment is being filled").sequence;
        let Some(mut batch) = state.pending.take(filling) else { return Ok(None) };
        state.previous_crc = batch.seal(self.log_id, state.previous_crc);
        Ok(Some(batch))
    }

    /// Durable before anybody hears of it: (1) write, (2) sync, (3) wake the waiters. An error at (1) or (2) leaves the
    /// range unknown, so nothing is written after it.
    async fn commit(&self, batch: Batch<D::File>) -> Result<(), Poisoned> {
        let place = batch.place();
        match self.write(&batch.file, batch.buf, &place).await {
            Ok(buf) => {
                let mut state = self.state.borrow_mut();
                state.pending.give_back(buf, self.options.batch_bytes);
                self.note_durable(&mut state, &place);
            }
            Err(error) => {
                let doing =
                    format!("commit {} at offset {} of segment {:x}", place.number, place.offset, place.sequence);
                tracing::error!(%error, "{doing} failed, the log takes no more");
                return Err(self.poison(&doing, &error));
            }
        }
        self.durable.advance(place.number);
        self.room.notify();
        self.chores.notify();
        Ok(())
    }

    async fn write(&self, file: &D::File, buf: BufOf<D>, place: &Place) -> io::Result<BufOf<D>> {
        match self.options.durability {
            Durability::Dsync => file.write_prefix_durable(buf, place.commit_bytes, place.offset).await,
            Durability::Fdatasync => file.write_prefix_and_sync(buf, place.commit_bytes, place.offset).await,
        }
    }

    fn note_durable(&self, state: &mut State<D>, place: &Place) {
        state.pending.bytes -= place.frames_bytes;
        state.unsettled = place.frames > 0;
        state.durable_sequence = place.sequence;
        state.durable_end = place.offset + place.commit_bytes as u64;
        while state.live.front().is_some_and(|segment| segment.sequence < place.oldest) {
            state.retired.extend(state.live.pop_front());
        }
        let metrics = &mut state.metrics;
        metrics.commits += 1;
        metrics.syncs += 1;
        metrics.bytes += place.commit_bytes as u64;
        metrics.frames += u64::from(place.frames);
        metrics.last_batch_frames = place.frames.into();
        metrics.last_batch_bytes = place.commit_bytes as u64;
        self.try_trim(state);
    }
}
