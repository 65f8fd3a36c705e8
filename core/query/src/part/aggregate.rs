//! The part of an aggregation: series after series into the windows of a group, group after group.

use crate::accumulator::{AccumulatorKind, BlockSummary};
use crate::condition::Condition;
use crate::part::batch::Batch;
use crate::part::output::{PartBody, WindowPiece};
use crate::part::window_table::WindowTable;
use crate::part::{
    Group, PART_OUTPUT_BYTES_MAX, PART_OUTPUT_WINDOWS_MAX, PartDemand, PartOutput, PartSeries, tag_value,
};
use crate::plan::{ScanPlan, Work};
use std::sync::Arc;
use tidemill_column::{FieldType, Points};

pub(super) struct AggregatePart {
    scan: Arc<ScanPlan>,
    series: Vec<PartSeries>,
    groups: std::vec::IntoIter<Group>,
    group: Option<OpenGroup>,
    table: WindowTable,
    /// Groups that were emitted, for SLIMIT.
    emitted_groups: u64,
    /// Summaries of blocks say all that is asked of their rows.
    is_summable: bool,
    /// Only first or only last values are asked for.
    is_early_pick: bool,
}

struct OpenGroup {
    values: Arc<[String]>,
    series: std::vec::IntoIter<u32>,
    /// The series whose rows are wanted, with what its tags leave of the condition.
    wanted: Option<(u32, Condition)>,
    /// For each accumulator, whether the wanted series has given a value.
    met: Vec<bool>,
    emitting: Option<Emitting>,
}

/// A group whose rows are all in.
struct Emitting {
    order: std::vec::IntoIter<u32>,
    present: Vec<bool>,
}

impl AggregatePart {
    pub(super) fn new(scan: Arc<ScanPlan>, series: Vec<PartSeries>, groups: Vec<Group>) -> AggregatePart {
        let table = WindowTable::new(scan.shape.clone());
        let (is_summable, is_early_pick) = (is_summable(&scan), scan.early_pick().is_some());
        let groups = groups.into_iter();
        AggregatePart { scan, series, groups, group: None, table, emitted_groups: 0, is_summable, is_early_pick }
    }

    pub(super) fn poll(&mut self) -> PartDemand {
        loop {
            let Some(group) = &mut self.group else {
                if self.scan.shape.series_limit.is_reached(self.emitted_groups) {
                    return PartDemand::Done;
                }
                let Some(group) = self.groups.next() else { return PartDemand::Done };
                self.group = Some(OpenGroup {
                    values: group.values,
                    series: group.series.into_iter(),
                    wanted: None,
                    met: Vec::new(),
                    emitting: None,
                });
                continue;
            };
            if let Some(emitting) = &mut group.emitting {
                let slots: Vec<u32> = emitting.order.by_ref().take(PART_OUTPUT_WINDOWS_MAX).collect();
                if slots.is_empty() {
                    self.group = None;
                    self.table.clear();
                    self.emitted_groups += 1;
                    continue;
                }
                let (starts, accumulators) = self.table.take(&slots);
                let body = PartBody::Windows(WindowPiece { starts, accumulators, present: emitting.present.clone() });
                return PartDemand::Emit(PartOutput { group: group.values.clone(), body });
            }
            // The only window of a group may hold every value of every series: it is sent on in pieces, which the
            // merge joins again.
            let is_cut = self.scan.shape.windows.is_cut();
            if !is_cut && self.table.byte_size() > PART_OUTPUT_BYTES_MAX && keeps_everything(&self.scan) {
                let present = self.table.present();
                let (starts, accumulators) = self.table.take(&[0]);
                self.table.clear();
                let body = PartBody::Windows(WindowPiece { starts, accumulators, present });
                return PartDemand::Emit(PartOutput { group: group.values.clone(), body });
            }
            if let Some((series, _)) = &group.wanted {
                return PartDemand::Points(*series);
            }
            match group.series.next() {
                Some(series) => {
                    let tags = &self.series[series as usize].tags;
                    let condition = self.scan.condition.fold(&|name| tag_value(tags, name));
                    if condition != Condition::Constant(false) {
                        group.wanted = Some((series, condition));
                        group.met.clear();
                    }
                }
                None if self.table.is_empty() => self.group = None,
                None => {
                    let order = self.table.order().into_iter();
                    group.emitting = Some(Emitting { order, present: self.table.present() });
                }
            }
        }
    }

    pub(super) fn supply(&mut self, series: u32, points: Option<Points>) {
        let group = self.group.as_mut().expect("rows are supplied when they are demanded");
        let (wanted, condition) = group.wanted.as_ref().expect("rows are supplied when they are demanded");
        assert!(*wanted == series, "rows of series {series} where {wanted} was demanded");
        let Some(points) = points else {
            group.wanted = None;
            return;
        };
        let batch = Batch::new(&self.scan, &points, condition);
        let one = &self.series[series as usize];
        let met = self.table.add(&batch, &one.key, &one.tags);
        if self.is_early_pick {
            group.met.resize(met.len(), false);
            group.met.iter_mut().zip(met).for_each(|(met, now)| *met |= now);
            if group.met.iter().all(|met| *met) {
                group.wanted = None;
            }
        }
    }

    pub(super) fn accepts_statistics(&self, series: u32) -> bool {
        let wanted = self.group.as_ref().and_then(|group| group.wanted.as_ref());
        let is_unfiltered =
            wanted.is_some_and(|(wanted, condition)| *wanted == series && *condition == Condition::Constant(true));
        self.is_summable && is_unfiltered
    }

    /// Returns whether more of the series is wanted.
    pub(super) fn supply_statistics(&mut self, summaries: &[BlockSummary]) -> bool {
        for summary in summaries {
            for column in 0..self.scan.column_fields.len() {
                if self.scan.column_fields[column] == Some(summary.column as usize) {
                    self.table.summarise(column, summary);
                    self.note_met(column);
                }
            }
        }
        self.group.as_ref().is_some_and(|group| group.wanted.is_some())
    }

    /// A column had a value: a series of which only the first or the last is asked for may be done with.
    fn note_met(&mut self, column: usize) {
        let (Some(group), Work::Aggregate(aggregate)) = (&mut self.group, &self.scan.shape.work) else { return };
        if self.is_early_pick {
            group.met.resize(aggregate.accumulators.len(), false);
            let of_column = group.met.iter_mut().zip(&aggregate.accumulators);
            of_column.for_each(|(met, spec)| *met |= spec.column == column);
            if group.met.iter().all(|met| *met) {
                group.wanted = None;
            }
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.table.byte_size()
    }
}

/// Whether summaries of blocks say all that is asked of their rows.
fn is_summable(scan: &ScanPlan) -> bool {
    let Work::Aggregate(aggregate) = &scan.shape.work else { return false };
    let has_summary = aggregate.accumulators.iter().all(|spec| match spec.kind {
        AccumulatorKind::Count => true,
        AccumulatorKind::Sum | AccumulatorKind::Pick(_) => spec.field_type != FieldType::String,
        AccumulatorKind::Collect { .. } | AccumulatorKind::Distinct => false,
    });
    // A summary speaks for the field's own type; a cast column would need its rows.
    let mut columns = scan.shape.columns.iter().zip(&scan.column_fields);
    has_summary && columns.all(|(column, field)| field.is_none_or(|field| scan.fields[field].1 == column.field_type))
}

/// Whether an accumulator grows with the rows.
fn keeps_everything(scan: &ScanPlan) -> bool {
    let Work::Aggregate(aggregate) = &scan.shape.work else { return false };
    aggregate.accumulators.iter().any(|spec| {
        matches!(spec.kind, AccumulatorKind::Collect { keep: crate::accumulator::Keep::All, .. })
            || spec.kind == AccumulatorKind::Distinct
    })
}
