//! Expressions: operators by precedence, operands, signs.

use super::Parser;
use crate::EXPRESSION_HEIGHT_MAX;
use crate::duration::{parse_duration, parse_months};
use crate::error::{ParseError, Position};
use crate::expression::{BinaryOperator, Call, DataType, Expr, VarRef, WildcardKind};
use crate::token::Token;

/// A chain of `AND` or of `OR` up to this length leans left, as written; a longer one is balanced. Both print the
/// same and mean the same, but ten thousand terms leaning left would be ten thousand levels of recursion.
const LEANING_CHAIN_MAX: usize = 32;

/// An expression and how many levels it has.
struct Built {
    expr: Expr,
    height: usize,
    /// Made from a sign before something that is no number, so it needs parentheses as an operand of `*`.
    is_signed: bool,
}

impl Built {
    fn leaf(expr: Expr) -> Self {
        Self { expr, height: 1, is_signed: false }
    }
}

const OPERAND: [&str; 4] = ["identifier", "string", "number", "bool"];
const SIGNED_OPERAND: [&str; 4] = ["identifier", "number", "duration", "("];

impl Parser<'_> {
    pub(super) fn parse_expr(&mut self) -> Result<Expr, ParseError> {
        Ok(self.parse_binary(BinaryOperator::Or.precedence())?.expr)
    }

    fn parse_binary(&mut self, precedence_min: u8) -> Result<Built, ParseError> {
        let mut left = self.parse_operand()?;
        while let Some(operator) = self.take_operator(precedence_min)? {
            left = match operator {
                BinaryOperator::RegexMatch | BinaryOperator::RegexNotMatch => {
                    let Some(regex) = self.parse_regex()? else {
                        let (other, position) = self.next()?;
                        return Err(ParseError::expected(&other.text(), &["regex"], position));
                    };
                    self.join(operator, left, Built::leaf(Expr::Regex(regex)))?
                }
                BinaryOperator::And | BinaryOperator::Or => self.parse_chain(operator, left)?,
                _ => {
                    let mut right = self.parse_binary(operator.precedence().saturating_add(1))?;
                    if right.is_signed && operator.precedence() == BinaryOperator::Multiply.precedence() {
                        // `a / -b` is `a / (-1 * b)`; without the parentheses its text would mean `(a / -1) * b`.
                        right = self.raise(right, Expr::paren)?;
                    }
                    self.join(operator, left, right)?
                }
            };
        }
        Ok(left)
    }

    /// The rest of `left AND b AND c ..`, the first operator already consumed.
    fn parse_chain(&mut self, operator: BinaryOperator, left: Built) -> Result<Built, ParseError> {
        let tighter = operator.precedence().saturating_add(1);
        let mut terms = vec![left, self.parse_binary(tighter)?];
        while self.take_if(|token| operator_of(token) == Some(operator))? {
            terms.push(self.parse_binary(tighter)?);
        }
        if terms.len() > LEANING_CHAIN_MAX {
            return self.balance(operator, terms);
        }
        let mut terms = terms.into_iter();
        let Some(first) = terms.next() else { return Ok(Built::leaf(Expr::Nil)) };
        terms.try_fold(first, |chain, term| self.join(operator, chain, term))
    }

    fn balance(&self, operator: BinaryOperator, mut terms: Vec<Built>) -> Result<Built, ParseError> {
        while terms.len() > 1 {
            let mut joined = Vec::with_capacity(terms.len().div_ceil(2));
            let mut pairs = terms.into_iter();
            while let Some(left) = pairs.next() {
                joined.push(match pairs.next() {
                    Some(right) => self.join(operator, left, right)?,
                    None => left,
                });
            }
            terms = joined;
        }
        Ok(terms.pop().unwrap_or_else(|| Built::leaf(Expr::Nil)))
    }

    fn join(&self, operator: BinaryOperator, left: Built, right: Built) -> Result<Built, ParseError> {
        let height = self.checked_height(left.height.max(right.height))?;
        Ok(Built { expr: Expr::binary(operator, left.expr, right.expr), height, is_signed: false })
    }

    fn raise(&self, inner: Built, wrap: impl FnOnce(Expr) -> Expr) -> Result<Built, ParseError> {
        let height = self.checked_height(inner.height)?;
        Ok(Built { expr: wrap(inner.expr), height, is_signed: false })
    }

    fn checked_height(&self, below: usize) -> Result<usize, ParseError> {
        let height = below.saturating_add(1);
        if height > EXPRESSION_HEIGHT_MAX {
            let message =
                format!("expression is too long, at most {EXPRESSION_HEIGHT_MAX} operators in a row are allowed");
            return Err(ParseError::at(message, self.last.1));
        }
        Ok(height)
    }

    fn take_operator(&mut self, precedence_min: u8) -> Result<Option<BinaryOperator>, ParseError> {
        let mut found = None;
        self.take_if(|token| {
            found = operator_of(token).filter(|operator| operator.precedence() >= precedence_min);
            found.is_some()
        })?;
        Ok(found)
    }

    fn parse_operand(&mut self) -> Result<Built, ParseError> {
        let (token, position) = self.next()?;
        let expr = match token {
            Token::Symbol("(") => {
                let inner = self.nested(|parser| parser.parse_binary(1))?;
                self.expect_symbol(")")?;
                return self.raise(inner, Expr::paren);
            }
            Token::Symbol("+") => return self.parse_signed(false),
            Token::Symbol("-") => return self.parse_signed(true),
            Token::Ident(name) => {
                if self.take_adjacent("(") {
                    return self.parse_call(name);
                }
                Expr::VarRef(self.parse_var_ref(name)?)
            }
            Token::Keyword("DISTINCT") => return self.parse_distinct(),
            Token::String(text) => Expr::String(text),
            Token::Number(text) => Expr::Number(parse_number(&text, position)?),
            Token::Integer(text) => parse_integer(&text, position)?,
            Token::Boolean(value) => Expr::Boolean(value),
            Token::Duration(text) => match parse_months(&text).filter(|_| self.takes_months) {
                Some(months) => Expr::Months(months),
                None => Expr::Duration(parse_signed_duration(&text)?),
            },
            Token::Symbol("*") => Expr::Wildcard(self.parse_wildcard_kind()?),
            Token::Regex(text) => Expr::Regex(
                crate::regex_literal::RegexLiteral::new(&text)
                    .map_err(|error| ParseError::at(error.to_string(), position))?,
            ),
            other => return Err(ParseError::expected(&other.text(), &OPERAND, position)),
        };
        Ok(Built::leaf(expr))
    }

    /// What follows a sign. Literals take it; anything else is multiplied by 1 or -1.
    fn parse_signed(&mut self, is_negative: bool) -> Result<Built, ParseError> {
        match self.peek()? {
            (Token::Number(_) | Token::Integer(_) | Token::Duration(_) | Token::Symbol("(") | Token::Ident(_), _) => {}
            (other, position) => return Err(ParseError::expected(&other.text(), &SIGNED_OPERAND, position)),
        }
        let operand = self.parse_operand()?;
        if !is_negative {
            return match operand.expr {
                Expr::Number(_) | Expr::Integer(_) | Expr::Unsigned(_) | Expr::Duration(_) | Expr::Months(_) => {
                    Ok(operand)
                }
                _ => self.multiply_by(1, operand),
            };
        }
        let literal = match operand.expr {
            Expr::Number(value) => Expr::Number(-value),
            Expr::Integer(value) => Expr::Integer(value.wrapping_neg()),
            Expr::Duration(value) => Expr::Duration(value.wrapping_neg()),
            Expr::Months(value) => Expr::Months(value.wrapping_neg()),
            Expr::Unsigned(value) if value == i64::MIN.unsigned_abs() => Expr::Integer(i64::MIN),
            Expr::Unsigned(value) => {
                return Err(ParseError::without_position(format!("constant -{value} underflows int64")));
            }
            _ => return self.multiply_by(-1, operand),
        };
        Ok(Built::leaf(literal))
    }

    fn multiply_by(&self, factor: i64, operand: Built) -> Result<Built, ParseError> {
        let product = self.join(BinaryOperator::Multiply, Built::leaf(Expr::Integer(factor)), operand)?;
        Ok(Built { is_signed: true, ..product })
    }

    /// The rest of a name in an expression: further dotted parts, which belong to it, and `::type`.
    fn parse_var_ref(&mut self, first: String) -> Result<VarRef, ParseError> {
        let mut name = first;
        while self.take_adjacent(".") {
            name.push('.');
            match self.scanner.peek_past_end() {
                Some('.') => {}
                _ => name.push_str(&self.parse_ident()?),
            }
        }
        let data_type = if self.take_adjacent("::") { Some(self.parse_data_type()?) } else { None };
        Ok(VarRef { name, data_type })
    }

    fn parse_data_type(&mut self) -> Result<DataType, ParseError> {
        let scanned = self.scanner.scan_adjacent();
        let (token, position) = self.resolve(scanned)?;
        match &token {
            Token::Keyword("FIELD") => return Ok(DataType::AnyField),
            Token::Keyword("TAG") => return Ok(DataType::Tag),
            Token::Ident(name) => {
                let known =
                    [DataType::Float, DataType::Integer, DataType::Unsigned, DataType::String, DataType::Boolean];
                if let Some(found) = known.into_iter().find(|one| one.name().eq_ignore_ascii_case(name)) {
                    return Ok(found);
                }
            }
            // Upstream forgets one type when what follows is no word.
            _ => {
                let expected = ["float", "integer", "string", "boolean", "field", "tag"];
                return Err(ParseError::expected(&token.text(), &expected, position));
            }
        }
        let expected = ["float", "integer", "unsigned", "string", "boolean", "field", "tag"];
        Err(ParseError::expected(&token.text(), &expected, position))
    }

    fn parse_wildcard_kind(&mut self) -> Result<WildcardKind, ParseError> {
        if !self.take_adjacent("::") {
            return Ok(WildcardKind::All);
        }
        match self.scanner.scan_adjacent() {
            (Token::Keyword("FIELD"), _) => Ok(WildcardKind::Field),
            (Token::Keyword("TAG"), _) => Ok(WildcardKind::Tag),
            (other, position) => Err(ParseError::expected(&other.text(), &["field", "tag"], position)),
        }
    }

    /// `DISTINCT name`, or the call when a parenthesis follows.
    fn parse_distinct(&mut self) -> Result<Built, ParseError> {
        match self.next()? {
            (Token::Symbol("("), _) => self.parse_call("distinct".to_owned()),
            (Token::Ident(name), _) => Ok(Built::leaf(Expr::Distinct(name))),
            (other, position) => {
                // Where the word stands decides what upstream would have taken.
                let expected: &[&str] = if self.nesting > 0 { &["(", "identifier"] } else { &["identifier"] };
                Err(ParseError::expected(&other.text(), expected, position))
            }
        }
    }

    /// The arguments of a call, its opening parenthesis already consumed.
    fn parse_call(&mut self, name: String) -> Result<Built, ParseError> {
        let name = name.to_ascii_lowercase();
        self.nested(|parser| {
            let mut arguments = Vec::new();
            let mut height = 0;
            if parser.peek_regex_or(")")? {
                parser.next()?;
                return Ok(Built::leaf(Expr::call(name, arguments)));
            }
            loop {
                let argument = match parser.parse_regex()? {
                    Some(regex) => Built::leaf(Expr::Regex(regex)),
                    None => parser.parse_binary(1)?,
                };
                height = height.max(argument.height);
                arguments.push(argument.expr);
                if !parser.take_symbol(",")? {
                    break;
                }
            }
            parser.expect_symbol(")")?;
            let height = parser.checked_height(height)?;
            Ok(Built { expr: Expr::Call(Call { name, arguments }), height, is_signed: false })
        })
    }

    /// Whether the symbol, and not a regular expression, comes next.
    fn peek_regex_or(&mut self, symbol: &str) -> Result<bool, ParseError> {
        Ok(matches!(self.peek()?.0, Token::Symbol(found) if found == symbol))
    }
}

fn operator_of(token: &Token) -> Option<BinaryOperator> {
    Some(match token {
        Token::Keyword("OR") => BinaryOperator::Or,
        Token::Keyword("AND") => BinaryOperator::And,
        Token::Symbol(symbol) => match *symbol {
            "=" => BinaryOperator::Equal,
            "!=" => BinaryOperator::NotEqual,
            "=~" => BinaryOperator::RegexMatch,
            "!~" => BinaryOperator::RegexNotMatch,
            "<" => BinaryOperator::Less,
            "<=" => BinaryOperator::LessOrEqual,
            ">" => BinaryOperator::Greater,
            ">=" => BinaryOperator::GreaterOrEqual,
            "+" => BinaryOperator::Add,
            "-" => BinaryOperator::Subtract,
            "|" => BinaryOperator::BitwiseOr,
            "^" => BinaryOperator::BitwiseXor,
            "*" => BinaryOperator::Multiply,
            "/" => BinaryOperator::Divide,
            "%" => BinaryOperator::Modulo,
            "&" => BinaryOperator::BitwiseAnd,
            _ => return None,
        },
        _ => return None,
    })
}

fn parse_number(text: &str, position: Position) -> Result<f64, ParseError> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(ParseError::at("unable to parse number", position)),
    }
}

fn parse_integer(text: &str, position: Position) -> Result<Expr, ParseError> {
    if let Ok(value) = text.parse() {
        return Ok(Expr::Integer(value));
    }
    text.parse().map(Expr::Unsigned).map_err(|_| ParseError::at("unable to parse integer", position))
}

/// Only a bound parameter can bring a sign inside its token.
fn parse_signed_duration(text: &str) -> Result<i64, ParseError> {
    match text.strip_prefix('-') {
        Some(magnitude) => parse_duration(magnitude).map(i64::wrapping_neg),
        None => parse_duration(text),
    }
}
