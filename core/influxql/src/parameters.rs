//! Bound parameters: the values that `$name` in a query stands for.
//!
//! A value replaces its `$name` as one token, so it can never add syntax of its own.

use std::collections::BTreeMap;

use crate::duration::DurationText;
use crate::token::Token;

/// A JSON value as the caller's JSON library read it.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterValue {
    Null,
    Boolean(bool),
    /// A number without a decimal point.
    Integer(i64),
    /// A number with a decimal point.
    Number(f64),
    String(String),
    Array,
    /// The entries, in any order.
    Object(Vec<(String, ParameterValue)>),
}

/// The bound parameters of one request. A value that cannot be bound is reported only if the query uses it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Parameters {
    bound: BTreeMap<String, Result<Token, String>>,
}

impl Parameters {
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a name, without its `$`. A later value of the same name wins.
    pub fn bind(&mut self, name: impl Into<String>, value: &ParameterValue) {
        self.bound.insert(name.into(), token_of(value));
    }

    /// The token, or the whole error text.
    pub(crate) fn token(&self, name: &str) -> Result<Token, String> {
        if name.is_empty() {
            return Err("empty bound parameter".to_owned());
        }
        match self.bound.get(name) {
            Some(Ok(token)) => Ok(token.clone()),
            Some(Err(reason)) => Err(format!("missing parameter: {reason}")),
            None => Err(format!("missing parameter: {name}")),
        }
    }
}

fn token_of(value: &ParameterValue) -> Result<Token, String> {
    match value {
        ParameterValue::Null => Err("unable to bind parameter with type <nil>".to_owned()),
        ParameterValue::Array => Err("unable to bind parameter with type []interface {}".to_owned()),
        ParameterValue::Boolean(value) => Ok(Token::Boolean(*value)),
        ParameterValue::Integer(value) => Ok(Token::Integer(value.to_string())),
        ParameterValue::Number(value) => Ok(Token::Number(value.to_string())),
        ParameterValue::String(value) => Ok(Token::String(value.clone())),
        ParameterValue::Object(entries) => match entries.as_slice() {
            [(kind, value)] => token_of_kind(kind, value),
            _ => Err("bound object parameter value must have exactly one entry".to_owned()),
        },
    }
}

fn token_of_kind(kind: &str, value: &ParameterValue) -> Result<Token, String> {
    let text = |wrap: fn(String) -> Token, refusal: &str| match value {
        ParameterValue::String(text) => Ok(wrap(text.clone())),
        _ => Err(refusal.to_owned()),
    };
    match kind {
        "ident" | "identifier" => text(Token::Ident, "identifier must be a string value"),
        "regex" => text(Token::Regex, "regex literal must be a string value"),
        "string" => text(Token::String, "string literal must be a string value"),
        "float" | "number" => match value {
            ParameterValue::Number(value) => Ok(Token::Number(value.to_string())),
            #[expect(clippy::cast_precision_loss, reason = "the client asked for a float")]
            ParameterValue::Integer(value) => Ok(Token::Number((*value as f64).to_string())),
            _ => Err("number literal must be a float value".to_owned()),
        },
        "int" | "integer" => match value {
            ParameterValue::Integer(value) => Ok(Token::Integer(value.to_string())),
            _ => Err("integer literal must be an integer value".to_owned()),
        },
        "duration" => match value {
            ParameterValue::String(text) => Ok(Token::Duration(text.clone())),
            ParameterValue::Integer(nanoseconds) => Ok(Token::Duration(DurationText(*nanoseconds).to_string())),
            _ => Err("duration literal must be a string or integer value".to_owned()),
        },
        other => Err(format!("unknown bind object type: {other}")),
    }
}
