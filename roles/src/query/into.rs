//! SELECT .. INTO: the rows of an answer become points.
//!
//! Owns: what of a row is tag, field and time, and the batches in which the points are written, through the same door
//! as a client's. Tags are what the statement groups by and what top() and bottom() name; every other column is a field;
//! what has no value is left out.
//! Knows nothing of how the rows came about.

use crate::{
    line_text::{push_field, push_time},
    query::{StatementError, select::Select, sources::Session},
};
use std::{rc::Rc, time::Duration};
use tidemill_column::{Column, Value, Values};
use tidemill_http::{Consistency, WriteOutcome, WriteRequest, WriteTarget};
use tidemill_influxql::{Expr, Measurement, MeasurementName, SelectStatement};
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
    retention_policy: Option<String>,
    /// Columns that become tags.
    tag_columns: Vec<String>,
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
        let retention_policy = target.retention_policy.clone().or_else(|| session.retention_policy.clone());
        {
            let meta = session.core.meta();
            let known = meta.database(&database).ok_or_else(|| StatementError::DatabaseNotFound(database.clone()))?;
            if let Some(policy) = retention_policy.as_deref()
                && known.policy(Some(policy)).is_none()
            {
                return Err(StatementError::PolicyNotFound(policy.to_owned()));
            }
        }
        let tag_columns = select.fields.iter().flat_map(|field| ranked_by(&field.expr)).collect();
        let select = Select::start(session.clone(), select).await?;
        Ok(Into {
            session,
            select,
            target: target.clone(),
            database,
            retention_policy,
            tag_columns,
            batch: Vec::new(),
            batch_points: 0,
            written: 0,
            is_done: false,
        })
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
        let is_tag: Vec<bool> = piece.columns.iter().map(|name| self.tag_columns.contains(name)).collect();
        for (row, time) in times.iter().enumerate() {
            let start = self.batch.len();
            self.batch.extend_from_slice(&key);
            for ((name, column), _) in piece.columns.iter().zip(&piece.values).zip(&is_tag).filter(|(_, tag)| **tag) {
                if let ResultColumn::Values(column) = column
                    && let Some(Value::String(value)) = column.value(row)
                    && !value.is_empty()
                {
                    push_tag(&mut self.batch, name.as_bytes(), &value);
                }
            }
            let mut fields = 0;
            for (at, (name, column)) in piece.columns.iter().zip(&piece.values).enumerate() {
                let ResultColumn::Values(column) = column else { continue };
                if at == position || is_tag[at] {
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
            push_tag(&mut key, tag.as_bytes(), value.as_bytes());
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
            retention_policy: self.retention_policy.clone(),
            precision: Precision::Nanosecond,
            unsigned: true,
            claim: None,
            session: None,
            consistency: Consistency::default(),
            caller: self.session.caller.clone(),
        };
        let body = std::mem::take(&mut self.batch);
        for _ in 0..TRIES {
            let request = WriteRequest { target: target.clone(), body: body.clone() };
            match self.session.core.write(request).await {
                WriteOutcome::Written | WriteOutcome::WrittenInSession(_) => {
                    self.written += std::mem::take(&mut self.batch_points);
                    return Ok(());
                }
                WriteOutcome::Overloaded { .. } => {
                    self.session.query.check(self.session.core.context().clock.monotonic_ns())?;
                    self.session.core.context().sleep(TRY_PAUSE).await;
                }
                WriteOutcome::PartialWrite(text) | WriteOutcome::NotEverywhere(text) | WriteOutcome::Unknown(text) => {
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

fn push_tag(line: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    line.push(b',');
    push_escaped_tag(key, line);
    line.push(b'=');
    push_escaped_tag(value, line);
}

/// The tags that top() or bottom() takes the best of.
fn ranked_by(field: &Expr) -> Vec<String> {
    let Expr::Call(call) = field else { return Vec::new() };
    if !matches!(call.name.as_str(), "top" | "bottom") {
        return Vec::new();
    }
    let tags = call.arguments.iter().skip(1).filter_map(|argument| match argument {
        Expr::VarRef(name) => Some(name.name.clone()),
        _ => None,
    });
    tags.collect()
}
