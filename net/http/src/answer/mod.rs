//! Pieces in, documents out: merging, chunking, row limits and errors of one query's answer.
//!
//! Owns: which bytes of the answer are final, when a document, result and series begin and end, and the flags that
//! say that more follows.
//! Invariants: pieces come in statement order; a document is held back until it is complete or [`HELD_BYTES`] long,
//! so that an error inside a small document can still replace what came before it; past that an error closes what is
//! open and stands beside it. After an error of a statement no later one is answered but with `not executed`.
//! (Upstream 1.8 reports that text in place of the true error when another statement follows; here the true error
//! stays.)
//! Knows nothing of sockets and compression.

use crate::encode::{EncodeError, Encoder, Message, push_error_document};
use crate::service::Piece;
use std::sync::Arc;
use tidemill_query::ResultSeries;

/// A document shorter than this goes out as a whole.
pub(crate) const HELD_BYTES: usize = 1 << 20;
/// After that, so much goes out at a time: large enough to make the cost of a send small, small enough to stay in a
/// core's second-level cache between the encoder and the kernel.
pub(crate) const FLUSH_BYTES: usize = 128 << 10;
/// Rows between two looks at the size of the buffer and at the executor's preemption.
const ROWS_PER_STEP: usize = 512;

const NOT_EXECUTED: &str = "not executed";
const ENDED_EARLY: &str = "the answer ended early";

/// What the request says about the shape of its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) chunked: bool,
    /// Rows of a chunked document.
    pub(crate) chunk_size: usize,
    /// 0 is unlimited; not for chunked answers.
    pub(crate) row_count_max: usize,
    /// For formats that are not streamable.
    pub(crate) document_bytes_max: usize,
    pub(crate) statements: Vec<StatementShape>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct StatementShape {
    /// Text of the warning that its result carries.
    pub(crate) warning: Option<String>,
    /// Its series are neither cut into chunks nor marked as partial.
    pub(crate) is_whole: bool,
}

struct Pending {
    series: ResultSeries,
    next_row: usize,
    more: bool,
}

/// The identity of the series that is open in the document.
struct OpenSeries {
    name: Arc<str>,
    tags: Arc<[(String, String)]>,
    /// Rows of it in this document.
    row_count: usize,
}

impl OpenSeries {
    fn continues_as(&self, series: &ResultSeries) -> bool {
        self.name == series.name && (Arc::ptr_eq(&self.tags, &series.tags) || self.tags == series.tags)
    }
}

/// Flags with which a chunked document ends.
#[derive(Clone, Copy)]
struct Follow {
    same_series: bool,
    same_statement: bool,
}

pub(crate) struct Answer {
    encoder: Box<dyn Encoder>,
    shape: Shape,
    out: Vec<u8>,
    document: Option<OpenDocument>,
    /// The statement that is being answered.
    statement: u32,
    /// Documents of this statement that are closed.
    document_count: usize,
    messages: Vec<Message>,
    pending: Option<Pending>,
    row_count: usize,
    is_finished: bool,
    /// A document is complete: send it now.
    is_flush_due: bool,
}

struct OpenDocument {
    /// Offset of its first byte, unless some of it is gone.
    start: Option<usize>,
    result: Option<OpenResult>,
}

struct OpenResult {
    start: Option<usize>,
    series: Option<OpenSeries>,
}

impl Answer {
    pub(crate) fn new(encoder: Box<dyn Encoder>, shape: Shape) -> Answer {
        let mut answer = Answer {
            encoder,
            shape,
            out: Vec::with_capacity(4096),
            document: None,
            statement: 0,
            document_count: 0,
            messages: Vec::new(),
            pending: None,
            row_count: 0,
            is_finished: false,
            is_flush_due: false,
        };
        if answer.shape.statements.is_empty() {
            answer.finish();
        }
        answer
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.shape.chunked
    }

    /// Nothing more will be added; what is in the buffer is the end.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// True when [`Answer::push`] must be called next, false when [`Answer::step`] must be.
    pub(crate) fn wants_piece(&self) -> bool {
        self.pending.is_none() && !self.is_finished
    }

    /// True when the buffer should go out before more is added.
    pub(crate) fn should_flush(&self) -> bool {
        let is_large = match &self.document {
            Some(OpenDocument { start: None, .. }) => self.out.len() >= FLUSH_BYTES,
            _ => self.out.len() >= HELD_BYTES,
        };
        self.is_finished || self.is_flush_due || (is_large && self.encoder.is_streamable())
    }

    /// Takes the bytes that are ready.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.is_flush_due = false;
        if let Some(document) = &mut self.document {
            document.start = None;
            if let Some(result) = &mut document.result {
                result.start = None;
            }
        }
        let capacity = if self.is_finished { 0 } else { self.out.len().min(FLUSH_BYTES) + 16 * 1024 };
        std::mem::replace(&mut self.out, Vec::with_capacity(capacity))
    }

    /// Adds the next piece, or the end of the pieces.
    pub(crate) fn push(&mut self, piece: Option<Piece>) {
        assert!(self.wants_piece(), "a piece behind the end or behind one that is not yet encoded");
        match piece {
            None => self.fail(ENDED_EARLY),
            Some(Piece::Series { statement, series, more }) => {
                self.enter(statement);
                if !self.is_finished {
                    self.pending = Some(Pending { series, next_row: 0, more });
                }
            }
            Some(Piece::Zone { statement, zone }) => {
                self.enter(statement);
                self.encoder.set_zone(Some(zone));
            }
            Some(Piece::Message { statement, level, text }) => {
                self.enter(statement);
                self.messages.push(Message { level, text });
            }
            Some(Piece::Error { statement, text }) => {
                self.enter(statement);
                if !self.is_finished {
                    self.fail(&text);
                }
            }
            Some(Piece::StatementDone(statement)) => {
                self.enter(statement);
                if !self.is_finished {
                    self.finish_statement();
                }
            }
        }
    }

    /// Encodes some rows of the pending piece.
    pub(crate) fn step(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        if self.shape.chunked {
            self.step_chunked(pending);
        } else {
            self.step_merged(pending);
        }
        if !self.encoder.is_streamable() && self.out.len() > self.shape.document_bytes_max && !self.is_finished {
            self.refuse_unstreamable();
        }
    }

    /// A piece of `statement` came: it must be the current one.
    fn enter(&mut self, statement: u32) {
        if statement != self.statement {
            tracing::error!(expected = self.statement, came = statement, "pieces out of order");
            self.fail(ENDED_EARLY);
        }
    }

    fn statement_shape(&self) -> StatementShape {
        self.shape.statements.get(self.statement as usize).cloned().unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        self.shape.statements.get(self.statement as usize).is_some_and(|shape| shape.is_whole)
    }

    fn open_result(&mut self) -> &mut OpenResult {
        let document = self.document.get_or_insert_with(|| {
            let start = self.out.len();
            self.encoder.begin_document(&mut self.out);
            OpenDocument { start: Some(start), result: None }
        });
        document.result.get_or_insert_with(|| {
            let start = self.out.len();
            self.encoder.begin_result(&mut self.out, self.statement);
            OpenResult { start: Some(start), series: None }
        })
    }

    fn open_series(&self) -> Option<&OpenSeries> {
        self.document.as_ref()?.result.as_ref()?.series.as_ref()
    }

    fn begin_series(&mut self, series: &ResultSeries) {
        self.end_series(false);
        self.open_result().series =
            Some(OpenSeries { name: series.name.clone(), tags: series.tags.clone(), row_count: 0 });
        self.encoder.begin_series(&mut self.out, series);
    }

    fn end_series(&mut self, partial: bool) {
        let result = self.document.as_mut().and_then(|document| document.result.as_mut());
        if result.and_then(|result| result.series.take()).is_some() {
            self.encoder.end_series(&mut self.out, partial);
        }
    }

    /// Ends the open result and everything in it. The messages go with it.
    fn end_result(&mut self, partial: bool, error: Option<&str>) {
        self.end_series(false);
        if self.document.as_mut().and_then(|document| document.result.take()).is_some() {
            let messages = std::mem::take(&mut self.messages);
            self.encoder.end_result(&mut self.out, &messages, partial, error);
        }
    }

    fn end_document(&mut self) {
        if self.document.take().is_some() {
            self.encoder.end_document(&mut self.out, None);
            self.document_count += 1;
            self.is_flush_due = true;
        }
    }

    fn finish(&mut self) {
        if !self.shape.chunked && self.document.is_none() {
            self.encoder.begin_document(&mut self.out);
            self.document = Some(OpenDocument { start: None, result: None });
        }
        self.end_document();
        self.is_finished = true;
        self.pending = None;
    }

    /// Appends up to `count_max` rows to the open series. False when a value could not be spelled, which ends the
    /// answer.
    fn encode_rows(&mut self, pending: &mut Pending, count_max: usize) -> bool {
        let count = (pending.series.row_count() - pending.next_row).min(ROWS_PER_STEP).min(count_max);
        let rows = pending.next_row..pending.next_row + count;
        pending.next_row = rows.end;
        self.row_count += count;
        if let Some(series) = self.document.as_mut().and_then(|open| open.result.as_mut()?.series.as_mut()) {
            series.row_count += count;
        }
        match self.encoder.rows(&mut self.out, &pending.series, rows) {
            Ok(()) => true,
            Err(error) => {
                self.fail_encoding(&error);
                false
            }
        }
    }

    fn step_merged(&mut self, mut pending: Pending) {
        if !self.open_series().is_some_and(|open| open.continues_as(&pending.series)) {
            self.begin_series(&pending.series);
        }
        let limit = self.shape.row_count_max;
        let budget = if limit == 0 { usize::MAX } else { limit - self.row_count };
        if !self.encode_rows(&mut pending, budget) {
            return;
        }
        let is_exhausted = pending.next_row == pending.series.row_count();
        if limit > 0 && self.row_count >= limit {
            self.end_series(!is_exhausted || pending.series.partial);
            self.warn();
            self.end_result(false, None);
            return self.finish();
        }
        if !is_exhausted {
            self.pending = Some(pending);
        }
    }

    fn step_chunked(&mut self, mut pending: Pending) {
        let chunk_size = if self.is_whole() { usize::MAX } else { self.shape.chunk_size.max(1) };
        match self.open_series().map(|open| (open.continues_as(&pending.series), open.row_count)) {
            Some((true, row_count)) if row_count < chunk_size => {}
            Some((same_series, _)) => {
                self.end_chunk(Follow { same_series, same_statement: true });
                self.begin_series(&pending.series);
            }
            None => self.begin_series(&pending.series),
        }
        let row_count = self.open_series().map_or(0, |open| open.row_count);
        if !self.encode_rows(&mut pending, chunk_size - row_count) {
            return;
        }
        let is_full = self.open_series().is_some_and(|open| open.row_count >= chunk_size);
        let is_exhausted = pending.next_row == pending.series.row_count();
        let same_series = !is_exhausted || pending.series.partial;
        let same_statement = same_series || pending.more;
        // A document that is not full waits for more rows of its series; one of which it is not certain that it is
        // the last one waits for the next piece.
        let is_certain = same_statement && (is_full || !same_series);
        if is_certain {
            self.end_chunk(Follow { same_series, same_statement });
        }
        if !is_exhausted {
            self.pending = Some(pending);
        }
    }

    fn end_chunk(&mut self, follow: Follow) {
        let is_whole = self.is_whole();
        self.end_series(follow.same_series && !is_whole);
        let messages = if follow.same_statement { std::mem::take(&mut self.messages) } else { Vec::new() };
        self.end_result(follow.same_statement && !is_whole, None);
        self.messages.extend(messages);
        self.end_document();
    }

    /// Adds the warning of the statement to its messages.
    fn warn(&mut self) {
        if let Some(text) = self.statement_shape().warning {
            self.messages.insert(0, Message { level: "warning".to_owned(), text });
        }
    }

    fn finish_statement(&mut self) {
        self.warn();
        let is_open = self.document.as_ref().is_some_and(|document| document.result.is_some());
        if self.shape.chunked {
            if is_open || self.document_count == 0 || !self.messages.is_empty() {
                self.open_result();
                self.end_chunk(Follow { same_series: false, same_statement: false });
            }
        } else {
            self.open_result();
            self.end_result(false, None);
        }
        self.next_statement();
        if self.statement as usize == self.shape.statements.len() {
            self.finish();
        }
    }

    fn next_statement(&mut self) {
        self.statement += 1;
        self.document_count = 0;
        self.messages.clear();
        self.encoder.set_zone(None);
    }

    /// The current statement failed: reports it and all later ones, and ends the answer.
    fn fail(&mut self, text: &str) {
        self.pending = None;
        self.messages.clear();
        if self.shape.chunked {
            self.end_chunk(Follow { same_series: false, same_statement: true });
        } else {
            self.rewind_result();
        }
        self.open_result();
        self.end_result(false, Some(text));
        self.next_statement();
        while (self.statement as usize) < self.shape.statements.len() {
            if self.shape.chunked {
                self.end_document();
            }
            self.open_result();
            self.end_result(false, Some(NOT_EXECUTED));
            self.next_statement();
        }
        self.finish();
    }

    /// Takes back the open result if all of it is still here.
    fn rewind_result(&mut self) {
        let Some(document) = &mut self.document else { return };
        if let Some(OpenResult { start: Some(start), .. }) = document.result {
            self.out.truncate(start);
            self.encoder.rewind_result();
            document.result = None;
        }
    }

    /// A value has no spelling: the document is replaced by that error while all of it is here, else the error
    /// stands in the result that has it.
    fn fail_encoding(&mut self, error: &EncodeError) {
        self.pending = None;
        self.messages.clear();
        let text = error.to_string();
        match self.document.as_ref().and_then(|document| document.start) {
            Some(start) => {
                self.out.truncate(start);
                push_error_document(&mut self.out, &text);
                self.document = None;
            }
            None => {
                self.end_result(false, Some(&text));
                self.end_document();
            }
        }
        self.is_finished = true;
    }

    fn refuse_unstreamable(&mut self) {
        let start = self.document.take().and_then(|document| document.start).unwrap_or(0);
        self.out.truncate(start);
        let text = format!(
            "the answer exceeds {} bytes in a format that is not streamed; ask with chunked=true",
            self.shape.document_bytes_max
        );
        self.encoder.begin_document(&mut self.out);
        self.encoder.end_document(&mut self.out, Some(&text));
        self.pending = None;
        self.is_finished = true;
    }
}

#[cfg(test)]
mod tests;
