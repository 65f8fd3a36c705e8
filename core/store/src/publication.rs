//! The publication of a manifest, and of the indexes that it names.
//!
//! In this order: what the indexes have more than their file says (a little at a time, while writes go on), then, in one
//! moment, the manifest and what the indexes say as a whole of the same moment, then the end of the file, durable, then
//! the manifest. A crash before the last step leaves the old manifest, which knows nothing of what was appended.

use crate::{
    id::DatabaseId,
    index_file::{self, Appending, Current, IndexFileError},
    maintenance::MaintainError,
    manifest::{Manifest, ManifestError},
    pace::breathe,
    partition::Partition,
};
use std::collections::BTreeMap;
use tidemill_disk::Disk;
use tidemill_index::{Delta, IndexMark, Written};

/// The indexes at the entry that a manifest is of.
pub(crate) type Marks = Vec<(DatabaseId, IndexMark)>;

impl From<IndexFileError> for MaintainError {
    fn from(error: IndexFileError) -> MaintainError {
        match error {
            IndexFileError::Io { path, error } => MaintainError::Io { path, error },
            IndexFileError::Image { path, error } => MaintainError::Io { path, error: std::io::Error::other(error) },
        }
    }
}

impl<D: Disk> Partition<D> {
    /// Publishes the manifest that `build` makes. `marks` are those of its entry; without them it is of the same entry
    /// as the one before.
    ///
    /// # Errors
    /// [`ManifestError::Unknown`] if the fate of the manifest is unknown; no manifest names anything new otherwise. After
    /// a manifest that is there for good nothing fails.
    pub(crate) async fn publish(
        &self,
        marks: Option<&Marks>,
        build: impl FnOnce() -> Manifest,
    ) -> Result<(), MaintainError> {
        let current = self.index_file.borrow().current().cloned();
        let is_anew = marks.is_some() && (current.is_none() || self.index_file.borrow().is_worn());
        let written = current.as_ref().filter(|_| !is_anew).map(|current| &current.written);
        let delta = |(database, mark): &(DatabaseId, IndexMark)| {
            Delta::new(database.0, mark.clone(), written.and_then(|written| written.get(&database.0)))
        };
        let deltas: Vec<Delta> = marks.into_iter().flatten().map(delta).collect();
        let has_news = match &current {
            Some(current) => {
                is_anew || deltas.iter().any(|delta| !delta.is_empty()) || self.has_changed(current, &deltas)
            }
            None => is_anew,
        };
        if !has_news {
            let mut manifest = build();
            // Without a file to append to there is none that says what the indexes are now.
            manifest.index = current.map(|current| current.record).or_else(|| self.index_file.borrow().as_it_is());
            return Ok(self.publish_manifest(&manifest).await?);
        }
        let begun = self.index_file.borrow_mut().begin(is_anew);
        let mut appending = match begun.open(&self.disk, &self.folder).await {
            Ok(appending) => appending,
            Err(error) => return Err(self.take_back(current, error.into())),
        };
        let result = self.append(&mut appending, deltas, build).await;
        let (mut manifest, has_unsettled) = match result {
            Ok(made) => made,
            Err(error) => {
                appending.abandon(&self.disk).await;
                return Err(self.take_back(current, error.into()));
            }
        };
        let next = match appending.finish(&self.disk, has_unsettled).await {
            Ok(next) => next,
            Err(error) => return Err(self.take_back(current, error.into())),
        };
        manifest.index = Some(next.record.clone());
        match self.publish_manifest(&manifest).await {
            Ok(()) => {}
            // A manifest may name what was appended: it is neither taken back nor appended to.
            Err(error @ ManifestError::Unknown { .. }) => return Err(error.into()),
            Err(error) => {
                let start = current.as_ref().filter(|_| !is_anew).map(|current| current.record.size);
                index_file::give_back(&self.disk, &self.folder, &next.record, start).await;
                return Err(self.take_back(current, error.into()));
            }
        }
        let generation = next.record.generation;
        let has_older = self.index_file.borrow_mut().end(next, is_anew);
        if has_older {
            // The manifest is there: no failure may say otherwise. What stays is removed by a later publication.
            match self.remove_other_index_files(generation).await {
                Ok(()) => self.index_file.borrow_mut().older_are_gone(),
                Err(error) => tracing::warn!(%error, folder = self.folder, "an older file of the indexes stays"),
            }
        }
        Ok(())
    }

    /// Replaces the manifest, once there is room for the next one too.
    pub(crate) async fn publish_manifest(&self, manifest: &Manifest) -> Result<(), ManifestError> {
        let bytes = manifest.encode();
        self.spare.reserve(&self.disk, &self.folder, bytes.len()).await?;
        Manifest::publish_encoded(&self.disk, &self.folder, &bytes).await
    }

    /// Publishes a manifest of the same entry as the one before when there is no room for more of the indexes: it names
    /// their file as it is. If there is no room for the manifest itself, it gets the spare blocks.
    pub(crate) async fn publish_on_a_full_disk(&self, mut manifest: Manifest) -> Result<(), MaintainError> {
        manifest.index = self.index_file.borrow().as_it_is();
        let bytes = manifest.encode();
        let published = Manifest::publish_encoded(&self.disk, &self.folder, &bytes).await.map_err(MaintainError::from);
        if !published.as_ref().is_err_and(MaintainError::is_disk_full) {
            return published;
        }
        if !self.spare.publish(&self.disk, &self.folder, &bytes).await? {
            return published;
        }
        // The manifest before has left its blocks. If somebody else took them, the next publication tries again.
        let _ = self.spare.reserve(&self.disk, &self.folder, bytes.len()).await;
        Ok(())
    }

    /// Writes everything up to the commit, of which the end is left to be written. Whether series are unsettled.
    async fn append(
        &self,
        appending: &mut Appending<D::File>,
        deltas: Vec<Delta>,
        build: impl FnOnce() -> Manifest,
    ) -> Result<(Manifest, bool), IndexFileError> {
        let mut ends: BTreeMap<u32, Written> = match deltas.is_empty() {
            true => appending.written.clone(),
            false => BTreeMap::new(),
        };
        for mut delta in deltas {
            while self.push_next(&mut delta, appending) {
                appending.write_out(false).await?;
                breathe().await;
            }
            let mark = delta.mark();
            let (born, series, fields, epoch) = (mark.born, mark.series, mark.fields, mark.epoch);
            ends.insert(delta.database(), Written { born, series, fields, epoch, version: 0 });
        }
        // From here to the commit nothing else runs: it is of one moment with the manifest.
        let manifest = build();
        let state = self.state.borrow();
        let mut has_unsettled = false;
        ends.retain(|database, end| {
            let id = DatabaseId(*database);
            let Some(index) = state.databases.get(&id).filter(|index| index.born() == end.born) else { return false };
            let unsettled = self.unsettled_of(&state, id);
            has_unsettled |= !unsettled.is_empty();
            appending.writer.push_state(*database, index, (end.series, end.fields), &unsettled);
            end.version = index.version();
            true
        });
        appending.writer.push_commit(ends.iter().map(|(database, written)| (*database, *written)));
        appending.written = ends;
        Ok((manifest, has_unsettled))
    }

    fn push_next(&self, delta: &mut Delta, appending: &mut Appending<D::File>) -> bool {
        let state = self.state.borrow();
        let index = state.databases.get(&DatabaseId(delta.database()));
        let index = index.filter(|index| index.born() == delta.mark().born);
        index.is_some_and(|index| delta.push_next(index, &mut appending.writer))
    }

    /// Whether the indexes say something else as a whole than their file.
    fn has_changed(&self, current: &Current, deltas: &[Delta]) -> bool {
        let state = self.state.borrow();
        let is_same = |(database, written): (&u32, &Written)| {
            let index = state.databases.get(&DatabaseId(*database));
            index.is_some_and(|index| (index.born(), index.version()) == (written.born, written.version))
        };
        let is_new = |delta: &Delta| !current.written.contains_key(&delta.database());
        current.has_unsettled
            || !state.unsettled.is_empty()
            || !state.unreadable.is_empty()
            || self.settling.is_under_way()
            || !current.written.iter().all(is_same)
            || deltas.iter().any(is_new)
    }

    /// After a failure that came before the manifest: a file for which there was no room can be tried again.
    fn take_back(&self, current: Option<Current>, error: MaintainError) -> MaintainError {
        if let Some(current) = current.filter(|_| error.is_disk_full()) {
            self.index_file.borrow_mut().end(current, false);
        }
        error
    }

    /// Removes the files of the indexes but that of one generation.
    async fn remove_other_index_files(&self, generation: u64) -> Result<(), MaintainError> {
        let io_error = |error| MaintainError::Io { path: self.folder.clone(), error };
        for name in self.disk.list(&self.folder).await.map_err(io_error)? {
            if index_file::is_name(&name) && name != index_file::name_of(generation) {
                self.disk.remove(&format!("{}/{name}", self.folder)).await.map_err(io_error)?;
            }
        }
        Ok(())
    }
}
