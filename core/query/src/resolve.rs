//! The names of a condition resolved for one measurement.

use crate::QueryError;
use crate::condition::Condition;
use crate::evaluate::EvalExpr;
use crate::math::MathFunction;
use crate::planner::Columns;
use crate::schema::{Meaning, SourceSchema, meaning};
use crate::tag_filter::TagTest;
use std::collections::BTreeSet;
use tidemill_column::Value;
use tidemill_influxql::{BinaryOperator, DataType, Expr, VarRef};

pub(crate) struct ConditionResolver<'a> {
    schema: &'a SourceSchema,
    columns: &'a mut Columns,
    read: BTreeSet<usize>,
}

/// What a name in a condition means.
enum Name {
    Field(usize),
    /// Whether or not the measurement has such a tag: series without it have the value "".
    Tag(String),
    /// `_name`
    Measurement,
    /// A field that the measurement lacks.
    Missing,
}

impl<'a> ConditionResolver<'a> {
    pub(crate) fn new(schema: &'a SourceSchema, columns: &'a mut Columns) -> ConditionResolver<'a> {
        ConditionResolver { schema, columns, read: BTreeSet::new() }
    }

    /// The condition, and the columns that it reads.
    ///
    /// # Errors
    /// Something that is no condition.
    pub(crate) fn resolve(mut self, condition: &Expr) -> Result<(Condition, BTreeSet<usize>), QueryError> {
        let condition = self.condition(condition)?;
        Ok((condition, self.read))
    }

    fn name(&mut self, name: &VarRef) -> Name {
        if name.name == "_name" {
            return Name::Measurement;
        }
        let is_tag = self.schema.tag_keys.contains(&name.name);
        match (meaning(name, &self.schema.fields, is_tag), name.data_type) {
            (Meaning::Field(field_type), _) => {
                let column = self.columns.index(&name.name, field_type);
                self.read.insert(column);
                Name::Field(column)
            }
            (Meaning::Tag, _) | (Meaning::Nothing, None | Some(DataType::Tag)) => Name::Tag(name.name.clone()),
            (Meaning::Nothing, Some(_)) => Name::Missing,
        }
    }

    fn condition(&mut self, expr: &Expr) -> Result<Condition, QueryError> {
        Ok(match expr {
            Expr::Paren(inner) => self.condition(inner)?,
            Expr::Boolean(value) => Condition::Constant(*value),
            Expr::Binary { operator: BinaryOperator::And, left, right } => {
                self.condition(left)?.and(self.condition(right)?)
            }
            Expr::Binary { operator: BinaryOperator::Or, left, right } => {
                self.condition(left)?.or(self.condition(right)?)
            }
            Expr::Binary { operator, left, right } if operator.is_comparison() => {
                self.comparison(*operator, left, right)?
            }
            Expr::Binary { .. } => Condition::Truth(self.value(expr)),
            other => return Err(QueryError::invalid(format!("invalid condition expression: {other}"))),
        })
    }

    fn comparison(&mut self, operator: BinaryOperator, left: &Expr, right: &Expr) -> Result<Condition, QueryError> {
        let (left, right) = (left.without_parens(), right.without_parens());
        // A comparison may itself be compared with true or false; compared with anything else it matches nothing.
        for (side, other) in [(left, right), (right, left)] {
            let compares = matches!(side, Expr::Binary { operator, .. } if operator.precedence() <= 3);
            match (compares, operator, other) {
                (true, BinaryOperator::Equal, Expr::Boolean(true))
                | (true, BinaryOperator::NotEqual, Expr::Boolean(false)) => return self.condition(side),
                (true, ..) => return Ok(Condition::Constant(false)),
                _ => {}
            }
        }
        for (side, other) in [(left, right), (right, left)] {
            let Expr::VarRef(name) = side else { continue };
            match self.name(name) {
                Name::Field(_) => {}
                Name::Missing => return Ok(Condition::Constant(false)),
                Name::Tag(tag) => {
                    return Ok(match TagTest::new(operator, other) {
                        Some(test) => Condition::Tag { tag, test },
                        None => Condition::Constant(false),
                    });
                }
                Name::Measurement => {
                    let test = TagTest::new(operator, other);
                    return Ok(Condition::Constant(test.is_some_and(|test| test.accepts(&self.schema.measurement))));
                }
            }
        }
        Ok(match (operator, right) {
            (BinaryOperator::RegexMatch | BinaryOperator::RegexNotMatch, Expr::Regex(regex)) => Condition::Match {
                field: self.value(left),
                regex: regex.clone(),
                negated: operator == BinaryOperator::RegexNotMatch,
            },
            _ => Condition::Compare { operator, left: self.value(left), right: self.value(right) },
        })
    }

    /// An operand. Tags have no place in one, so a row's value is then missing.
    fn value(&mut self, expr: &Expr) -> EvalExpr {
        match expr {
            Expr::Paren(inner) => self.value(inner),
            Expr::VarRef(name) => match self.name(name) {
                Name::Field(column) => EvalExpr::Leaf(column),
                Name::Tag(_) | Name::Measurement | Name::Missing => EvalExpr::Nil,
            },
            Expr::Integer(value) | Expr::Duration(value) | Expr::Time(value) => {
                EvalExpr::Literal(Value::Integer(*value))
            }
            Expr::Unsigned(value) => EvalExpr::Literal(Value::Unsigned(*value)),
            Expr::Number(value) => EvalExpr::Literal(Value::Float(*value)),
            Expr::String(value) => EvalExpr::Literal(Value::String(value.as_bytes().into())),
            Expr::Boolean(value) => EvalExpr::Literal(Value::Boolean(*value)),
            Expr::Binary { operator, left, right } if operator.is_arithmetic() => EvalExpr::Binary {
                operator: *operator,
                left: Box::new(self.value(left)),
                right: Box::new(self.value(right)),
                integer_division: true,
            },
            Expr::Call(call) if let Some(function) = MathFunction::named(&call.name) => {
                let arguments = call.arguments.iter().map(|argument| self.value(argument)).collect();
                EvalExpr::Math { function, arguments }
            }
            _ => EvalExpr::Nil,
        }
    }
}
