//! Functions of single values: they stand around fields, aggregates and each other, and in WHERE.
//!
//! A result that is no number (the root of a negative one) is no value.

use crate::QueryError;
use tidemill_column::{FieldType, Value};
use tidemill_influxql::Call;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MathFunction {
    Abs,
    Ceil,
    Floor,
    Round,
    Sqrt,
    Exp,
    Ln,
    Log2,
    Log10,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Atan2,
    Pow,
    /// To the base that is its second argument.
    Log,
}

use MathFunction::*;

impl MathFunction {
    pub(crate) fn named(name: &str) -> Option<MathFunction> {
        Some(match name {
            "abs" => Abs,
            "ceil" => Ceil,
            "floor" => Floor,
            "round" => Round,
            "sqrt" => Sqrt,
            "exp" => Exp,
            "ln" => Ln,
            "log2" => Log2,
            "log10" => Log10,
            "sin" => Sin,
            "cos" => Cos,
            "tan" => Tan,
            "asin" => Asin,
            "acos" => Acos,
            "atan" => Atan,
            "atan2" => Atan2,
            "pow" => Pow,
            "log" => Log,
            _ => return None,
        })
    }

    /// The function of a call, if it is one of these.
    ///
    /// # Errors
    /// There are too few or too many arguments.
    pub(crate) fn of(call: &Call) -> Result<Option<MathFunction>, QueryError> {
        let Some(function) = MathFunction::named(&call.name) else { return Ok(None) };
        let (expected, got) = (function.argument_count(), call.arguments.len());
        if expected != got {
            let name = &call.name;
            let text = format!("invalid number of arguments for {name}, expected {expected}, got {got}");
            return Err(QueryError::invalid(text));
        }
        Ok(Some(function))
    }

    fn argument_count(self) -> usize {
        if matches!(self, Atan2 | Pow | Log) { 2 } else { 1 }
    }

    /// Whether the result has the type of the argument.
    fn keeps_type(self) -> bool {
        matches!(self, Abs | Ceil | Floor | Round)
    }

    /// The type of the result; a type that is no number stays, for the error texts of what stands around it.
    pub(crate) fn result_type(self, argument: FieldType) -> FieldType {
        match argument {
            FieldType::Integer | FieldType::Unsigned if !self.keeps_type() => FieldType::Float,
            other => other,
        }
    }

    /// Of integers that stay integers.
    pub(crate) fn of_integer(self, value: i64) -> i64 {
        if self == Abs { value.wrapping_abs() } else { value }
    }

    /// Whether integers stay what they are.
    pub(crate) fn is_integral(self) -> bool {
        self.keeps_type()
    }

    /// Of one number.
    pub(crate) fn of_float(self, value: f64) -> f64 {
        match self {
            Abs => value.abs(),
            Ceil => value.ceil(),
            Floor => value.floor(),
            // Half away from zero.
            Round => value.round(),
            Sqrt => value.sqrt(),
            Exp => value.exp(),
            Ln => value.ln(),
            Log2 => value.log2(),
            Log10 => value.log10(),
            Sin => value.sin(),
            Cos => value.cos(),
            Tan => value.tan(),
            Asin => value.asin(),
            Acos => value.acos(),
            Atan => value.atan(),
            Atan2 | Pow | Log => f64::NAN,
        }
    }

    /// Of two numbers.
    pub(crate) fn of_floats(self, first: f64, second: f64) -> f64 {
        match self {
            Atan2 => first.atan2(second),
            Pow => first.powf(second),
            Log => first.ln() / second.ln(),
            other => other.of_float(first),
        }
    }
}

/// A literal as the number that functions compute with.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        Value::Integer(value) => Some(*value as f64),
        Value::Unsigned(value) => Some(*value as f64),
        Value::Boolean(_) | Value::String(_) => None,
    }
}
