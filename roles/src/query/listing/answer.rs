//! Lists as tables, a piece at a time.

use crate::{
    data::DataCore,
    query::{
        StatementError,
        account::{Charge, RunningQuery},
        answer_table::{TableColumn, table},
        listing::{List, Merge, Run},
        sources::Session,
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
};
use tidemill_column::Strings;
use tidemill_query::{ResultSeries, RowLimit};

/// The runs of each tag of a measurement.
type RunsByTag = BTreeMap<Arc<str>, Vec<Run>>;

/// Rows between two looks at whether the query may go on.
const ROWS_PER_TURN: usize = 1024;

/// The keys of SHOW SERIES, one table of them in pieces.
pub(in crate::query) struct SeriesKeys {
    core: Rc<DataCore>,
    query: Arc<RunningQuery>,
    merge: Merge,
    rows: Window,
    piece_rows: usize,
}

/// The tables of SHOW TAG VALUES, one for each measurement.
pub(in crate::query) struct TagValueTables {
    core: Rc<DataCore>,
    query: Arc<RunningQuery>,
    measurements: VecDeque<(Arc<str>, RunsByTag)>,
    limit: RowLimit,
    /// For the table that was made last.
    charge: Charge,
}

/// Rows of a list that pass.
struct Window {
    limit: RowLimit,
    seen: u64,
}

impl Window {
    fn is_over(&self) -> bool {
        self.limit.is_reached(self.seen)
    }

    /// Takes the last of the rows away again if it does not pass; whether it does.
    fn admit(&mut self, rows: &mut Strings) -> bool {
        let passes = !self.limit.window(self.seen, 1).is_empty();
        self.seen += 1;
        if !passes {
            rows.truncate(rows.len() - 1);
        }
        passes
    }
}

/// Lets others have their turn, and ends a query that is to stop.
async fn pause(core: &DataCore, query: &RunningQuery) -> Result<(), StatementError> {
    query.check(core.context().clock.monotonic_ns())?;
    core.context().yield_now_if_needed().await;
    Ok(())
}

impl SeriesKeys {
    pub async fn begin(session: &Session, runs: Vec<Run>, limit: RowLimit) -> Result<SeriesKeys, StatementError> {
        let (core, query) = (session.core.clone(), session.query.clone());
        let merge = Merge::begin(core.clone(), runs, query.charge()).await?;
        Ok(SeriesKeys { core, query, merge, rows: Window { limit, seen: 0 }, piece_rows: session.chunk_rows })
    }

    pub async fn next(&mut self) -> Result<Option<ResultSeries>, StatementError> {
        let mut keys = Strings::new();
        while keys.len() < self.piece_rows && self.merge.has_more() && !self.rows.is_over() {
            self.merge.next(&mut keys).await?;
            self.rows.admit(&mut keys);
            if self.rows.seen.is_multiple_of(ROWS_PER_TURN as u64) {
                pause(&self.core, &self.query).await?;
            }
        }
        if keys.is_empty() {
            return Ok(None);
        }
        let mut piece = table("", vec![("key", TableColumn::Strings(keys))]);
        piece.partial = self.merge.has_more() && !self.rows.is_over();
        Ok(Some(piece))
    }
}

impl TagValueTables {
    pub fn begin(session: &Session, runs: Vec<Run>, limit: RowLimit) -> TagValueTables {
        let mut measurements: BTreeMap<Arc<str>, RunsByTag> = BTreeMap::new();
        for run in runs {
            if let List::TagValues { measurement, tag } = run.list.clone() {
                measurements.entry(measurement).or_default().entry(tag).or_default().push(run);
            }
        }
        let (core, query) = (session.core.clone(), session.query.clone());
        let charge = query.charge();
        TagValueTables { core, query, measurements: measurements.into_iter().collect(), limit, charge }
    }

    pub async fn next(&mut self) -> Result<Option<ResultSeries>, StatementError> {
        while let Some((measurement, tags)) = self.measurements.pop_front() {
            let (mut keys, mut values) = (Strings::new(), Strings::new());
            let mut rows = Window { limit: self.limit, seen: 0 };
            for (tag, runs) in tags {
                if rows.is_over() {
                    break;
                }
                let mut merge = Merge::begin(self.core.clone(), runs, self.query.charge()).await?;
                while merge.has_more() && !rows.is_over() {
                    merge.next(&mut values).await?;
                    if rows.admit(&mut values) {
                        keys.push(tag.as_bytes());
                    }
                    if rows.seen.is_multiple_of(ROWS_PER_TURN as u64) {
                        self.charge.set(keys.byte_size() + values.byte_size())?;
                        pause(&self.core, &self.query).await?;
                    }
                }
            }
            self.charge.set(keys.byte_size() + values.byte_size())?;
            if !keys.is_empty() {
                let columns = vec![("key", TableColumn::Strings(keys)), ("value", TableColumn::Strings(values))];
                return Ok(Some(table(&measurement, columns)));
            }
        }
        Ok(None)
    }
}
