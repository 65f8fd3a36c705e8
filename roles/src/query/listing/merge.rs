//! The part of whoever asked: the runs of one list, merged.

use crate::{
    data::{DataCore, message::CallError},
    query::{
        StatementError,
        account::Charge,
        listing::{PageOrder, Run},
    },
};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, binary_heap::PeekMut},
    rc::Rc,
};
use tidemill_column::Strings;

/// Rows of all pages together, and of one.
const PAGES_ROWS: usize = 64 * 1024;
const PAGE_ROWS_MIN: usize = 32;
const PAGE_ROWS_MAX: usize = 4096;

/// A list whose runs are on their cores.
pub(in crate::query) struct Merge {
    core: Rc<DataCore>,
    runs: Vec<Rest>,
    /// The smallest row of each run that has any left.
    heads: BinaryHeap<Reverse<Head>>,
    page_rows: usize,
    pages_bytes: usize,
    charge: Charge,
}

/// What of a run was not asked for yet.
struct Rest {
    run: Run,
    next: usize,
}

/// A row of a page.
struct Head {
    page: Rc<Strings>,
    at: usize,
    run: usize,
}

impl Head {
    fn text(&self) -> &[u8] {
        self.page.value(self.at)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        self.text().cmp(other.text()).then(self.run.cmp(&other.run))
    }
}

impl Merge {
    /// Begins with the first page of each run; `charge` is of nothing yet.
    pub async fn begin(core: Rc<DataCore>, runs: Vec<Run>, charge: Charge) -> Result<Merge, StatementError> {
        let page_rows = (PAGES_ROWS / runs.len().max(1)).clamp(PAGE_ROWS_MIN, PAGE_ROWS_MAX);
        let runs: Vec<Rest> = runs.into_iter().map(|run| Rest { run, next: 0 }).collect();
        let mut merge = Merge { core, runs, heads: BinaryHeap::new(), page_rows, pages_bytes: 0, charge };
        // All of them are on their way before the first is waited for.
        let mut pages = Vec::with_capacity(merge.runs.len());
        for run in 0..merge.runs.len() {
            if let Some(order) = merge.next_page(run)? {
                pages.push((run, merge.core.texts(order)));
            }
        }
        for (run, page) in pages {
            merge.take(run, page.await?)?;
        }
        Ok(merge)
    }

    /// Whether there are more rows.
    pub fn has_more(&self) -> bool {
        !self.heads.is_empty()
    }

    /// Appends the next row to `rows`, if there is one; a row that is in several runs comes once.
    pub async fn next(&mut self, rows: &mut Strings) -> Result<(), StatementError> {
        let Some(Reverse(first)) = self.heads.peek() else { return Ok(()) };
        rows.push(first.text());
        loop {
            self.advance().await?;
            let is_same = |Reverse(head): &Reverse<Head>| head.text() == rows.value(rows.len() - 1);
            if !self.heads.peek().is_some_and(is_same) {
                return Ok(());
            }
        }
    }

    /// Passes the smallest row.
    async fn advance(&mut self) -> Result<(), StatementError> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(()) };
        if head.0.at + 1 < head.0.page.len() {
            head.0.at += 1;
            return Ok(());
        }
        let Reverse(Head { page, run, .. }) = PeekMut::pop(head);
        self.pages_bytes -= page.byte_size();
        self.turn_page(run).await
    }

    async fn turn_page(&mut self, run: usize) -> Result<(), StatementError> {
        let Some(order) = self.next_page(run)? else { return Ok(()) };
        let page = self.core.texts(order).await?;
        self.take(run, page)
    }

    /// What is to be asked for the next page of a run, if it has one.
    fn next_page(&mut self, run: usize) -> Result<Option<PageOrder>, StatementError> {
        let Rest { run: of, next } = &mut self.runs[run];
        let end = of.ids.len().min(*next + self.page_rows);
        if *next == end {
            return Ok(None);
        }
        let order = PageOrder { source: of.source.clone(), ids: of.ids[*next..end].to_vec() };
        *next = end;
        if end == of.ids.len() {
            // Their memory is of no more use.
            (of.ids, *next) = (Vec::new(), 0);
            of.charge.set(0)?;
        }
        Ok(Some(order))
    }

    fn take(&mut self, run: usize, page: Strings) -> Result<(), StatementError> {
        if page.is_empty() {
            return Err(CallError::Unknown("the database was dropped".to_owned()).into());
        }
        self.pages_bytes += page.byte_size();
        self.charge.set(self.pages_bytes)?;
        self.heads.push(Reverse(Head { page: Rc::new(page), at: 0, run }));
        Ok(())
    }
}
