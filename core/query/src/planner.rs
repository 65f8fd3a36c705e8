//! From a checked statement and the schemas of its sources to a plan: names resolved, wildcards expanded, types checked.

use crate::QueryError;
use crate::accumulator::{AccumulatorKind, AccumulatorSpec, Better, Keep, PickKind, Rank};
use crate::arithmetic_type::{ExprType, binary_type, literal_type};
use crate::compile::{Compiled, CompiledField, look_back};
use crate::condition::Condition;
use crate::evaluate::EvalExpr;
use crate::functions::{Function, has_type};
use crate::join::Leg;
use crate::limit::{RowLimit, SeriesLimit};
use crate::math::MathFunction;
use crate::names::column_names;
use crate::plan::{Aggregate, CallPlan, Finish, LeafRef, Output, Plan, ReadColumn, ScanPlan, Shape, Work};
use crate::resolve::ConditionResolver;
use crate::schema::{Meaning, Names, SourceIndex, SourceSchema, data_type};
use crate::sort::SortPlan;
use crate::stream::{StreamFunction, StreamSpec};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemill_column::{FieldType, Value};
use tidemill_influxql::{Call, DataType, Expr, Fill, VarRef};

/// Columns of the plan while it is made.
#[derive(Default)]
pub(crate) struct Columns(Vec<ReadColumn>);

impl Columns {
    pub(crate) fn index(&mut self, name: &str, field_type: FieldType) -> usize {
        let wanted = |column: &ReadColumn| column.name == name && column.field_type == field_type;
        self.0.iter().position(wanted).unwrap_or_else(|| {
            self.0.push(ReadColumn { name: name.to_owned(), field_type });
            self.0.len() - 1
        })
    }
}

struct Planner<'a> {
    names: &'a Names,
    columns: Columns,
    /// Functions by their text with types: equal calls are computed once.
    calls: Vec<(Call, CallPlan)>,
    accumulators: Vec<AccumulatorSpec>,
    /// Plain references: the leaves of a raw select, what a selector carries along otherwise.
    leaves: Vec<LeafRef>,
    /// The only call is a selector beside plain references.
    carries: bool,
    /// Functions stand in the statement, so plain references are leaves behind the calls.
    aggregates: bool,
    call_count: usize,
    /// Draws samples.
    seed: u64,
}

impl Compiled {
    /// The plan over these measurements.
    ///
    /// # Errors
    /// Types do not fit; the text is upstream's.
    pub fn plan(&self, schemas: Vec<SourceSchema>) -> Result<Plan, QueryError> {
        let names = Names::of(&schemas);
        let fields = names.expand(&self.fields, &self.select.dimensions)?;
        let named = fields.iter().map(|field| (&field.expr, field.alias.as_deref()));
        let column_names = column_names(self.time_alias.as_deref(), named);
        let sort = match schemas.is_empty() {
            true => None,
            false => {
                SortPlan::of(&self.sort, RowLimit::new(self.select.limit, self.select.offset), &fields, &column_names)?
            }
        };
        if self.is_joined {
            let plan = self.plan_join(&names, &fields, column_names, &schemas)?;
            return Ok(Plan { sort, ..plan });
        }

        let mut calls: Vec<&Call> = Vec::new();
        for field in &fields {
            outer_calls(&field.expr, &mut calls);
        }
        let mut plain = 0;
        fields.iter().for_each(|field| plain += plain_references(&field.expr));
        let mut planner = Planner {
            names: &names,
            columns: Columns::default(),
            calls: Vec::new(),
            accumulators: Vec::new(),
            leaves: Vec::new(),
            carries: !calls.is_empty() && plain > 0,
            aggregates: !calls.is_empty(),
            call_count: calls.len(),
            seed: self.seed,
        };
        for call in &calls {
            planner.add_call(call)?;
        }
        planner.call_count = planner.calls.len();
        let outputs = planner.outputs(&fields)?;
        let work = planner.work(self);
        let tags_only = fields.iter().all(|field| is_tag(&names, &field.expr));
        let mut columns = planner.columns;
        let mut shown = shown_columns(&work);
        if tags_only {
            shown.0 = columns_of_tagged(&schemas, &work, &mut columns);
        }
        let mut conditions = Vec::with_capacity(schemas.len());
        for schema in &schemas {
            conditions.push(match &self.condition {
                None => (Condition::Constant(true), BTreeSet::new()),
                Some(condition) => ConditionResolver::new(schema, &mut columns).resolve(condition)?,
            });
        }
        let mut shape = self.shape(&names, column_names, outputs, columns, work);
        shape.tags_only = tags_only;
        let shape = Arc::new(shape);
        let empty = self.time_range.0 > self.time_range.1;
        let scans = schemas.into_iter().zip(conditions).filter(|_| !empty).filter_map(|(schema, (condition, read))| {
            let scan = scan(&shape, schema, condition, &read, &shown)?;
            Some(Arc::new(scan))
        });
        Ok(Plan { scans: scans.collect(), shape: shape.clone(), legs: Vec::new(), sort })
    }
}

impl Compiled {
    /// A plan a call, and the expressions over what these give.
    fn plan_join(
        &self,
        names: &Names,
        fields: &[CompiledField],
        column_names: Vec<String>,
        schemas: &[SourceSchema],
    ) -> Result<Plan, QueryError> {
        let mut calls: Vec<&Call> = Vec::new();
        fields.iter().for_each(|field| outer_calls(&field.expr, &mut calls));
        let mut distinct: Vec<&Call> = Vec::new();
        for call in calls {
            if !distinct.contains(&call) {
                distinct.push(call);
            }
        }
        let mut legs = Vec::with_capacity(distinct.len());
        let mut planned = Vec::with_capacity(distinct.len());
        for call in &distinct {
            let leg = self.plan_leg(call, distinct.len() > 1, schemas)?;
            let field_type = leg.field_type;
            // A call over a name that does not exist never has a value.
            let finish = (!leg.plan.scans.is_empty()).then_some(Finish::Count(0));
            let has_type = leg.has_type;
            planned.push(((*call).clone(), CallPlan { finish, field_type, has_type, text: String::new() }));
            legs.push(leg);
        }
        let call_count = planned.len();
        let mut planner = Planner {
            names,
            columns: Columns::default(),
            calls: planned,
            accumulators: Vec::new(),
            leaves: Vec::new(),
            carries: false,
            aggregates: true,
            call_count,
            seed: self.seed,
        };
        let outputs = planner.outputs(fields)?;
        let work = Work::Raw { leaves: Vec::new() };
        let shape = self.shape(names, column_names, outputs, Columns::default(), work);
        Ok(Plan { scans: Vec::new(), shape: Arc::new(shape), legs, sort: None })
    }

    /// What all scans of the statement have in common.
    fn shape(
        &self,
        names: &Names,
        column_names: Vec<String>,
        outputs: Vec<Output>,
        columns: Columns,
        work: Work,
    ) -> Shape {
        // Rows that are ordered otherwise are counted in that order.
        let is_sorted_later = !self.sort.is_empty();
        let (limit, offset) = if is_sorted_later { (0, 0) } else { (self.select.limit, self.select.offset) };
        Shape {
            column_names: column_names.into(),
            outputs,
            columns: columns.0,
            dimensions: names.dimensions(&self.select.dimensions),
            windows: self.windows.clone(),
            time_range: self.time_range,
            descending: !self.select.is_ascending(),
            fill: self.select.fill,
            row_limit: RowLimit::new(limit, offset),
            tags_only: false,
            series_limit: SeriesLimit::new(self.select.slimit, self.select.soffset),
            work,
        }
    }

    fn plan_leg(&self, call: &Call, is_one_of_several: bool, schemas: &[SourceSchema]) -> Result<Leg, QueryError> {
        let is_ascending = self.select.is_ascending();
        let mut streams = Vec::new();
        let mut back = 0;
        let mut input = Expr::Call(call.clone());
        while let Expr::Call(outer) = &input
            && let Some(function) = StreamFunction::named(&outer.name)
        {
            let spec = StreamSpec::of(function, outer, &self.windows, !is_ascending, self.seed);
            back += spec.windows_back();
            streams.push(spec);
            let Some(inner) = outer.arguments.first().cloned() else { break };
            input = inner;
        }
        streams.reverse();
        let is_raw = !matches!(input, Expr::Call(_));
        let mut select = self.select.clone();
        (select.limit, select.offset, select.slimit, select.soffset) = (0, 0, 0, 0);
        if is_raw {
            select.fill = Fill::Null;
        }
        // Rows as they are are read from the range itself; windows are looked back to.
        let back = if is_raw { 0 } else { back };
        let compiled = Compiled {
            fields: vec![CompiledField { expr: input, alias: None }],
            time_alias: None,
            select,
            time_range: look_back(self.time_range, &self.windows, back, is_ascending),
            is_joined: false,
            is_one_of_several,
            sort: Vec::new(),
            ..self.clone()
        };
        let names = Names::of(schemas);
        // A tag of a measurement is nothing that functions take.
        let is_tag = matches!(&compiled.fields[0].expr, Expr::VarRef(name)
            if names.meaning(name) == Meaning::Tag && !names.inner_tags.contains(&name.name));
        let mut plan = compiled.plan(schemas.to_vec())?;
        if is_tag {
            plan.scans.clear();
        }
        let mut field_type = plan.shape.outputs.first().map_or(FieldType::Float, |output| output.field_type);
        if !plan.scans.is_empty() {
            for stream in &streams {
                field_type = stream.result_type(field_type)?;
            }
        }
        let text = call_text(&Names::of(schemas), call);
        let is_known = |name: &VarRef| !matches!(names.meaning(name), Meaning::Nothing);
        Ok(Leg { plan: Arc::new(plan), streams, field_type, has_type: has_type(call, &is_known), text })
    }
}

/// The scan of a measurement, unless it has none of the fields that could give a row.
fn scan(
    shape: &Arc<Shape>,
    schema: SourceSchema,
    condition: Condition,
    condition_columns: &BTreeSet<usize>,
    shown: &(BTreeSet<usize>, BTreeSet<usize>),
) -> Option<ScanPlan> {
    let (deciding, carried) = shown;
    if shape.tags_only && !shows_tag_of(&schema, &shape.work) {
        return None;
    }
    let is_inner = matches!(schema.source, SourceIndex::Subquery(_));
    let mut fields: Vec<(String, FieldType)> = Vec::new();
    let mut column_fields = vec![None; shape.columns.len()];
    for index in deciding.iter().chain(carried).chain(condition_columns) {
        let name = &shape.columns[*index].name;
        let field_type = match schema.fields.get(name) {
            Some(field_type) => *field_type,
            // What a function takes of the tags of a statement in FROM.
            None if is_inner && schema.tag_keys.contains(name) => FieldType::String,
            None => continue,
        };
        let field = fields.iter().position(|(other, _)| other == name).unwrap_or_else(|| {
            fields.push((name.clone(), field_type));
            fields.len() - 1
        });
        column_fields[*index] = Some(field);
    }
    let shows_field = deciding.iter().any(|index| column_fields[*index].is_some());
    let shows_tag = is_inner && shows_tag_of(&schema, &shape.work);
    if condition == Condition::Constant(false) || !shows_field && !shows_tag {
        return None;
    }
    Some(ScanPlan {
        shape: shape.clone(),
        source: schema.source,
        database: schema.database,
        retention_policy: schema.retention_policy,
        measurement: schema.measurement,
        fields,
        column_fields,
        tag_filter: condition.tag_filter(),
        condition,
    })
}

/// Whether a selected expression is a tag as it is.
fn is_tag(names: &Names, expr: &Expr) -> bool {
    match expr {
        Expr::Paren(inner) => is_tag(names, inner),
        Expr::VarRef(name) => matches!(names.meaning(name), Meaning::Tag),
        _ => false,
    }
}

/// Whether the measurement has one of the selected tags.
fn shows_tag_of(schema: &SourceSchema, work: &Work) -> bool {
    let Work::Raw { leaves } = work else { return false };
    let has = |leaf: &LeafRef| matches!(leaf, LeafRef::Tag(name) if schema.tag_keys.contains(name));
    leaves.iter().any(has)
}

/// All fields of the measurements that have one of the selected tags: a point of any of them is a row.
fn columns_of_tagged(schemas: &[SourceSchema], work: &Work, columns: &mut Columns) -> BTreeSet<usize> {
    let tagged = schemas.iter().filter(|schema| shows_tag_of(schema, work));
    let fields = tagged.flat_map(|schema| &schema.fields);
    fields.map(|(name, field_type)| columns.index(name, *field_type)).collect()
}

/// Columns of which one must have a value for a row to be there, and columns that only come along.
fn shown_columns(work: &Work) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let fields = |leaves: &[LeafRef]| -> BTreeSet<usize> {
        leaves.iter().filter_map(|leaf| if let LeafRef::Field(column) = leaf { Some(*column) } else { None }).collect()
    };
    match work {
        Work::Raw { leaves } => (fields(leaves), BTreeSet::new()),
        Work::Aggregate(aggregate) => {
            (aggregate.accumulators.iter().map(|spec| spec.column).collect(), fields(&aggregate.carried))
        }
    }
}

/// The calls of an expression that are not arguments of others; functions of single values are looked through.
fn outer_calls<'a>(expr: &'a Expr, calls: &mut Vec<&'a Call>) {
    match expr {
        Expr::Call(call) if MathFunction::named(&call.name).is_some() => {
            call.arguments.iter().for_each(|argument| outer_calls(argument, calls));
        }
        Expr::Call(call) => calls.push(call),
        Expr::Paren(inner) => outer_calls(inner, calls),
        Expr::Binary { left, right, .. } => {
            outer_calls(left, calls);
            outer_calls(right, calls);
        }
        _ => {}
    }
}

/// References of an expression outside of calls that are computed over rows.
fn plain_references(expr: &Expr) -> usize {
    match expr {
        Expr::VarRef(_) => 1,
        Expr::Paren(inner) => plain_references(inner),
        Expr::Binary { left, right, .. } => plain_references(left) + plain_references(right),
        Expr::Call(call) if MathFunction::named(&call.name).is_some() => {
            call.arguments.iter().map(plain_references).sum()
        }
        _ => 0,
    }
}

impl Planner<'_> {
    /// The columns of the answer behind its time.
    fn outputs(&mut self, fields: &[CompiledField]) -> Result<Vec<Output>, QueryError> {
        let mut outputs = Vec::with_capacity(fields.len());
        for field in fields {
            let (expr, expr_type) = self.expression(&field.expr)?;
            let field_type = match expr_type {
                ExprType::Field(field_type) => field_type,
                ExprType::Tag => FieldType::String,
                ExprType::Unknown | ExprType::Duration => FieldType::Float,
            };
            outputs.push(Output { expr, field_type });
        }
        Ok(outputs)
    }

    fn work(&mut self, compiled: &Compiled) -> Work {
        let leaves = std::mem::take(&mut self.leaves);
        if !self.aggregates {
            return Work::Raw { leaves };
        }
        let selectors: Vec<bool> = self.calls.iter().map(|(call, _)| selects(call)).collect();
        let ranks = self.calls.iter().any(|(call, _)| Function::named(&call.name).is_ok_and(Function::ranks));
        Work::Aggregate(Aggregate {
            accumulators: std::mem::take(&mut self.accumulators),
            calls: self.calls.drain(..).map(|(_, plan)| plan).collect(),
            carried: leaves,
            own_times: ranks || selectors == [true] && !compiled.windows.is_cut() && !compiled.is_one_of_several,
        })
    }

    fn add_call(&mut self, call: &Call) -> Result<(), QueryError> {
        if self.calls.iter().any(|(other, _)| other == call) {
            return Ok(());
        }
        let plan = self.call(call)?;
        self.calls.push((call.clone(), plan));
        Ok(())
    }

    fn leaf(&mut self, leaf: LeafRef) -> usize {
        self.leaves.iter().position(|other| *other == leaf).unwrap_or_else(|| {
            self.leaves.push(leaf);
            self.leaves.len() - 1
        })
    }

    fn accumulator(&mut self, kind: AccumulatorKind, column: usize, field_type: FieldType) -> usize {
        // A sum counts too.
        for (index, spec) in self.accumulators.iter_mut().enumerate().filter(|(_, spec)| spec.column == column) {
            match (&spec.kind, &kind) {
                (AccumulatorKind::Sum, AccumulatorKind::Count) => return index,
                (AccumulatorKind::Count, AccumulatorKind::Sum) => {
                    spec.kind = AccumulatorKind::Sum;
                    return index;
                }
                (one, other) if one == other => return index,
                _ => {}
            }
        }
        self.accumulators.push(AccumulatorSpec { kind, column, field_type });
        self.accumulators.len() - 1
    }

    /// What a call needs. A call over a name that is no field never has a value.
    fn call(&mut self, call: &Call) -> Result<CallPlan, QueryError> {
        let mut function = Function::named(&call.name)?;
        let mut argument = call.arguments.first();
        let mut distinct = false;
        if let Some(Expr::Call(inner)) = argument {
            argument = inner.arguments.first();
            distinct = true;
        }
        let Some(Expr::VarRef(name)) = argument else {
            return Err(QueryError::invalid(format!("expected field argument in {}()", call.name)));
        };
        let field_type = match self.names.meaning(name) {
            Meaning::Field(field_type) => field_type,
            Meaning::Tag if self.names.inner_tags.contains(&name.name) => FieldType::String,
            _ => {
                let field_type = if function == Function::Count { FieldType::Integer } else { FieldType::Float };
                let text = call_text(self.names, call);
                return Ok(CallPlan { finish: None, field_type, has_type: has_type(call, &|_| false), text });
            }
        };
        let result = function.result_type(&call.name, field_type)?;
        if function == Function::Count && distinct {
            function = Function::Distinct;
        }
        let column = self.columns.index(&name.name, field_type);
        let carried = self.carries;
        let collect = |keep: Keep| AccumulatorKind::Collect { keep, carried };
        let seed = self.seed;
        let best = |kind: PickKind, count: usize, per: usize| {
            collect(Keep::Best(Better { by: Rank::Value(kind), count, per }))
        };
        let mut add = |kind: AccumulatorKind| self.accumulator(kind, column, field_type);
        let picks = |kind: PickKind| {
            // Strings have no fast path, and rows that are carried along must be kept.
            if carried || field_type == FieldType::String {
                (best(kind, 1, 0), true)
            } else {
                (AccumulatorKind::Pick(kind), false)
            }
        };
        let mut pick = |kind: PickKind| {
            let (kind, collected) = picks(kind);
            let accumulator = add(kind);
            if collected { Finish::Best(accumulator) } else { Finish::Pick(accumulator) }
        };
        let finish = match function {
            Function::Min => pick(PickKind::Min),
            Function::Max => pick(PickKind::Max),
            Function::First => pick(PickKind::First),
            Function::Last => pick(PickKind::Last),
            Function::Count => Finish::Count(add(AccumulatorKind::Count)),
            Function::Sum => Finish::Sum(add(AccumulatorKind::Sum)),
            Function::Mean => Finish::Mean(add(AccumulatorKind::Sum)),
            Function::Spread => Finish::Spread {
                min: add(AccumulatorKind::Pick(PickKind::Min)),
                max: add(AccumulatorKind::Pick(PickKind::Max)),
            },
            Function::Median => Finish::Median(add(collect(Keep::All))),
            Function::Mode => Finish::Mode(add(collect(Keep::All))),
            Function::Stddev => Finish::Stddev(add(collect(Keep::All))),
            Function::Distinct if distinct => Finish::CountDistinct(add(AccumulatorKind::Distinct)),
            Function::Distinct => Finish::Distinct(add(AccumulatorKind::Distinct)),
            Function::Percentile => {
                let percent = match call.arguments.get(1) {
                    Some(Expr::Integer(percent)) => *percent as f64,
                    Some(Expr::Number(percent)) => *percent,
                    _ => f64::NAN,
                };
                Finish::Percentile { accumulator: add(collect(Keep::All)), percent }
            }
            Function::Sample => {
                let better = Better { by: Rank::Drawn { seed }, count: last_count(call), per: 0 };
                Finish::Ranked(add(collect(Keep::Best(better))))
            }
            Function::Top | Function::Bottom => {
                let kind = if function == Function::Top { PickKind::Max } else { PickKind::Min };
                let count = last_count(call);
                let tags = call.arguments.get(1..call.arguments.len().saturating_sub(1)).unwrap_or(&[]);
                // They are the first of what is carried, whatever else is selected. A name that is no tag is one that
                // all points lack.
                for tag in tags {
                    if let Expr::VarRef(tag) = tag {
                        self.leaf(LeafRef::Tag(tag.name.clone()));
                    }
                }
                let per = self.leaves.len();
                Finish::Ranked(self.accumulator(best(kind, count, per), column, field_type))
            }
        };
        let text = call_text(self.names, call);
        Ok(CallPlan { finish: Some(finish), field_type: result, has_type: true, text })
    }

    /// The leaf of a plain reference, and its type.
    fn reference(&mut self, name: &VarRef) -> (Option<usize>, ExprType) {
        match self.names.meaning(name) {
            Meaning::Field(field_type) => {
                let column = self.columns.index(&name.name, field_type);
                (Some(self.leaf(LeafRef::Field(column))), ExprType::Field(field_type))
            }
            Meaning::Tag => (Some(self.leaf(LeafRef::Tag(name.name.clone()))), ExprType::Tag),
            Meaning::Nothing => (None, ExprType::Unknown),
        }
    }

    fn expression(&mut self, expr: &Expr) -> Result<(EvalExpr, ExprType), QueryError> {
        Ok(match expr {
            Expr::Paren(inner) => self.expression(inner)?,
            Expr::VarRef(name) => {
                let (leaf, expr_type) = self.reference(name);
                let first = if self.aggregates { self.call_count } else { 0 };
                (leaf.map_or(EvalExpr::Nil, |leaf| EvalExpr::Leaf(first + leaf)), expr_type)
            }
            Expr::Call(call) if let Some(function) = MathFunction::named(&call.name) => self.math(function, call)?,
            Expr::Call(call) => {
                let index = self.calls.iter().position(|(other, _)| other == call);
                let Some(index) = index else { return Ok((EvalExpr::Nil, ExprType::Unknown)) };
                let plan = &self.calls[index].1;
                let expr_type =
                    if plan.finish.is_some() { ExprType::Field(plan.field_type) } else { ExprType::Unknown };
                (EvalExpr::Leaf(index), expr_type)
            }
            Expr::Binary { operator, left, right } => {
                let literal = match (&**left, &**right) {
                    (Expr::Integer(literal), _) | (_, Expr::Integer(literal)) => Some(*literal),
                    _ => None,
                };
                let (left, left_type) = self.expression(left)?;
                let (right, right_type) = self.expression(right)?;
                let expr_type = binary_type(*operator, left_type, right_type, literal, || self.typed(expr))?;
                let expr = EvalExpr::Binary {
                    operator: *operator,
                    left: Box::new(left),
                    right: Box::new(right),
                    integer_division: false,
                };
                (expr, expr_type)
            }
            literal => {
                let value = match literal {
                    Expr::Integer(value) => Value::Integer(*value),
                    Expr::Unsigned(value) => Value::Unsigned(*value),
                    Expr::Number(value) => Value::Float(*value),
                    Expr::String(value) => Value::String(value.as_bytes().into()),
                    Expr::Boolean(value) => Value::Boolean(*value),
                    _ => return Ok((EvalExpr::Nil, literal_type(literal))),
                };
                (EvalExpr::Literal(value), literal_type(literal))
            }
        })
    }

    fn math(&mut self, function: MathFunction, call: &Call) -> Result<(EvalExpr, ExprType), QueryError> {
        let mut arguments = Vec::with_capacity(call.arguments.len());
        let mut types = Vec::with_capacity(call.arguments.len());
        for argument in &call.arguments {
            let (expr, expr_type) = self.expression(argument)?;
            arguments.push(expr);
            types.push(expr_type);
        }
        let expr_type = match types.as_slice() {
            [ExprType::Field(argument)] => ExprType::Field(function.result_type(*argument)),
            // A text or boolean in front stays one, for the error texts of what stands around it.
            [ExprType::Field(FieldType::String | FieldType::Boolean), ExprType::Field(_)] => types[0],
            [ExprType::Field(_), ExprType::Field(_)] => ExprType::Field(FieldType::Float),
            [one] => *one,
            _ => ExprType::Unknown,
        };
        Ok((EvalExpr::Math { function, arguments }, expr_type))
    }

    /// The text of an expression with the types of its names, as error texts show it.
    fn typed(&self, expr: &Expr) -> String {
        typed(self.names, expr)
    }
}

fn typed(names: &Names, expr: &Expr) -> String {
    let typed = expr.clone().rewrite(&mut |expr| match expr {
        Expr::VarRef(name) => {
            let data_type = match names.meaning(&name) {
                Meaning::Field(field_type) => Some(data_type(field_type)),
                Meaning::Tag => Some(DataType::Tag),
                Meaning::Nothing => None,
            };
            Expr::VarRef(VarRef { name: name.name, data_type })
        }
        other => other,
    });
    typed.to_string()
}

/// How many rows a call asks for, which is its last argument.
fn last_count(call: &Call) -> usize {
    match call.arguments.last() {
        Some(Expr::Integer(count)) => usize::try_from(*count).unwrap_or(usize::MAX),
        _ => 0,
    }
}

fn call_text(names: &Names, call: &Call) -> String {
    typed(names, &Expr::Call(call.clone()))
}

fn selects(call: &Call) -> bool {
    Function::named(&call.name).is_ok_and(Function::selects)
}
