//! `SELECT` and its clauses, which the other statements share.

use super::{Parser, Path};
use crate::error::{ParseError, Position};
use crate::expression::{BinaryOperator, Expr};
use crate::select::{Field, Fill, Measurement, MeasurementName, SelectStatement, SortKey, SortOrder, Source};
use crate::token::Token;

impl Parser<'_> {
    /// The statement after its `SELECT`.
    pub(super) fn parse_select(&mut self, target_is_required: bool) -> Result<SelectStatement, ParseError> {
        let fields = self.parse_fields()?;
        let target = self.parse_target(target_is_required)?;
        self.expect_keywords(&["FROM"])?;
        let sources = self.parse_list(|parser| parser.parse_source(true))?;
        let condition = self.parse_condition()?;
        let dimensions = self.parse_dimensions()?;
        let fill = self.parse_fill()?;
        let (order, sort) = self.parse_sort()?;
        Ok(SelectStatement {
            fields,
            target,
            sources,
            condition,
            dimensions,
            fill,
            order,
            sort,
            limit: self.parse_count("LIMIT")?,
            offset: self.parse_count("OFFSET")?,
            slimit: self.parse_count("SLIMIT")?,
            soffset: self.parse_count("SOFFSET")?,
            time_zone: self.parse_time_zone()?,
        })
    }

    /// One or more of something, separated by commas.
    pub(super) fn parse_list<T>(
        &mut self,
        mut parse: impl FnMut(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        let mut list = vec![parse(self)?];
        while self.take_symbol(",")? {
            list.push(parse(self)?);
        }
        Ok(list)
    }

    fn parse_fields(&mut self) -> Result<Vec<Field>, ParseError> {
        self.parse_list(|parser| {
            let expr = match parser.parse_regex()? {
                Some(regex) => Expr::Regex(regex),
                None => {
                    let (_, position) = parser.peek()?;
                    let expr = parser.parse_expr()?;
                    refuse_conditions(&expr, position)?;
                    expr
                }
            };
            let alias = if parser.take_keyword("AS")? { Some(parser.parse_ident()?) } else { None };
            Ok(Field { expr, alias })
        })
    }

    fn parse_target(&mut self, is_required: bool) -> Result<Option<Measurement>, ParseError> {
        if !self.take_keyword("INTO")? {
            if is_required {
                let (other, position) = self.next()?;
                return Err(ParseError::expected(&other.text(), &["INTO"], position));
            }
            return Ok(None);
        }
        let path = self.parse_path()?;
        if path.ends_with_dot && path.segments.len() < 3 && self.take_adjacent(":") {
            self.expect_keywords(&["MEASUREMENT"])?;
            return Ok(Some(qualified(path, Some(MeasurementName::OfSource))));
        }
        Ok(Some(qualified(path, None)))
    }

    pub(super) fn parse_source(&mut self, subqueries: bool) -> Result<Source, ParseError> {
        if subqueries && matches!(self.peek()?.0, Token::Symbol("(")) {
            self.next()?;
            self.expect_keywords(&["SELECT"])?;
            let statement = self.nested(|parser| parser.parse_select(false))?;
            self.expect_symbol(")")?;
            return Ok(Source::Subquery(Box::new(statement)));
        }
        self.parse_measurement().map(Source::Measurement)
    }

    pub(super) fn parse_measurement(&mut self) -> Result<Measurement, ParseError> {
        if let Some(regex) = self.parse_regex()? {
            return Ok(Measurement { database: None, retention_policy: None, name: MeasurementName::Regex(regex) });
        }
        let path = self.parse_path()?;
        if path.ends_with_dot
            && path.segments.len() < 3
            && let Some(regex) = self.parse_regex()?
        {
            return Ok(qualified(path, Some(MeasurementName::Regex(regex))));
        }
        Ok(qualified(path, None))
    }

    pub(super) fn parse_condition(&mut self) -> Result<Option<Expr>, ParseError> {
        if self.take_keyword("WHERE")? { self.parse_expr().map(Some) } else { Ok(None) }
    }

    pub(super) fn parse_dimensions(&mut self) -> Result<Vec<Expr>, ParseError> {
        if !self.take_keyword("GROUP")? {
            return Ok(Vec::new());
        }
        self.expect_keywords(&["BY"])?;
        self.takes_months = true;
        let dimensions = self.parse_list(|parser| match parser.parse_regex()? {
            Some(regex) => Ok(Expr::Regex(regex)),
            None => parser.parse_expr(),
        });
        self.takes_months = false;
        dimensions
    }

    fn parse_fill(&mut self) -> Result<Fill, ParseError> {
        let Some(call) = self.parse_option_call("fill")? else { return Ok(Fill::Null) };
        let Expr::Call(call) = call else {
            return Err(ParseError::without_position("fill must be a function call"));
        };
        let [argument] = call.arguments.as_slice() else {
            let message = "fill requires an argument, e.g.: 0, null, none, previous, linear";
            return Err(ParseError::without_position(message));
        };
        Ok(match argument {
            Expr::VarRef(option) if option.data_type.is_none() && option.name == "null" => Fill::Null,
            Expr::VarRef(option) if option.data_type.is_none() && option.name == "none" => Fill::None,
            Expr::VarRef(option) if option.data_type.is_none() && option.name == "previous" => Fill::Previous,
            Expr::VarRef(option) if option.data_type.is_none() && option.name == "linear" => Fill::Linear,
            Expr::Integer(value) => Fill::Integer(*value),
            Expr::Number(value) => Fill::Number(*value),
            _ => return Err(ParseError::without_position("expected number argument in fill()")),
        })
    }

    fn parse_time_zone(&mut self) -> Result<Option<String>, ParseError> {
        let Some(call) = self.parse_option_call("tz")? else { return Ok(None) };
        let Expr::Call(call) = call else {
            return Err(ParseError::without_position("tz must be a function call"));
        };
        match call.arguments.as_slice() {
            [Expr::String(name)] => Ok(Some(name.clone())),
            [_] => Err(ParseError::without_position("expected string argument in tz()")),
            _ => Err(ParseError::without_position("tz requires exactly one argument")),
        }
    }

    /// The expression that starts with the given word, which is no keyword.
    fn parse_option_call(&mut self, word: &str) -> Result<Option<Expr>, ParseError> {
        match self.peek()? {
            (Token::Ident(name), _) if name.eq_ignore_ascii_case(word) => self.parse_expr().map(Some),
            _ => Ok(None),
        }
    }

    /// `ORDER BY` of a select: by time alone, or by several keys.
    fn parse_sort(&mut self) -> Result<(Option<SortOrder>, Vec<SortKey>), ParseError> {
        if !self.take_keyword("ORDER")? {
            return Ok((None, Vec::new()));
        }
        self.expect_keywords(&["BY"])?;
        if self.take_keyword("ASC")? {
            return Ok((Some(SortOrder::Ascending), Vec::new()));
        }
        if self.take_keyword("DESC")? {
            return Ok((Some(SortOrder::Descending), Vec::new()));
        }
        let keys = self.parse_list(|parser| {
            if !matches!(parser.peek()?.0, Token::Ident(_)) {
                let (other, position) = parser.next()?;
                return Err(ParseError::expected(&other.text(), &["identifier", "ASC", "DESC"], position));
            }
            let expr = parser.parse_expr()?;
            let order = if parser.take_keyword("DESC")? {
                SortOrder::Descending
            } else {
                parser.take_keyword("ASC")?;
                SortOrder::Ascending
            };
            Ok(SortKey { expr, order })
        })?;
        match keys.as_slice() {
            [SortKey { expr: Expr::VarRef(name), order }] if name.is_time() => Ok((Some(*order), Vec::new())),
            _ => Ok((None, keys)),
        }
    }

    pub(super) fn parse_order(&mut self) -> Result<Option<SortOrder>, ParseError> {
        if !self.take_keyword("ORDER")? {
            return Ok(None);
        }
        self.expect_keywords(&["BY"])?;
        let unsupported = || ParseError::without_position("only ORDER BY time supported at this time");
        let order = match self.next()? {
            (Token::Keyword("ASC"), _) => SortOrder::Ascending,
            (Token::Keyword("DESC"), _) => SortOrder::Descending,
            (Token::Ident(name), _) => {
                if name != "time" {
                    return Err(unsupported());
                }
                if self.take_keyword("DESC")? {
                    SortOrder::Descending
                } else {
                    self.take_keyword("ASC")?;
                    SortOrder::Ascending
                }
            }
            (other, position) => {
                return Err(ParseError::expected(&other.text(), &["identifier", "ASC", "DESC"], position));
            }
        };
        if self.take_symbol(",")? {
            return Err(unsupported());
        }
        Ok(Some(order))
    }

    /// The number after `LIMIT` and its like; 0 when the clause is missing.
    pub(super) fn parse_count(&mut self, keyword: &str) -> Result<u64, ParseError> {
        if !self.take_keyword(keyword)? {
            return Ok(0);
        }
        match self.next()? {
            (Token::Integer(text), position) if text.starts_with('-') => {
                Err(ParseError::at(format!("{keyword} must be >= 0"), position))
            }
            // A number beyond the largest is as good as it: there are no more rows than that.
            (Token::Integer(text), _) => Ok(text.parse().unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())),
            (other, position) => Err(ParseError::expected(&other.text(), &["integer"], position)),
        }
    }
}

/// A field list computes values; comparisons belong to the condition.
fn refuse_conditions(expr: &Expr, position: Position) -> Result<(), ParseError> {
    let mut refused: Option<BinaryOperator> = None;
    expr.visit(&mut |node| {
        if let Expr::Binary { operator, .. } = node
            && !operator.is_arithmetic()
        {
            refused = refused.or(Some(*operator));
        }
    });
    let Some(operator) = refused else { return Ok(()) };
    let Position { line, character } = position;
    Err(ParseError::without_position(format!(
        "invalid operator {} in SELECT clause at line {line}, char {character}; operator is intended for WHERE clause",
        operator.symbol()
    )))
}

/// Deals out the parts of a path; the last one is the name unless the name came separately.
fn qualified(path: Path, name: Option<MeasurementName>) -> Measurement {
    let mut segments = path.segments;
    let name = name.or_else(|| segments.pop().map(MeasurementName::Name));
    let mut given = segments.into_iter().rev().map(|segment| Some(segment).filter(|text| !text.is_empty()));
    let retention_policy = given.next().flatten();
    let database = given.next().flatten();
    Measurement { database, retention_policy, name: name.unwrap_or(MeasurementName::OfSource) }
}
