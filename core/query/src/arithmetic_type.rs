//! Types of expressions in the SELECT list, and the errors of operands that do not fit.

use crate::QueryError;
use tidemill_column::FieldType;
use tidemill_influxql::{BinaryOperator, Expr};

/// The type of an expression, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExprType {
    Field(FieldType),
    Tag,
    /// Of a name that does not exist.
    Unknown,
    Duration,
}

impl ExprType {
    fn name(self) -> &'static str {
        match self {
            ExprType::Field(field_type) => field_type.name(),
            ExprType::Tag => "tag",
            ExprType::Unknown => "unknown",
            ExprType::Duration => "duration",
        }
    }
}

/// The type that a literal has by itself.
pub(crate) fn literal_type(literal: &Expr) -> ExprType {
    match literal {
        Expr::Integer(_) => ExprType::Field(FieldType::Integer),
        Expr::Unsigned(_) => ExprType::Field(FieldType::Unsigned),
        Expr::Number(_) => ExprType::Field(FieldType::Float),
        Expr::String(_) => ExprType::Field(FieldType::String),
        Expr::Boolean(_) => ExprType::Field(FieldType::Boolean),
        Expr::Duration(_) | Expr::Time(_) => ExprType::Duration,
        _ => ExprType::Unknown,
    }
}

/// The type of `left operator right`. `shown` is the expression with its types, for the message; `literal` is the
/// integer literal among the operands, if one is.
///
/// # Errors
/// The operands do not fit; the text is upstream's.
pub(crate) fn binary_type(
    operator: BinaryOperator,
    left: ExprType,
    right: ExprType,
    literal: Option<i64>,
    shown: impl Fn() -> String,
) -> Result<ExprType, QueryError> {
    use FieldType::{Boolean, Float, Integer, Unsigned};
    let incompatible = || {
        let text = format!("type error: {}: incompatible types: {} and {}", shown(), left.name(), right.name());
        Err(QueryError::Invalid(text))
    };
    let bitwise =
        matches!(operator, BinaryOperator::BitwiseAnd | BinaryOperator::BitwiseOr | BinaryOperator::BitwiseXor);
    let (left_type, right_type) = match (left, right) {
        (ExprType::Unknown, other) | (other, ExprType::Unknown) => return Ok(other),
        (ExprType::Field(left_type), ExprType::Field(right_type)) => (left_type, right_type),
        _ => return incompatible(),
    };
    let result = match (left_type, right_type) {
        (Float, Float | Integer | Unsigned) | (Integer | Unsigned, Float) if !bitwise => Float,
        (Integer, Integer) if operator == BinaryOperator::Divide => Float,
        (Integer, Integer) => Integer,
        (Unsigned, Unsigned) => Unsigned,
        (Unsigned, Integer) | (Integer, Unsigned) => {
            if literal.is_some_and(|literal| literal >= 0) {
                Unsigned
            } else {
                return Err(QueryError::Invalid(format!(
                    "type error: {}: cannot use {} between an integer and unsigned, an explicit cast is required",
                    shown(),
                    operator.symbol()
                )));
            }
        }
        (Boolean, Boolean) if bitwise => Boolean,
        _ => return incompatible(),
    };
    Ok(ExprType::Field(result))
}
