//! What is to be done, with every name resolved: the shape of the answer and one scan per measurement.
//!
//! Invariants: all scans of a plan share one [`Shape`], so the accumulators and rows that parts of different scans and
//! cores emit have the same columns in the same order. A plan does not change once made.

use crate::accumulator::AccumulatorSpec;
use crate::condition::Condition;
use crate::evaluate::EvalExpr;
use crate::join::Leg;
use crate::limit::{RowLimit, SeriesLimit};
use crate::schema::{SourceIndex, SourceSchema};
use crate::sort::SortPlan;
use crate::tag_filter::TagFilter;
use crate::window::Windows;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemill_column::FieldType;
use tidemill_influxql::Fill;

/// A field as the plan sees it. Two casts of one field are two columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadColumn {
    pub name: String,
    pub field_type: FieldType,
}

/// Something of a row that is not computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeafRef {
    /// Index into [`Shape::columns`].
    Field(usize),
    Tag(String),
}

impl LeafRef {
    pub(crate) fn field_type(&self, columns: &[ReadColumn]) -> FieldType {
        match self {
            LeafRef::Field(column) => columns[*column].field_type,
            LeafRef::Tag(_) => FieldType::String,
        }
    }
}

/// One column of the answer behind `time`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Output {
    pub expr: EvalExpr,
    pub field_type: FieldType,
}

/// How the value of a function comes out of accumulators, which are named by index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finish {
    Count(usize),
    CountDistinct(usize),
    Sum(usize),
    Mean(usize),
    Pick(usize),
    /// The one best row of a collecting accumulator.
    Best(usize),
    Spread {
        min: usize,
        max: usize,
    },
    Median(usize),
    Mode(usize),
    Stddev(usize),
    Percentile {
        accumulator: usize,
        percent: f64,
    },
    Distinct(usize),
    /// top() and bottom(): all rows that were kept, by time.
    Ranked(usize),
}

impl Finish {
    /// The accumulator that says whether there is a value at all.
    pub(crate) fn accumulator(&self) -> usize {
        match self {
            Finish::Count(accumulator)
            | Finish::CountDistinct(accumulator)
            | Finish::Sum(accumulator)
            | Finish::Mean(accumulator)
            | Finish::Pick(accumulator)
            | Finish::Best(accumulator)
            | Finish::Spread { min: accumulator, .. }
            | Finish::Median(accumulator)
            | Finish::Mode(accumulator)
            | Finish::Stddev(accumulator)
            | Finish::Percentile { accumulator, .. }
            | Finish::Distinct(accumulator)
            | Finish::Ranked(accumulator) => *accumulator,
        }
    }

    /// Gives any number of rows a window, so that empty windows are not filled.
    pub(crate) fn gives_rows(&self) -> bool {
        matches!(self, Finish::Distinct(_) | Finish::Ranked(_))
    }

    /// Is zero in an empty window.
    pub(crate) fn counts(&self) -> bool {
        matches!(self, Finish::Count(_) | Finish::CountDistinct(_))
    }
}

/// One function call of the statement. `None`: its field does not exist, so it never has a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallPlan {
    pub finish: Option<Finish>,
    pub field_type: FieldType,
    /// fill() makes up values only for what has a type, the field's or the function's own.
    pub has_type: bool,
    /// The call with the types of its names.
    pub text: String,
}

/// What EXPLAIN shows of one call, or of rows as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanExplanation {
    /// The call with the types of its names; `None` for rows as they are.
    pub expression: Option<String>,
    /// What comes along with it, each name with its type.
    pub auxiliary: Vec<String>,
}

/// Functions over windows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Aggregate {
    pub accumulators: Vec<AccumulatorSpec>,
    /// Leaves `0..calls.len()` of the output expressions.
    pub calls: Vec<CallPlan>,
    /// The leaves behind the calls: fields and tags beside the only selector.
    pub carried: Vec<LeafRef>,
    /// Rows stand at the time of the selected point, not at the start of the window.
    pub own_times: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    /// Rows as they are; the leaves of the output expressions.
    Raw {
        leaves: Vec<LeafRef>,
    },
    Aggregate(Aggregate),
}

/// What all scans of a plan have in common.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    /// `time` first.
    pub column_names: Arc<[String]>,
    pub outputs: Vec<Output>,
    pub columns: Vec<ReadColumn>,
    /// GROUP BY tags, sorted.
    pub dimensions: Vec<String>,
    pub windows: Windows,
    /// Inclusive.
    pub time_range: (i64, i64),
    pub descending: bool,
    /// Only tags are selected: a row is there when any field that is read has a value.
    pub tags_only: bool,
    pub fill: Fill,
    pub row_limit: RowLimit,
    pub series_limit: SeriesLimit,
    pub work: Work,
}

/// A statement that is ready to run.
#[derive(Debug)]
pub struct Plan {
    pub(crate) shape: Arc<Shape>,
    pub(crate) scans: Vec<Arc<ScanPlan>>,
    pub(crate) legs: Vec<Leg>,
    pub(crate) sort: Option<SortPlan>,
}

impl Plan {
    /// Whether the rows are still to be ordered, by a [`Sort`](crate::Sort).
    pub fn is_sorted_later(&self) -> bool {
        self.sort.is_some()
    }

    /// One scan per measurement, database and retention policy; every partition runs each of them.
    pub fn scans(&self) -> &[Arc<ScanPlan>] {
        &self.scans
    }

    /// The order of the answer's rows.
    pub fn is_ascending(&self) -> bool {
        !self.shape.descending
    }

    /// Plans whose answers are joined to that of this one, which then scans nothing itself.
    pub fn legs(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.legs.iter().map(|leg| &leg.plan)
    }

    /// One entry a call.
    pub fn explanations(&self) -> Vec<PlanExplanation> {
        if !self.legs.is_empty() {
            let of_leg = |leg: &Leg| PlanExplanation { expression: Some(leg.text.clone()), auxiliary: Vec::new() };
            return self.legs.iter().map(of_leg).collect();
        }
        let named = |leaf: &LeafRef| match leaf {
            LeafRef::Field(column) => {
                let column = &self.shape.columns[*column];
                format!("{}::{}", column.name, column.field_type)
            }
            LeafRef::Tag(name) => format!("{name}::tag"),
        };
        match &self.shape.work {
            Work::Raw { leaves } => {
                vec![PlanExplanation { expression: None, auxiliary: leaves.iter().map(named).collect() }]
            }
            Work::Aggregate(aggregate) => {
                let auxiliary: Vec<String> = aggregate.carried.iter().map(named).collect();
                let of_call = |call: &CallPlan| PlanExplanation {
                    expression: Some(call.text.clone()),
                    auxiliary: auxiliary.clone(),
                };
                aggregate.calls.iter().map(of_call).collect()
            }
        }
    }

    /// All scans, those of the plans that are joined included.
    pub fn all_scans(&self) -> Vec<&Arc<ScanPlan>> {
        let of_legs = self.legs.iter().flat_map(|leg| leg.plan.all_scans());
        self.scans.iter().chain(of_legs).collect()
    }

    /// What this plan's answer has for the statement around it, whose FROM names it as number `subquery`.
    pub fn schemas(&self, subquery: usize) -> Vec<SourceSchema> {
        let mut fields = BTreeMap::new();
        let mut tag_keys: BTreeSet<String> = self.shape.dimensions.iter().cloned().collect();
        for (name, kind) in self.answer_columns() {
            match kind {
                Some(field_type) => drop(fields.entry(name.to_owned()).or_insert(field_type)),
                None => drop(tag_keys.insert(name.to_owned())),
            }
        }
        let schema = |measurement: &str| SourceSchema {
            source: SourceIndex::Subquery(subquery),
            database: String::new(),
            retention_policy: String::new(),
            measurement: measurement.to_owned(),
            fields: fields.clone(),
            tag_keys: tag_keys.clone(),
        };
        self.measurements().into_iter().map(schema).collect()
    }

    /// The columns behind `time`: their types, or `None` for those that show a tag.
    pub(crate) fn answer_columns(&self) -> impl Iterator<Item = (&str, Option<FieldType>)> {
        let is_tag = |output: &Output| match (&output.expr, &self.shape.work) {
            (EvalExpr::Leaf(leaf), Work::Raw { leaves }) => matches!(leaves.get(*leaf), Some(LeafRef::Tag(_))),
            (EvalExpr::Leaf(leaf), Work::Aggregate(aggregate)) => {
                let carried = leaf.checked_sub(aggregate.calls.len()).and_then(|at| aggregate.carried.get(at));
                matches!(carried, Some(LeafRef::Tag(_)))
            }
            _ => false,
        };
        let kinds = self.shape.outputs.iter().map(move |output| (!is_tag(output)).then_some(output.field_type));
        self.shape.column_names.iter().skip(1).map(String::as_str).zip(kinds)
    }

    fn measurements(&self) -> BTreeSet<&str> {
        let own = self.scans.iter().map(|scan| scan.measurement.as_str());
        own.chain(self.legs.iter().flat_map(|leg| leg.plan.measurements())).collect()
    }

    /// ns, inclusive.
    pub fn time_range(&self) -> (i64, i64) {
        self.shape.time_range
    }

    /// The names of the answer's columns, `time` (or its alias) first.
    pub fn column_names(&self) -> &Arc<[String]> {
        &self.shape.column_names
    }
}

/// The scan of one measurement.
#[derive(Debug)]
pub struct ScanPlan {
    pub(crate) shape: Arc<Shape>,
    pub(crate) source: SourceIndex,
    pub(crate) database: String,
    pub(crate) retention_policy: String,
    pub(crate) measurement: String,
    pub(crate) fields: Vec<(String, FieldType)>,
    /// For each column of the plan its place in `fields`, unless the measurement has no such field.
    pub(crate) column_fields: Vec<Option<usize>>,
    pub(crate) condition: Condition,
    pub(crate) tag_filter: TagFilter,
}

impl ScanPlan {
    /// Where the rows come from.
    pub fn source(&self) -> SourceIndex {
        self.source
    }

    /// Rows outside are not looked at, ns, inclusive. Those of a statement in FROM may stand at the start of a window,
    /// before the range.
    pub(crate) fn rows_range(&self) -> (i64, i64) {
        match self.source {
            SourceIndex::Measurement(_) => self.shape.time_range,
            SourceIndex::Subquery(_) => (i64::MIN, i64::MAX),
        }
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    pub fn retention_policy(&self) -> &str {
        &self.retention_policy
    }

    pub fn measurement(&self) -> &str {
        &self.measurement
    }

    /// Which series to scan. Letting through more of them does no harm.
    pub fn tag_filter(&self) -> &TagFilter {
        &self.tag_filter
    }

    /// The fields to read, in the order in which [`Points::columns`](tidemill_column::Points) must hold them, with the
    /// type that wins when shards differ. Columns of another type are accepted.
    pub fn fields(&self) -> &[(String, FieldType)] {
        &self.fields
    }

    /// ns, inclusive.
    pub fn time_range(&self) -> (i64, i64) {
        self.shape.time_range
    }

    /// Whether the batches of a series must come newest first. Rows ascend within a batch in either case.
    pub fn descending(&self) -> bool {
        match &self.shape.work {
            Work::Raw { .. } => self.shape.descending,
            Work::Aggregate(_) => self.early_pick() == Some(crate::accumulator::PickKind::Last),
        }
    }

    /// First and last instant of the window that holds `time`: a block between them may be given by its summary.
    pub fn window_bounds(&self, time: i64) -> (i64, i64) {
        let (start, last) = self.shape.windows.bounds(time);
        if self.shape.windows.is_cut() { (start, last) } else { (i64::MIN, i64::MAX) }
    }

    /// When only first (or only last) values are asked for: a series is done with as soon as they are found.
    pub(crate) fn early_pick(&self) -> Option<crate::accumulator::PickKind> {
        use crate::accumulator::{AccumulatorKind, PickKind};
        let Work::Aggregate(aggregate) = &self.shape.work else { return None };
        let kind = match aggregate.accumulators.first()?.kind {
            AccumulatorKind::Pick(kind @ (PickKind::First | PickKind::Last)) => kind,
            _ => return None,
        };
        let same = |spec: &AccumulatorSpec| spec.kind == AccumulatorKind::Pick(kind);
        (!self.shape.windows.is_cut() && aggregate.accumulators.iter().all(same)).then_some(kind)
    }
}
