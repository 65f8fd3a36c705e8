//! Rows of a request that are not stored, and the answer that names them.

use tidemill_http::{Refusal, WriteOutcome};
use tidemill_line::Parsed;
use tidemill_tsm::key;

/// What is left out of a body. The text is the first reason that was met; the count is of all rows left out.
#[derive(Default)]
pub struct Rejections {
    /// By row; empty while every row is kept.
    rejected: Vec<bool>,
    /// Points that a shard refuses, with the first reason.
    refused: u64,
    refused_why: Option<String>,
    /// Points older than the policy keeps.
    beyond_retention: u64,
    /// A shard's whole share of the batch is refused with this text and no count.
    batch_refused: Option<String>,
}

impl Rejections {
    /// The points that the parser dropped.
    pub fn of(parsed: &Parsed<'_>) -> Rejections {
        Rejections {
            refused: parsed.dropped_count() as u64,
            refused_why: parsed.dropped().first().map(|point| parsed.dropped_text(point)),
            ..Rejections::default()
        }
    }

    pub fn keeps(&self, row: usize) -> bool {
        !self.rejected.get(row).copied().unwrap_or(false)
    }

    /// Leaves out the rows before `oldest_ns`.
    pub fn retire(&mut self, parsed: &Parsed<'_>, oldest_ns: i64) {
        self.beyond_retention += self.reject(parsed, |row| row.time < oldest_ns);
    }

    /// Leaves out rows that a shard refuses.
    pub fn refuse(&mut self, parsed: &Parsed<'_>, why: &str, refused: impl Fn(&tidemill_line::Row) -> bool) {
        let count = self.reject(parsed, refused);
        if count > 0 {
            self.refused += count;
            self.refused_why.get_or_insert_with(|| why.to_string());
        }
    }

    /// Leaves out all rows that a shard was to take.
    pub fn refuse_batch(&mut self, parsed: &Parsed<'_>, why: &str, refused: impl Fn(&tidemill_line::Row) -> bool) {
        self.reject(parsed, refused);
        self.batch_refused.get_or_insert_with(|| why.to_string());
    }

    /// Leaves out series whose key holds what stands between key and field in TSM files: there it would be taken for
    /// another series.
    pub fn refuse_separators(&mut self, parsed: &Parsed<'_>) {
        let holds = |number: u32| {
            let mut joined = Vec::new();
            key::join(parsed.series(number).key, b"", &mut joined).is_err()
        };
        let bad: Vec<u32> = (0..parsed.series_count() as u32)
            .filter(|number| memchr::memchr(b'#', parsed.series(*number).key).is_some() && holds(*number))
            .collect();
        if let Some(first) = bad.first() {
            let name = String::from_utf8_lossy(parsed.series(*first).key).into_owned();
            let why = format!("series key must not contain \"#!~#\": \"{name}\"");
            self.refuse(parsed, &why, |row| bad.contains(&row.series));
        }
    }

    fn reject(&mut self, parsed: &Parsed<'_>, refused: impl Fn(&tidemill_line::Row) -> bool) -> u64 {
        self.rejected.resize(parsed.rows().len(), false);
        let mut count = 0;
        for (rejected, row) in self.rejected.iter_mut().zip(parsed.rows()) {
            if !*rejected && refused(row) {
                *rejected = true;
                count += 1;
            }
        }
        count
    }

    /// The answer once every kept row is durable. A shard's refusal is named before retention, and both before lines
    /// that did not parse (reference: http-api, section 5).
    pub fn outcome(&self, parsed: &Parsed<'_>) -> WriteOutcome {
        if let Some(why) = &self.batch_refused {
            return WriteOutcome::PartialWrite(why.clone());
        }
        if let Some(why) = &self.refused_why {
            return WriteOutcome::PartialWrite(format!("partial write: {why} dropped={}", self.refused));
        }
        if self.beyond_retention > 0 {
            let count = self.beyond_retention;
            return WriteOutcome::PartialWrite(format!(
                "partial write: points beyond retention policy dropped={count}"
            ));
        }
        match parsed.error_text() {
            None => WriteOutcome::Written,
            Some(text) if parsed.rows().is_empty() => WriteOutcome::Rejected(Refusal::new(400, text)),
            Some(text) => WriteOutcome::PartialWrite(format!("partial write: {text} dropped=0")),
        }
    }
}
