//! The indexes at a start: from their file, or from all keys of all files.

use crate::{
    deletion::Deletion,
    id::{DatabaseId, SeriesId},
    index_file::{self, IndexFile},
    manifest::IndexRecord,
    pace::breathe,
    partition::Partition,
    read_error::ReadError,
    settle::{Unsettled, all_series},
    tsm_file::TsmFile,
};
use std::rc::Rc;
use tidemill_disk::Disk;
use tidemill_tsm::key;

impl<D: Disk> Partition<D> {
    /// Reads the indexes. `false`: they are to be made from the files, which is no error but takes longer.
    pub(crate) async fn restore_indexes(&self, record: Option<IndexRecord>) -> bool {
        let read = match &record {
            Some(named) => match index_file::load(&self.disk, &self.folder, named).await {
                Ok(restored) => Some(restored),
                Err(error) => {
                    tracing::warn!(%error, "the series index is made anew from the files");
                    None
                }
            },
            None => None,
        };
        let is_behind = record.as_ref().is_some_and(|named| named.is_behind);
        *self.index_file.borrow_mut() = IndexFile::opened(record, read.as_ref());
        let Some(restored) = read else { return false };
        for mut index in restored.indexes {
            let state = &mut *self.state.borrow_mut();
            let database = DatabaseId(index.database);
            let unsettled = std::mem::take(&mut index.unsettled);
            let index = index.finish().expect("it is whole");
            let left = if is_behind { all_series(&index) } else { unsettled };
            if !left.is_empty() {
                state.unsettled.push_back(Unsettled::Series { database, left });
            }
            state.databases.insert(database, index);
        }
        true
    }

    /// Enters the series and fields of a file into the dictionary, and its newest times among the watermarks.
    ///
    /// The watermarks are then at most what they were: rows that were deleted or dropped meanwhile may have raised them.
    pub(crate) async fn enter(&self, database: DatabaseId, file: &TsmFile<D::File>) -> Result<(), ReadError> {
        let policy = file.record().policy;
        let mut dropped_fields = file.all_deletions();
        dropped_fields.retain(|deletion| deletion.field().is_some() && file.lies_within(deletion.range()));
        let mut last: Option<(Vec<u8>, SeriesId)> = None;
        let mut scan = file.keys();
        while let Some(page) = scan.next().await? {
            {
                let state = &mut *self.state.borrow_mut();
                let index = state.databases.entry(database).or_default();
                for found in page.keys() {
                    let split = key::split(found.key);
                    let (series_key, field) = split.ok_or_else(|| file.damaged(0, &"a key without a field"))?;
                    let id = match &last {
                        Some((known, id)) if known == series_key => *id,
                        _ => last.insert((series_key.to_vec(), index.insert_key(series_key))).1,
                    };
                    let is_dropped =
                        |deletion: &Rc<Deletion>| deletion.field() == Some(field) && deletion.covers(series_key);
                    if !dropped_fields.iter().any(is_dropped) {
                        let measurement = tidemill_line::series_key::measurement(series_key);
                        index.insert_field(&measurement, field, found.field_type);
                    }
                    // Late rows are never newer than rows in order.
                    index.watermarks_mut(policy).raise(id, found.entries.time_range().1);
                }
            }
            breathe().await;
        }
        Ok(())
    }
}
