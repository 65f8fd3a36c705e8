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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_query_with;

    fn object(kind: &str, value: ParameterValue) -> ParameterValue {
        ParameterValue::Object(vec![(kind.to_owned(), value)])
    }

    fn text(value: &str) -> ParameterValue {
        ParameterValue::String(value.to_owned())
    }

    fn parsed(query: &str, value: &ParameterValue) -> Result<String, String> {
        let mut parameters = Parameters::new();
        parameters.bind("x", value);
        parse_query_with(query, &parameters).map(|query| query.to_string()).map_err(|error| error.to_string())
    }

    /// Observed from upstream.
    #[test]
    fn values_in_their_places() {
        for (query, value, expected) in [
            ("SELECT $x FROM n", object("ident", text("a b")), "SELECT \"a b\" FROM n"),
            ("SELECT v FROM $x", object("identifier", text("n")), "SELECT v FROM n"),
            ("SELECT v FROM $x", object("regex", text("a/b")), "SELECT v FROM /a\\/b/"),
            ("SELECT v FROM n WHERE a =~ $x", object("regex", text("q")), "SELECT v FROM n WHERE a =~ /q/"),
            ("SELECT v FROM n WHERE a = $x", text("it's; DROP"), "SELECT v FROM n WHERE a = 'it\\'s; DROP'"),
            ("SELECT v FROM n LIMIT $x", ParameterValue::Integer(5), "SELECT v FROM n LIMIT 5"),
            ("SELECT v FROM n WHERE v > -$x", ParameterValue::Integer(1), "SELECT v FROM n WHERE v > -1"),
            ("SELECT v FROM n WHERE v > $x", ParameterValue::Integer(-1), "SELECT v FROM n WHERE v > -1"),
            ("SELECT v FROM n WHERE v > $x", ParameterValue::Number(2.0), "SELECT v FROM n WHERE v > 2.000"),
            ("SELECT v FROM n WHERE v = $x", ParameterValue::Boolean(true), "SELECT v FROM n WHERE v = true"),
            ("SELECT v FROM n WHERE time > $x", object("duration", text("1h30m")), "SELECT v FROM n WHERE time > 90m"),
            (
                "SELECT v FROM n WHERE time > $\"x\"",
                object("duration", ParameterValue::Integer(-60_000_000_000)),
                "SELECT v FROM n WHERE time > -1m",
            ),
        ] {
            assert_eq!(parsed(query, &value), Ok(expected.to_owned()), "{query}");
        }
    }

    #[test]
    fn refusals() {
        for (query, value, expected) in [
            ("SELECT $y FROM n", ParameterValue::Null, "missing parameter: y"),
            ("SELECT $ FROM n", ParameterValue::Null, "empty bound parameter"),
            ("SELECT $x FROM n", ParameterValue::Null, "missing parameter: unable to bind parameter with type <nil>"),
            (
                "SELECT $x FROM n",
                ParameterValue::Array,
                "missing parameter: unable to bind parameter with type []interface {}",
            ),
            (
                "SELECT $x FROM n",
                ParameterValue::Object(vec![]),
                "missing parameter: bound object parameter value must have exactly one entry",
            ),
            ("SELECT $x FROM n", object("foo", text("a")), "missing parameter: unknown bind object type: foo"),
            (
                "SELECT $x FROM n",
                object("ident", ParameterValue::Null),
                "missing parameter: identifier must be a string value",
            ),
            (
                "SELECT $x FROM n",
                object("regex", text("(")),
                "error parsing regexp: missing closing ): `(` at line 1, char 8",
            ),
            ("SELECT $x FROM n", object("duration", text("1x")), "invalid duration"),
            (
                "SELECT $x FROM n",
                object("duration", ParameterValue::Number(1.5)),
                "missing parameter: duration literal must be a string or integer value",
            ),
            ("SELECT v FROM n LIMIT $x", ParameterValue::Integer(-1), "LIMIT must be >= 0 at line 1, char 23"),
            ("SELECT v FROM n LIMIT $x", ParameterValue::Number(1.5), "found 1.5, expected integer at line 1, char 23"),
            ("SELECT v FROM n LIMIT $x", text("a"), "found a, expected integer at line 1, char 23"),
            ("CREATE DATABASE $x", text("foo"), "found foo, expected identifier at line 1, char 17"),
        ] {
            assert_eq!(parsed(query, &value), Err(expected.to_owned()), "{query}");
        }
    }
}
