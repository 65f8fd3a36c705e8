//! The functions of the language and the rules about their arguments that need no schema.

use crate::QueryError;
use tidemill_column::FieldType;
use tidemill_influxql::{Call, Expr, VarRef};

/// Functions over the values of a window. Those over the rows of a series are
/// [`StreamFunction`](crate::stream::StreamFunction)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Count,
    Sum,
    Mean,
    Median,
    Mode,
    Stddev,
    Spread,
    Min,
    Max,
    First,
    Last,
    Percentile,
    Distinct,
    Top,
    Bottom,
    /// Beside plain fields; alone it is one over rows.
    Sample,
}

impl Function {
    /// # Errors
    /// There is no such function.
    pub(crate) fn named(name: &str) -> Result<Function, QueryError> {
        Ok(match name {
            "count" => Function::Count,
            "sum" => Function::Sum,
            "mean" => Function::Mean,
            "median" => Function::Median,
            "mode" => Function::Mode,
            "stddev" => Function::Stddev,
            "spread" => Function::Spread,
            "min" => Function::Min,
            "max" => Function::Max,
            "first" => Function::First,
            "last" => Function::Last,
            "percentile" => Function::Percentile,
            "distinct" => Function::Distinct,
            "top" => Function::Top,
            "bottom" => Function::Bottom,
            "sample" => Function::Sample,
            name => return Err(QueryError::invalid(format!("undefined function {name}()"))),
        })
    }

    /// Answers with one of its points.
    pub(crate) fn selects(self) -> bool {
        matches!(
            self,
            Function::Min
                | Function::Max
                | Function::First
                | Function::Last
                | Function::Percentile
                | Function::Top
                | Function::Bottom
                | Function::Sample
        )
    }

    pub(crate) fn ranks(self) -> bool {
        matches!(self, Function::Top | Function::Bottom)
    }

    /// Whether a wildcard inside the function stands for fields of this type.
    pub(crate) fn accepts(self, field_type: FieldType) -> bool {
        match field_type {
            FieldType::Float | FieldType::Integer | FieldType::Unsigned => true,
            FieldType::String => {
                matches!(
                    self,
                    Function::Count
                        | Function::First
                        | Function::Last
                        | Function::Distinct
                        | Function::Mode
                        | Function::Sample
                )
            }
            FieldType::Boolean => self.accepts(FieldType::String) || matches!(self, Function::Min | Function::Max),
        }
    }

    /// Type of the result over a field of type `field_type`.
    ///
    /// # Errors
    /// The function has no meaning for the type.
    pub(crate) fn result_type(self, name: &str, field_type: FieldType) -> Result<FieldType, QueryError> {
        if !self.accepts(field_type) {
            // Upstream's text of mode() names median(), of which its code is a copy; mode() accepts every type though.
            let kind = if field_type == FieldType::String { "string" } else { "boolean" };
            return Err(QueryError::invalid(format!(
                "unsupported {name} iterator type: *query.{kind}InterruptIterator"
            )));
        }
        Ok(match self {
            Function::Count => FieldType::Integer,
            Function::Mean | Function::Median | Function::Stddev => FieldType::Float,
            _ => field_type,
        })
    }
}

/// Whether what a call gives has a type: if not the function's own, that of its argument.
pub(crate) fn has_type(call: &Call, is_known: &impl Fn(&VarRef) -> bool) -> bool {
    const OF_ARGUMENT: [&str; 15] = [
        "bottom",
        "cumulative_sum",
        "difference",
        "distinct",
        "first",
        "last",
        "max",
        "min",
        "mode",
        "non_negative_difference",
        "percentile",
        "sample",
        "spread",
        "sum",
        "top",
    ];
    match call.arguments.first() {
        _ if !OF_ARGUMENT.contains(&call.name.as_str()) => true,
        Some(Expr::Call(inner)) => has_type(inner, is_known),
        Some(Expr::VarRef(name)) => is_known(name),
        _ => true,
    }
}

/// `DISTINCT x` is another way to write `distinct(x)`.
pub(crate) fn without_distinct_keyword(expr: Expr) -> Expr {
    expr.rewrite(&mut |expr| match expr {
        Expr::Distinct(name) => Expr::call("distinct", vec![Expr::var_ref(name)]),
        other => other,
    })
}

/// What a call's arguments say. `wildcards` tells whether `*` and regular expressions may stand for fields here.
///
/// # Errors
/// The arguments are not those of the function.
pub(crate) fn check_call(call: &Call, wildcards: bool, limit: u64) -> Result<Function, QueryError> {
    let function = Function::named(&call.name)?;
    let (name, arguments) = (&call.name, call.arguments.as_slice());
    match function {
        Function::Percentile => match arguments {
            [field, Expr::Integer(_) | Expr::Number(_)] => check_field(name, field, wildcards)?,
            [_, _] => return Err(QueryError::invalid("expected float argument in percentile()")),
            _ => return Err(wrong_count(name, 2, arguments.len())),
        },
        Function::Distinct => check_distinct(arguments)?,
        Function::Top | Function::Bottom => check_ranking(call, limit)?,
        _ => match arguments {
            [Expr::Call(inner)] if function == Function::Count && inner.name == "distinct" => {
                check_distinct(&inner.arguments)?;
            }
            [field] => check_field(name, field, wildcards)?,
            _ => return Err(wrong_count(name, 1, arguments.len())),
        },
    }
    Ok(function)
}

fn wrong_count(name: &str, expected: usize, got: usize) -> QueryError {
    QueryError::invalid(format!("invalid number of arguments for {name}, expected {expected}, got {got}"))
}

pub(crate) fn check_field(name: &str, field: &Expr, wildcards: bool) -> Result<(), QueryError> {
    match field {
        Expr::VarRef(_) => Ok(()),
        Expr::Wildcard(_) | Expr::Regex(_) if wildcards => Ok(()),
        Expr::Wildcard(_) => Err(QueryError::invalid(format!("unsupported expression with wildcard: {name}()"))),
        Expr::Regex(_) => Err(QueryError::invalid(format!("unsupported expression with regex field: {name}()"))),
        _ => Err(QueryError::invalid(format!("expected field argument in {name}()"))),
    }
}

fn check_distinct(arguments: &[Expr]) -> Result<(), QueryError> {
    match arguments {
        [] => Err(QueryError::invalid("distinct function requires at least one argument")),
        [Expr::VarRef(_)] => Ok(()),
        [_] => Err(QueryError::invalid("expected field argument in distinct()")),
        _ => Err(QueryError::invalid("distinct function can only have one argument")),
    }
}

fn check_ranking(call: &Call, limit: u64) -> Result<(), QueryError> {
    let name = &call.name;
    let (Some((first, rest)), Some(last)) = (call.arguments.split_first(), call.arguments.last()) else {
        return Err(QueryError::invalid(format!("invalid number of arguments for {name}, expected at least 2, got 0")));
    };
    let Some((_, tags)) = rest.split_last() else {
        return Err(QueryError::invalid(format!("invalid number of arguments for {name}, expected at least 2, got 1")));
    };
    let Expr::Integer(count) = last else {
        return Err(QueryError::invalid(format!("expected integer as last argument in {name}(), found {last}")));
    };
    if *count <= 0 {
        return Err(QueryError::invalid(format!("limit ({count}) in {name} function must be at least 1")));
    }
    if limit > 0 && *count as u64 > limit {
        return Err(QueryError::invalid(format!(
            "limit ({count}) in {name} function can not be larger than the LIMIT ({limit}) in the select statement"
        )));
    }
    if !matches!(first, Expr::VarRef(_)) {
        return Err(QueryError::invalid(format!("expected first argument to be a field in {name}(), found {first}")));
    }
    match tags.iter().find(|tag| !matches!(tag, Expr::VarRef(_))) {
        Some(other) => Err(QueryError::invalid(format!("only fields or tags are allowed in {name}(), found {other}"))),
        None => Ok(()),
    }
}
