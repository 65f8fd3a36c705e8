//! SELECT .. INTO: the rows of an answer become points.
//!
//! Owns: what of a row is tag, field and time, and the batches in which the points are written, through the same door
//! as a client's. Tags are what the statement groups by; every other column is a field; what has no value is left out.
//! Knows nothing of how the rows came about.

use crate::{
    line_text::{push_field, push_time},
    query::{StatementError, select::Select, sources::Session},
};
use std::{rc::Rc, time::Duration};
use tidemill_column::{Column, Values};
use tidemill_http::{Consistency, WriteOutcome, WriteRequest, WriteTarget};
use tidemill_influxql::{Measurement, MeasurementName, SelectStatement};
use tidemill_line::{
    Precision,
    series_key::{push_escaped_measurement, push_escaped_tag},
};
use tidemill_query::{ResultColumn, ResultSeries};

/// Points of one write.
const BATCH_POINTS_MAX: u64 = 10_000;
/// A batch of long strings is written earlier.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// An overloaded server is asked again; so often, with a pause in between.
const TRIES: u32 = 100;
const TRY_PAUSE: Duration = Duration::from_millis(100);

/// A SELECT whose rows are written.
pub(super) struct Into {
    session: Rc<Session>,
    select: Select,
    target: Measurement,
    database: String,
    batch: Vec<u8>,
    batch_points: u64,
    written: u64,
    is_done: bool,
}

impl Into {
    /// Plans the statement and looks at its target. Nothing is read or written yet.
    pub async fn start(
        session: Rc<Session>,
        select: &SelectStatement,
        target: &Measurement,
    ) -> Result<Into, StatementError> {
        let database = session.database_name(target.database.as_deref())?.to_owned();
        {
            let meta = session.core.meta();
            let known = meta.database(&database).ok_or_else(|| StatementError::DatabaseNotFound(database.clone()))?;
            if let Some(policy) = target.retention_policy.as_deref()
                && known.policy(Some(policy)).is_none()
            {
                return Err(StatementError::PolicyNotFound(policy.to_owned()));
            }
        }
        let select = Select::start(session.clone(), select).await?;
        let (batch, target) = (Vec::new(), target.clone());
        Ok(Into { session, select, target, database, batch, batch_points: 0, written: 0, is_done: false })
    }

    /// Reads and writes everything, then gives the one row that says how many points there were.
    pub async fn next(&mut self) -> Result<Option<ResultSeries>, StatementError> {
        if std::mem::replace(&mut self.is_done, true) {
            return Ok(None);
        }
        while let Some(piece) = self.select.next().await? {
            self.take(&piece).await?;
        }
        self.write().await?;
        let count = Column::dense(Values::Integer(vec![i64::try_from(self.written).unwrap_or(i64::MAX)]));
        Ok(Some(ResultSeries {
            name: "result".into(),
            tags: [].into(),
            columns: ["time".to_owned(), "written".to_owned()].into(),
            values: vec![ResultColumn::Time(vec![0]), ResultColumn::Values(count)],
            partial: false,
        }))
    }

    async fn take(&mut self, piece: &ResultSeries) -> Result<(), StatementError> {
        let position = piece.columns.iter().position(|name| name == "time");
        let Some((position, ResultColumn::Time(times))) = position.and_then(|at| Some((at, piece.values.get(at)?)))
        else {
            return Err(StatementError::Invalid("error finding time index in result".to_owned()));
        };
        let key = self.key(piece);
        for (row, time) in times.iter().enumerate() {
            let start = self.batch.len();
            self.batch.extend_from_slice(&key);
            let mut fields = 0;
            for (at, (name, column)) in piece.columns.iter().zip(&piece.values).enumerate() {
                let ResultColumn::Values(column) = column else { continue };
                if at == position {
                    continue;
                }
                let Some(value) = column.value(row) else { continue };
                let before = self.batch.len();
                match push_field(&mut self.batch, fields == 0, name.as_bytes(), &value) {
                    Ok(()) => fields += 1,
                    // No number that can be stored.
                    Err(_) => self.batch.truncate(before),
                }
            }
            if fields == 0 {
                self.batch.truncate(start);
                continue;
            }
            push_time(&mut self.batch, *time);
            self.batch_points += 1;
            if self.batch_points >= BATCH_POINTS_MAX || self.batch.len() >= BATCH_BYTES_MAX {
                self.write().await?;
            }
        }
        Ok(())
    }

    /// Measurement and tags of a series of the answer.
    fn key(&self, piece: &ResultSeries) -> Vec<u8> {
        let name = match &self.target.name {
            MeasurementName::Name(name) => name.as_str(),
            MeasurementName::OfSource | MeasurementName::Regex(_) => &piece.name,
        };
        let mut key = Vec::new();
        push_escaped_measurement(name.as_bytes(), &mut key);
        for (tag, value) in piece.tags.iter().filter(|(_, value)| !value.is_empty()) {
            key.push(b',');
            push_escaped_tag(tag.as_bytes(), &mut key);
            key.push(b'=');
            push_escaped_tag(value.as_bytes(), &mut key);
        }
        key
    }

    /// Writes what was gathered.
    async fn write(&mut self) -> Result<(), StatementError> {
        if self.batch_points == 0 {
            return Ok(());
        }
        let target = WriteTarget {
            database: self.database.clone(),
            retention_policy: self.target.retention_policy.clone(),
            precision: Precision::Nanosecond,
            unsigned: true,
            consistency: Consistency::default(),
            caller: self.session.caller.clone(),
        };
        let body = std::mem::take(&mut self.batch);
        for _ in 0..TRIES {
            let request = WriteRequest { target: target.clone(), body: body.clone() };
            match self.session.core.write(request).await {
                WriteOutcome::Written => {
                    self.written += std::mem::take(&mut self.batch_points);
                    return Ok(());
                }
                WriteOutcome::Overloaded { .. } => {
                    self.session.query.check(self.session.core.context().clock.monotonic_ns())?;
                    self.session.core.context().sleep(TRY_PAUSE).await;
                }
                WriteOutcome::PartialWrite(text) | WriteOutcome::Unknown(text) => {
                    return Err(StatementError::Invalid(text));
                }
                WriteOutcome::Rejected(refusal) => return Err(StatementError::Invalid(refusal.text)),
                WriteOutcome::DatabaseNotFound(name) => return Err(StatementError::DatabaseNotFound(name)),
                WriteOutcome::DiskFull => return Err(StatementError::Invalid("disk full".to_owned())),
            }
        }
        Err(StatementError::Invalid("overloaded, retry later".to_owned()))
    }
}
