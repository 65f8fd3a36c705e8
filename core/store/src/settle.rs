//! Series without points leave the index.
//!
//! Owns: what deletes and drops left to be looked at, and the look at one series after the other.
//! Invariants: points are gone when the entry is applied, series when this is done; a series that is written meanwhile
//! stays; no more than a few series are looked at before other tasks get a turn, and a look that is given up is taken
//! up again.
//! Knows nothing of why points were deleted.

use crate::{
    cursor::ScanField,
    deletion::Deletion,
    id::{DatabaseId, SeriesId, ShardGroupId},
    index::{SeriesIndex, TagPredicate},
    pace::breathe,
    partition::{Partition, PartitionView, State},
    read_error::ReadError,
    shard_group::{ShardGroup, ShardGroupView},
};
use roaring::RoaringBitmap;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};
use tidemill_disk::{Disk, Notify};
use tidemill_line::series_key;

/// Series that are looked at before other tasks of the core get a turn: about 200 us of work.
const SERIES_PER_TURN: usize = 64;
/// Keys that are compared with a predicate in one go.
const KEYS_PER_TURN: usize = 1024;
/// Tables of a memtable that deletes are carried out for in one go.
const TABLES_PER_TURN: usize = 512;
/// Turns of one [`Partition::settle_some`].
const TURNS_PER_PART: usize = 64;

/// What took points away.
pub(crate) enum Unsettled {
    Deleted {
        database: DatabaseId,
        deletion: Rc<Deletion>,
    },
    /// Series that may have lost points.
    Series {
        database: DatabaseId,
        left: RoaringBitmap,
    },
}

/// Looks that are under way, whoever does them.
#[derive(Default)]
pub(crate) struct Settling {
    /// Series that may be among those that are looked at, by the number of the look.
    looks: RefCell<BTreeMap<u64, (DatabaseId, RoaringBitmap)>>,
    looks_begun: Cell<u64>,
    ended: Notify,
}

impl Settling {
    pub fn is_under_way(&self) -> bool {
        !self.looks.borrow().is_empty()
    }
}

/// Series that are being looked at. Those that were not come back when it is dropped.
struct Look<'a, D: Disk> {
    partition: &'a Partition<D>,
    number: u64,
    database: DatabaseId,
    left: RoaringBitmap,
}

impl Unsettled {
    pub fn database(&self) -> DatabaseId {
        match self {
            Unsettled::Deleted { database, .. } | Unsettled::Series { database, .. } => *database,
        }
    }
}

impl<'a, D: Disk> Look<'a, D> {
    /// Begins a look at these series, or at some of them that are not known yet.
    fn at(partition: &'a Partition<D>, database: DatabaseId, series: RoaringBitmap) -> Look<'a, D> {
        let settling = &partition.settling;
        let number = settling.looks_begun.replace(settling.looks_begun.get() + 1);
        settling.looks.borrow_mut().insert(number, (database, series));
        Look { partition, number, database, left: RoaringBitmap::new() }
    }
}

impl<D: Disk> Drop for Look<'_, D> {
    fn drop(&mut self) {
        if !self.left.is_empty() {
            let unsettled = Unsettled::Series { database: self.database, left: std::mem::take(&mut self.left) };
            self.partition.state.borrow_mut().unsettled.push_back(unsettled);
        }
        self.partition.settling.looks.borrow_mut().remove(&self.number);
        self.partition.settling.ended.notify();
    }
}

impl<D: Disk> Partition<D> {
    /// Takes the series that have no point left out of the index, until nothing is left to look at. Blocks of which a
    /// part was deleted are read. [`Partition::maintain`] does the same part by part for deletes that nobody settles.
    ///
    /// # Errors
    /// The first block that could not be read; its series stays in the index and is looked at again behind the next
    /// flush.
    pub async fn settle(&self) -> Result<(), ReadError> {
        let mut result = Ok(());
        loop {
            let ended = self.settling.ended.notified();
            let step = self.settle_turn().await;
            match step {
                Ok(true) => breathe().await,
                Ok(false) if !self.settling.is_under_way() => return result,
                // Others look at the last ones; what they give up comes back.
                Ok(false) => ended.await,
                Err(error) => result = result.and(Err(error)),
            }
        }
    }

    /// A part of [`Partition::settle`].
    pub(crate) async fn settle_some(&self) -> Result<(), ReadError> {
        let mut result = Ok(());
        for _ in 0..TURNS_PER_PART {
            match self.settle_turn().await {
                Ok(true) => breathe().await,
                Ok(false) => break,
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Returns whether there was something to do.
    async fn settle_turn(&self) -> Result<bool, ReadError> {
        let Some(unsettled) = self.state.borrow_mut().unsettled.pop_front() else { return Ok(false) };
        match unsettled {
            Unsettled::Series { database, mut left } => {
                let turn: RoaringBitmap = left.iter().take(SERIES_PER_TURN).collect();
                left -= &turn;
                if !left.is_empty() {
                    self.state.borrow_mut().unsettled.push_front(Unsettled::Series { database, left });
                }
                let mut look = Look::at(self, database, turn.clone());
                look.left = turn;
                self.look_at(look).await?;
            }
            Unsettled::Deleted { database, deletion } => {
                // Counts as under way until its series are known.
                let may_be_covered = candidates(&self.state.borrow(), database, &deletion);
                let mut look = Look::at(self, database, may_be_covered);
                self.settle_memtables(database).await;
                look.left = self.covered(database, &deletion).await;
            }
        }
        Ok(true)
    }

    /// Series of a database that may have lost their points and were not looked at to the end.
    pub(crate) fn unsettled_of(&self, state: &State<D>, database: DatabaseId) -> RoaringBitmap {
        let waiting = state.unsettled.iter().chain(&state.unreadable);
        let waiting = waiting.filter(|unsettled| unsettled.database() == database);
        let mut all = RoaringBitmap::new();
        for unsettled in waiting {
            all |= match unsettled {
                Unsettled::Deleted { deletion, .. } => candidates(state, database, deletion),
                Unsettled::Series { left, .. } => left.clone(),
            };
        }
        let looks = self.settling.looks.borrow();
        looks.values().filter(|(of, _)| *of == database).for_each(|(_, series)| all |= series);
        all
    }

    /// Carries out what the memtables of a database have noted, so that nothing is left for their freezing.
    async fn settle_memtables(&self, database: DatabaseId) {
        let groups: Vec<ShardGroupId> = {
            let state = self.state.borrow();
            state.groups.iter().filter(|(_, group)| group.database == database).map(|(id, _)| *id).collect()
        };
        for group in groups {
            let Some(active) = self.state.borrow().groups.get(&group).map(|group| group.active.clone()) else {
                continue;
            };
            let mut place = Some(active.borrow().settle_start());
            while let Some(from) = place {
                place = {
                    let state = self.state.borrow();
                    // Once it was frozen nothing is pending; if its group was dropped, its series may be others by now.
                    let is_active = state.groups.get(&group).is_some_and(|group| Rc::ptr_eq(&group.active, &active));
                    let Some(index) = state.databases.get(&database).filter(|_| is_active) else { break };
                    active.borrow_mut().settle(from, TABLES_PER_TURN, |series| index.key(series))
                };
                breathe().await;
            }
        }
    }

    /// The series that a deletion covers, of those in the index.
    async fn covered(&self, database: DatabaseId, deletion: &Deletion) -> RoaringBitmap {
        let names: Vec<Vec<u8>> = {
            let Some(index) = self.index(database) else { return RoaringBitmap::new() };
            let names = index.measurement_names().filter(|name| deletion.covers_measurement(name));
            names.map(<[u8]>::to_vec).collect()
        };
        if deletion.points().is_some() {
            return candidates(&self.state.borrow(), database, deletion);
        }
        let mut covered = RoaringBitmap::new();
        for name in names {
            let is_cheap = is_cheap(deletion.predicate());
            let wanted = if is_cheap { deletion.predicate() } else { &TagPredicate::All };
            let Some(candidates) = self.index(database).map(|index| index.select(&name, wanted)) else { break };
            if is_cheap {
                covered |= candidates;
                continue;
            }
            let mut candidates = candidates.iter();
            loop {
                let turn: Vec<u32> = candidates.by_ref().take(KEYS_PER_TURN).collect();
                if turn.is_empty() {
                    break;
                }
                if let Some(index) = self.index(database) {
                    let is_covered = |id: &u32| index.known_key(SeriesId(*id)).is_some_and(|key| deletion.covers(key));
                    covered.extend(turn.into_iter().filter(is_covered));
                }
                breathe().await;
            }
        }
        covered
    }

    async fn look_at(&self, mut look: Look<'_, D>) -> Result<(), ReadError> {
        let database = look.database;
        let mut views = None;
        while let Some(id) = look.left.min() {
            // Before the look: a delete that comes meanwhile enters it again.
            look.left.remove(id);
            let id = SeriesId(id);
            // The database may have been dropped, and begun anew, since the delete.
            let Some(key) = self.index(database).and_then(|index| Some(index.known_key(id)?.to_vec())) else {
                continue;
            };
            // The views are true as long as nothing is waited for.
            let known = views.get_or_insert_with(|| self.views_of(database));
            if known.iter().any(|view| view.has_active_rows(id, &key)) {
                continue;
            }
            let is_surely_without = known.iter().all(|view| view.is_surely_without(id, &key));
            let has_points = match is_surely_without {
                true => Ok(false),
                false => self.has_points(database, id, &key, &mut views).await,
            };
            match has_points {
                Ok(true) => {}
                Ok(false) => self.remove_series(database, id),
                Err(error) => {
                    let unreadable = Unsettled::Series { database, left: RoaringBitmap::from_iter([id.0]) };
                    self.state.borrow_mut().unreadable.push(unreadable);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Reads until a point is found. The views are there afterwards if they are still true.
    async fn has_points(
        &self,
        database: DatabaseId,
        id: SeriesId,
        key: &[u8],
        views: &mut Option<Vec<ShardGroupView<D::File>>>,
    ) -> Result<bool, ReadError> {
        let measurement = series_key::measurement(key);
        loop {
            let fields: Rc<[ScanField]> = {
                let Some(index) = self.index(database) else { return Ok(false) };
                index.field_names(&measurement).map(|name| ScanField::of(&index, &measurement, name)).collect()
            };
            let seen: Rc<[ShardGroupView<D::File>]> = views.take().unwrap_or_else(|| self.views_of(database)).into();
            let view = PartitionView { groups: seen.clone() };
            let mut cursor = self.cursor(&view, database, id, &fields, (i64::MIN, i64::MAX), false);
            if cursor.next().await?.is_some() {
                return Ok(true);
            }
            // Rows may have come while files were read, and may even be in files by now.
            let now = self.views_of(database);
            if now.iter().any(|view| view.has_active_rows(id, key)) {
                return Ok(true);
            }
            if now.iter().all(|view| seen.iter().any(|known| view.has_only_sources_of(known))) {
                return Ok(false);
            }
        }
    }

    fn remove_series(&self, database: DatabaseId, id: SeriesId) {
        if let Some(index) = self.state.borrow_mut().databases.get_mut(&database) {
            index.remove(id);
        }
    }

    fn views_of(&self, database: DatabaseId) -> Vec<ShardGroupView<D::File>> {
        let state = self.state.borrow();
        state.groups.values().filter(|group| group.database == database).map(ShardGroup::view).collect()
    }
}

/// The series of an index.
pub(crate) fn all_series(index: &SeriesIndex) -> RoaringBitmap {
    let of = |name| index.select(name, &TagPredicate::All);
    index.measurement_names().map(of).fold(RoaringBitmap::new(), |all, some| all | some)
}

/// Series that a deletion may cover: those that it does cover if the postings tell them soon.
fn candidates<D: Disk>(state: &State<D>, database: DatabaseId, deletion: &Deletion) -> RoaringBitmap {
    let wanted = if is_cheap(deletion.predicate()) { deletion.predicate() } else { &TagPredicate::All };
    let Some(index) = state.databases.get(&database) else { return RoaringBitmap::new() };
    if let Some(points) = deletion.points() {
        let known = points.iter().filter_map(|one| index.find_key(&one.key));
        return known.filter(|id| index.is_alive(*id)).map(|id| id.0).collect();
    }
    let names = index.measurement_names().filter(|name| deletion.covers_measurement(name));
    names.fold(RoaringBitmap::new(), |all, name| all | index.select(name, wanted))
}

/// Whether the postings answer a condition in the time of few bitmaps: a pattern, or the lack of a tag, is compared with
/// every value.
fn is_cheap(predicate: &TagPredicate) -> bool {
    match predicate {
        TagPredicate::All => true,
        TagPredicate::And(parts) | TagPredicate::Or(parts) => parts.iter().all(is_cheap),
        TagPredicate::Equal { value, .. } | TagPredicate::NotEqual { value, .. } => !value.is_empty(),
        TagPredicate::Matches { .. } | TagPredicate::NotMatches { .. } => false,
    }
}
