//! Checks of a SELECT that need no schema, and what it asks of one.

use crate::QueryError;
use crate::functions::{Function, check_call, without_distinct_keyword};
use crate::limit::SelectLimits;
use crate::math::MathFunction;
use crate::stream::{StreamFunction, StreamSpec, check_stream};
use crate::window::{Calendar, Windows};
use crate::zone::TimeZone;
use std::sync::Arc;
use tidemill_column::{TIME_MAX, TIME_MIN};
use tidemill_influxql::{
    Call, Expr, Fill, MeasurementName, RegexLiteral, SelectStatement, SortKey, Source, TimeContext, TimeDimension,
    TimeOffset, split_time,
};

/// What a statement is compiled with.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// What `now()` is, ns since the epoch.
    pub now_ns: i64,
    /// The request's database, for sources that name none.
    pub default_database: Option<String>,
    pub limits: SelectLimits,
}

/// A statement that keeps to the rules of the language.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub(crate) select: SelectStatement,
    /// Reduced, without `time`, with the arguments of top() and bottom() behind the function.
    pub(crate) fields: Vec<CompiledField>,
    pub(crate) time_alias: Option<String>,
    pub(crate) condition: Option<Expr>,
    pub(crate) windows: Windows,
    pub(crate) time_range: (i64, i64),
    /// Calls that work on rows look back behind the time range.
    pub(crate) read_range: (i64, i64),
    /// Draws samples.
    pub(crate) seed: u64,
    /// The calls are computed on their own and joined.
    pub(crate) is_joined: bool,
    /// One of several calls: a selector stands at the start of its window, and not at its point.
    pub(crate) is_one_of_several: bool,
    pub(crate) sources: Vec<SourceRequest>,
    pub(crate) zone: Option<Arc<TimeZone>>,
    /// What ORDER BY says beside time, reduced; LIMIT and OFFSET then count rows in that order.
    pub(crate) sort: Vec<SortKey>,
    pub(crate) subqueries: Vec<Compiled>,
}

/// What a statement hands down to those in its FROM.
struct Outer<'a> {
    select: &'a SelectStatement,
    /// Its GROUP BY time().
    time: Option<TimeDimension>,
    time_range: (i64, i64),
}

/// One field of the SELECT list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompiledField {
    pub expr: Expr,
    pub alias: Option<String>,
}

/// A source whose schema the plan needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRequest {
    /// The source's or the request's; `None` when neither names one.
    pub database: Option<String>,
    /// `None` means the database's default policy.
    pub retention_policy: Option<String>,
    pub measurement: MeasurementSelector,
}

/// Which measurements of a database a source means.
#[derive(Clone, Debug, PartialEq)]
pub enum MeasurementSelector {
    Name(String),
    Regex(RegexLiteral),
}

/// What the fields of a statement have in common, for the rules about mixing them.
struct Survey {
    limit: u64,
    is_cut: bool,
    /// Windows may be the outer statement's.
    may_nest: bool,
    /// There are functions over rows.
    streams: bool,
    /// How many of these are sample().
    samples: usize,
    /// Windows that these look back to.
    windows_back: u64,
    functions: Vec<(String, Function)>,
    plain: bool,
    only_selectors: bool,
    /// Plain references that the arguments of top() and bottom() add.
    ranked_by: Vec<Expr>,
}

/// Checks a statement.
///
/// # Errors
/// A rule is broken (the text is upstream's), or the statement uses something that is not executed yet.
pub fn compile(select: &SelectStatement, options: &CompileOptions) -> Result<Compiled, QueryError> {
    compile_within(select.clone(), options, None)
}

fn compile_within(
    mut select: SelectStatement,
    options: &CompileOptions,
    outer: Option<&Outer<'_>>,
) -> Result<Compiled, QueryError> {
    let zone = time_zone(&select)?;
    let reading = |reading: i64| zone.as_ref().map_or(0, |zone| zone.offset_of_reading_ns(reading));
    let context = TimeContext { now_ns: Some(options.now_ns), zone_offset_ns: &reading };
    let (range, condition) = split_time(select.condition.as_ref(), &context).map_err(|error| invalid(&error))?;
    if let Some(condition) = &condition {
        check_condition(condition)?;
    }
    let own_time = select.time_dimension().map_err(|error| invalid(&error))?.filter(|time| time.interval_ns > 0);
    let time = own_time.or(outer.and_then(|outer| outer.time));
    let is_inherited = own_time.is_none() && time.is_some();
    if let Some(outer) = outer {
        outer.hand_down(&mut select, own_time.is_some())?;
    }
    let select = &select;

    let mut survey = Survey {
        limit: select.limit,
        is_cut: own_time.is_some(),
        may_nest: time.is_some(),
        streams: false,
        samples: 0,
        windows_back: 0,
        functions: Vec::new(),
        plain: false,
        only_selectors: true,
        ranked_by: Vec::new(),
    };
    let mut fields = Vec::new();
    let mut time_alias = None;
    for field in &select.fields {
        if matches!(&field.expr, Expr::VarRef(name) if name.name == "time") {
            time_alias = field.alias.clone().or(time_alias);
            continue;
        }
        let expr = without_distinct_keyword(field.expr.clone()).reduce(&context);
        survey.visit(&expr, true)?;
        fields.push(CompiledField { expr, alias: field.alias.clone() });
        let added = std::mem::take(&mut survey.ranked_by);
        fields.extend(added.into_iter().map(|expr| CompiledField { expr, alias: None }));
    }
    survey.check(&fields, select.fill, own_time.is_some())?;
    let sources = sources(select, options)?;
    // Without an aggregate there is nothing to cut.
    let time = time.filter(|_| !is_inherited || survey.streams || !survey.functions.is_empty());

    let min = range.min_or_first();
    let max = range.max_ns.unwrap_or(if time.is_some() { options.now_ns } else { TIME_MAX });
    let mut time_range = (min.max(TIME_MIN), max.min(TIME_MAX));
    if let Some(outer) = outer {
        time_range = (time_range.0.max(outer.time_range.0), time_range.1.min(outer.time_range.1));
    }
    let windows = match time {
        None => Windows::whole(time_range),
        Some(time) => {
            let windows = windows_of(time, options.now_ns);
            let windows = zone.as_ref().map_or(windows.clone(), |zone| windows.in_zone(zone));
            if time.months > 0 && select.fields.iter().any(|field| forecasts(&field.expr)) {
                return Err(QueryError::invalid("holt_winters() needs windows of one length, which months have not"));
            }
            time_range = limit_buckets(&windows, time_range, &options.limits)?;
            windows
        }
    };
    let sort = |key: &SortKey| SortKey { expr: key.expr.clone().reduce(&context), order: key.order };
    let sort = select.sort.iter().map(sort).collect();
    let subqueries = subqueries(select, options, time, time_range)?;
    let read_range = look_back(time_range, &windows, survey.windows_back, select.is_ascending());
    Ok(Compiled {
        select: select.clone(),
        fields,
        time_alias,
        condition,
        windows,
        time_range,
        read_range,
        seed: options.now_ns as u64,
        is_joined: survey.streams && !survey.plain,
        is_one_of_several: false,
        sources,
        zone,
        sort,
        subqueries,
    })
}

/// The zone of `tz()`.
///
/// # Errors
/// There is no such zone. A caller that parses a request finds that out first.
pub(crate) fn time_zone(select: &SelectStatement) -> Result<Option<Arc<TimeZone>>, QueryError> {
    let Some(name) = &select.time_zone else { return Ok(None) };
    match TimeZone::named(name) {
        Some(zone) => Ok(Some(Arc::new(zone))),
        None => Err(QueryError::invalid(format!("unable to find time zone {name}"))),
    }
}

impl Compiled {
    /// The sources, in the order of the statement.
    pub fn sources(&self) -> &[SourceRequest] {
        &self.sources
    }

    /// The statements in FROM: they are planned first, and [`Plan::schemas`](crate::Plan::schemas) says what they have.
    pub fn subqueries(&self) -> &[Compiled] {
        &self.subqueries
    }

    /// Whose wall clock the answer's times are shown in (`tz()`).
    pub fn time_zone(&self) -> Option<&Arc<TimeZone>> {
        self.zone.as_ref()
    }

    /// ns, inclusive. Nothing outside can change the answer. Empty when the first is larger.
    pub fn read_range(&self) -> (i64, i64) {
        self.read_range
    }
}

/// The range with so many windows before it, in the order of the answer.
pub(crate) fn look_back(range: (i64, i64), windows: &Windows, count: u64, is_ascending: bool) -> (i64, i64) {
    if windows.is_calendar() && count > 0 && range.0 <= range.1 {
        return look_back_by_calendar(range, windows, count, is_ascending);
    }
    let back = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(windows.interval());
    match is_ascending {
        _ if back == 0 || range.0 > range.1 => range,
        true if range.0 <= TIME_MIN => range,
        true => (range.0.saturating_sub(back).max(TIME_MIN), range.1),
        false => (range.0, range.1.saturating_add(back).min(TIME_MAX)),
    }
}

/// As [`look_back`]; there are whole windows before the range.
fn look_back_by_calendar(range: (i64, i64), windows: &Windows, count: u64, is_ascending: bool) -> (i64, i64) {
    let mut range = range;
    for _ in 0..count {
        let (start, last) = if is_ascending { windows.bounds(range.0) } else { windows.bounds(range.1) };
        match is_ascending {
            true if range.0 > TIME_MIN => range.0 = windows.previous_start(start).unwrap_or(TIME_MIN),
            false if last < TIME_MAX => range.1 = windows.bounds(last + 1).1,
            _ => break,
        }
    }
    range
}

/// The windows of GROUP BY time(), by UTC's clock.
pub(crate) fn windows_of(time: TimeDimension, now_ns: i64) -> Windows {
    if time.months == 0 {
        return Windows::every(time.interval_ns, offset_ns(time.offset, time.interval_ns, now_ns));
    }
    let (offset_months, offset_ns) = match time.offset {
        TimeOffset::Duration(offset) => (0, offset),
        TimeOffset::Months(offset) => (offset, 0),
        TimeOffset::Now => (0, 0),
    };
    Windows::of_calendar(Calendar { months: time.months, offset_months }, time.interval_ns, offset_ns)
}

fn forecasts(expr: &Expr) -> bool {
    expr.any(&mut |expr| matches!(expr, Expr::Call(call) if call.name.starts_with("holt_winters")))
}

fn invalid(error: &impl std::fmt::Display) -> QueryError {
    QueryError::invalid(error.to_string())
}

/// The statements in FROM, in their order.
fn subqueries(
    select: &SelectStatement,
    options: &CompileOptions,
    time: Option<TimeDimension>,
    time_range: (i64, i64),
) -> Result<Vec<Compiled>, QueryError> {
    let outer = Outer { select, time, time_range };
    let subqueries = select.sources.iter().filter_map(|source| match source {
        Source::Subquery(inner) => Some(inner),
        Source::Measurement(_) => None,
    });
    subqueries.map(|inner| compile_within(inner.as_ref().clone(), options, Some(&outer))).collect()
}

impl Outer<'_> {
    /// Order and tags are the outer statement's too; empty windows are no rows for it. `is_cut` tells whether the inner
    /// one has windows of its own.
    fn hand_down(&self, inner: &mut SelectStatement, is_cut: bool) -> Result<(), QueryError> {
        if inner.order.is_some() && inner.is_ascending() != self.select.is_ascending() {
            let text = "subqueries must be ordered in the same direction as the query itself";
            return Err(QueryError::invalid(text));
        }
        inner.order = self.select.order;
        if inner.fill == Fill::Null && is_cut {
            inner.fill = Fill::None;
        }
        for dimension in &self.select.dimensions {
            let dimension = dimension.without_parens();
            if matches!(dimension, Expr::VarRef(_)) && !inner.dimensions.contains(dimension) {
                inner.dimensions.push(dimension.clone());
            }
        }
        Ok(())
    }
}

/// `now()` as an offset is counted from year 1, from where upstream's clock truncates.
pub(crate) fn offset_ns(offset: TimeOffset, interval: i64, now_ns: i64) -> i64 {
    const YEAR_ONE_TO_EPOCH_NS: i128 = 62_135_596_800 * 1_000_000_000;
    match offset {
        TimeOffset::Duration(offset) => offset,
        TimeOffset::Months(_) => 0,
        TimeOffset::Now => {
            let since_year_one = i128::from(now_ns) + YEAR_ONE_TO_EPOCH_NS;
            i64::try_from(since_year_one.rem_euclid(i128::from(interval))).unwrap_or(0)
        }
    }
}

/// Refuses too many windows; without a lower bound the range is shortened instead.
fn limit_buckets(windows: &Windows, range: (i64, i64), limits: &SelectLimits) -> Result<(i64, i64), QueryError> {
    let limit = limits.max_select_buckets;
    if limit == 0 || range.0 > range.1 {
        return Ok(range);
    }
    if range.0 > TIME_MIN {
        limits.check_buckets(windows.count(range.0, range.1))?;
        return Ok(range);
    }
    if windows.is_calendar() {
        return Ok((look_back_by_calendar((windows.start(range.1), range.1), windows, limit - 1, true).0, range.1));
    }
    let back = i128::from(windows.interval()) * i128::from(limit - 1);
    let min = i128::from(windows.start(range.1)) - back;
    Ok((i64::try_from(min).unwrap_or(TIME_MIN).max(TIME_MIN), range.1))
}

fn sources(select: &SelectStatement, options: &CompileOptions) -> Result<Vec<SourceRequest>, QueryError> {
    let mut sources = Vec::new();
    for source in &select.sources {
        let measurement = match source {
            Source::Measurement(measurement) => measurement,
            Source::Subquery(_) => continue,
        };
        let selector = match &measurement.name {
            MeasurementName::Name(name) if name.is_empty() => return Err(QueryError::invalid("invalid measurement")),
            MeasurementName::Name(name) => MeasurementSelector::Name(name.clone()),
            MeasurementName::Regex(regex) => MeasurementSelector::Regex(regex.clone()),
            MeasurementName::OfSource => return Err(QueryError::invalid("invalid measurement")),
        };
        if let MeasurementSelector::Name(name) = &selector {
            let show = match name.as_str() {
                "_fieldKeys" => "SHOW FIELD KEYS",
                "_measurements" => "SHOW MEASUREMENTS",
                "_series" => "SHOW SERIES",
                "_tagKeys" => "SHOW TAG KEYS",
                "_tags" => "SHOW TAG VALUES",
                _ => "",
            };
            if !show.is_empty() {
                return Err(QueryError::invalid(format!("unable to use system source '{name}': use {show} instead")));
            }
        }
        sources.push(SourceRequest {
            database: measurement.database.clone().or_else(|| options.default_database.clone()),
            retention_policy: measurement.retention_policy.clone(),
            measurement: selector,
        });
    }
    Ok(sources)
}

/// Functions in a condition work on rows: those of windows have no meaning there.
fn check_condition(condition: &Expr) -> Result<(), QueryError> {
    match condition {
        Expr::Paren(inner) => check_condition(inner),
        Expr::Binary { left, right, .. } => {
            check_condition(left)?;
            check_condition(right)
        }
        Expr::Call(call) => match MathFunction::of(call)? {
            Some(_) => call.arguments.iter().try_for_each(check_condition),
            None => Err(QueryError::invalid(format!("invalid function call in condition: {condition}"))),
        },
        _ => Ok(()),
    }
}

impl Survey {
    fn visit(&mut self, expr: &Expr, wildcards: bool) -> Result<(), QueryError> {
        match expr {
            Expr::VarRef(_) => self.plain = true,
            Expr::Wildcard(_) if !wildcards => {
                return Err(QueryError::invalid("unable to use wildcard in a binary expression"));
            }
            Expr::Regex(_) if !wildcards => {
                return Err(QueryError::invalid("unable to use regex in a binary expression"));
            }
            Expr::Wildcard(_) | Expr::Regex(_) => self.plain = true,
            Expr::Paren(inner) => self.visit(inner, wildcards)?,
            Expr::Binary { left, right, .. } => {
                if left.is_literal() && right.is_literal() {
                    return Err(QueryError::invalid("cannot perform a binary expression on two literals"));
                }
                for side in [left, right] {
                    if !side.is_literal() || matches!(**side, Expr::Regex(_)) {
                        self.visit(side, false)?;
                    }
                }
            }
            Expr::Call(call) if MathFunction::of(call)?.is_some() => {
                if call.arguments.iter().all(Expr::is_literal) {
                    return Err(QueryError::invalid("field must contain at least one variable"));
                }
                for argument in call.arguments.iter().filter(|argument| !argument.is_literal()) {
                    self.visit(argument, wildcards)?;
                }
            }
            Expr::Call(call) => {
                if let Some((name, _)) = self.functions.iter().find(|(_, function)| function.ranks()) {
                    return Err(cannot_combine(name));
                }
                if let Some(function) = StreamFunction::named(&call.name) {
                    check_stream(function, call, wildcards, self.limit, (self.is_cut, self.may_nest))?;
                    self.stream(call);
                    return Ok(());
                }
                let function = check_call(call, wildcards, self.limit)?;
                let expands = matches!(call.arguments.first(), Some(Expr::Wildcard(_) | Expr::Regex(_)));
                self.only_selectors = self.only_selectors && function.selects() && !expands;
                self.functions.push((call.name.clone(), function));
                if function.ranks() {
                    let tags = call.arguments.len().saturating_sub(2);
                    self.ranked_by = call.arguments.iter().skip(1).take(tags).cloned().collect();
                    self.plain = self.plain || tags > 0;
                }
            }
            _ => return Err(QueryError::invalid("field must contain at least one variable")),
        }
        Ok(())
    }

    /// Notes what a call that works on rows takes.
    fn stream(&mut self, call: &Call) {
        self.streams = true;
        if call.name == "sample" {
            self.samples += 1;
        } else {
            self.only_selectors = false;
        }
        let mut back = 0;
        let mut outer = call;
        while let Some(function) = StreamFunction::named(&outer.name) {
            back += StreamSpec::of(function, outer, &Windows::whole((0, 0)), false, 0).windows_back();
            match outer.arguments.first() {
                Some(Expr::Call(inner)) => outer = inner,
                _ => return,
            }
        }
        self.windows_back = self.windows_back.max(back);
        if let Ok(function) = Function::named(&outer.name) {
            self.functions.push((outer.name.clone(), function));
        }
    }

    fn check(&self, fields: &[CompiledField], fill: Fill, is_cut: bool) -> Result<(), QueryError> {
        if fields.is_empty() {
            return Err(QueryError::invalid("at least 1 non-time field must be queried"));
        }
        let expands = |field: &CompiledField| {
            matches!(&field.expr, Expr::Call(call) if call.name == "sample"
                && matches!(call.arguments.first(), Some(Expr::Wildcard(_) | Expr::Regex(_))))
        };
        if self.streams && self.plain {
            // sample() alone of them comes with the rest of its rows.
            if !self.only_selectors || fields.iter().any(expands) {
                return Err(QueryError::invalid("mixing aggregate and non-aggregate queries is not supported"));
            }
            if self.samples + self.functions.len() > 1 {
                let text = "mixing multiple selector functions with tags or fields is not supported";
                return Err(QueryError::invalid(text));
            }
            return Ok(());
        }
        if self.functions.is_empty() && !self.streams {
            return match fill {
                Fill::None => Err(QueryError::invalid("fill(none) must be used with a function")),
                Fill::Linear => Err(QueryError::invalid("fill(linear) must be used with a function")),
                _ if is_cut => Err(QueryError::invalid("GROUP BY requires at least one aggregate function")),
                _ => Ok(()),
            };
        }
        let ranking = self.functions.iter().find(|(_, function)| function.ranks());
        if let (Some((name, _)), true) = (ranking, self.streams || self.functions.len() > 1) {
            return Err(cannot_combine(name));
        }
        let distinct = self.functions.iter().any(|(_, function)| *function == Function::Distinct);
        if distinct && (self.streams || self.functions.len() > 1 || self.plain) {
            return Err(QueryError::invalid(
                "aggregate function distinct() cannot be combined with other functions or fields",
            ));
        }
        if self.plain && !self.only_selectors {
            return Err(QueryError::invalid("mixing aggregate and non-aggregate queries is not supported"));
        }
        if self.plain && self.functions.len() > 1 {
            return Err(QueryError::invalid("mixing multiple selector functions with tags or fields is not supported"));
        }
        Ok(())
    }
}

fn cannot_combine(name: &str) -> QueryError {
    QueryError::invalid(format!("selector function {name}() cannot be combined with other functions"))
}
