//! Expressions: what stands in a field list, a condition, a dimension or an argument.
//!
//! Owns the expression tree and its small values. An `Expr` that the parser made is at most
//! [`EXPRESSION_HEIGHT_MAX`](crate::EXPRESSION_HEIGHT_MAX) levels high, so plain recursion over it is safe.
//! It does not know which names are fields and which are tags: that needs a schema.

use crate::regex_literal::RegexLiteral;

/// One node of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `left operator right`. The tree says what binds tighter; parentheses of the text are [`Expr::Paren`].
    Binary {
        operator: BinaryOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `( inner )`
    Paren(Box<Expr>),
    /// A field or tag by name.
    VarRef(VarRef),
    /// `name(arguments)`
    Call(Call),
    /// `DISTINCT name`, the form without parentheses.
    Distinct(String),
    /// `*`, `*::field`, `*::tag`
    Wildcard(WildcardKind),
    Regex(RegexLiteral),
    Integer(i64),
    /// Only for integers beyond `i64::MAX`.
    Unsigned(u64),
    Number(f64),
    String(String),
    Boolean(bool),
    /// Nanoseconds.
    Duration(i64),
    /// Calendar months, `1mo` and `1y`: an extension, only in GROUP BY.
    Months(i64),
    /// Nanoseconds since 1970-01-01 UTC. Never parsed; reduction makes it from `now()` and time texts.
    Time(i64),
    /// The value of an expression that reduction found to have none.
    Nil,
}

/// A name with an optional `::type`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VarRef {
    pub name: String,
    pub data_type: Option<DataType>,
}

/// A function call. The parser lower-cases the name.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: String,
    pub arguments: Vec<Expr>,
}

/// What `::type` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    Float,
    Integer,
    Unsigned,
    String,
    Boolean,
    /// `::tag`
    Tag,
    /// `::field`, a field of any type.
    AnyField,
}

/// What a wildcard stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WildcardKind {
    /// `*`
    All,
    /// `*::field`
    Field,
    /// `*::tag`
    Tag,
}

/// Binary operators, all left associative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOperator {
    Or,
    And,
    Equal,
    NotEqual,
    RegexMatch,
    RegexNotMatch,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    BitwiseOr,
    BitwiseXor,
    Multiply,
    Divide,
    Modulo,
    BitwiseAnd,
}

impl BinaryOperator {
    /// 1 (`OR`, loosest) to 5 (`*`, tightest).
    pub const fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal
            | Self::NotEqual
            | Self::RegexMatch
            | Self::RegexNotMatch
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual => 3,
            Self::Add | Self::Subtract | Self::BitwiseOr | Self::BitwiseXor => 4,
            Self::Multiply | Self::Divide | Self::Modulo | Self::BitwiseAnd => 5,
        }
    }

    /// The operator as it is printed.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Or => "OR",
            Self::And => "AND",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::RegexMatch => "=~",
            Self::RegexNotMatch => "!~",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::BitwiseOr => "|",
            Self::BitwiseXor => "^",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::BitwiseAnd => "&",
        }
    }

    /// `AND`, `OR`
    pub const fn is_logical(self) -> bool {
        matches!(self, Self::And | Self::Or)
    }

    /// `= != =~ !~ < <= > >=`
    pub const fn is_comparison(self) -> bool {
        self.precedence() == 3
    }

    /// `+ - * / % & | ^`
    pub const fn is_arithmetic(self) -> bool {
        self.precedence() >= 4
    }

    /// The comparison that holds when the sides are swapped; other operators stay.
    pub const fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            other => other,
        }
    }
}

impl DataType {
    /// The word after `::`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Unsigned => "unsigned",
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Tag => "tag",
            Self::AnyField => "field",
        }
    }
}

impl VarRef {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), data_type: None }
    }

    /// The time column, in any case.
    pub fn is_time(&self) -> bool {
        self.name.eq_ignore_ascii_case("time")
    }
}

impl Call {
    pub fn new(name: impl Into<String>, arguments: Vec<Expr>) -> Self {
        Self { name: name.into(), arguments }
    }
}

impl Expr {
    pub fn binary(operator: BinaryOperator, left: Expr, right: Expr) -> Self {
        Self::Binary { operator, left: Box::new(left), right: Box::new(right) }
    }

    pub fn var_ref(name: impl Into<String>) -> Self {
        Self::VarRef(VarRef::new(name))
    }

    pub fn call(name: impl Into<String>, arguments: Vec<Expr>) -> Self {
        Self::Call(Call::new(name, arguments))
    }

    pub fn paren(inner: Expr) -> Self {
        Self::Paren(Box::new(inner))
    }

    pub fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// The expression inside any number of parentheses.
    pub fn without_parens(&self) -> &Expr {
        let mut expr = self;
        while let Self::Paren(inner) = expr {
            expr = inner;
        }
        expr
    }

    /// A number, string, boolean, duration, time, regex or nothing.
    pub const fn is_literal(&self) -> bool {
        matches!(
            self,
            Self::Regex(_)
                | Self::Integer(_)
                | Self::Unsigned(_)
                | Self::Number(_)
                | Self::String(_)
                | Self::Boolean(_)
                | Self::Duration(_)
                | Self::Months(_)
                | Self::Time(_)
                | Self::Nil
        )
    }

    /// Upstream's name of the node's kind, which some of its messages show.
    pub const fn kind_name(&self) -> &'static str {
        match self {
            Self::Binary { .. } => "*influxql.BinaryExpr",
            Self::Paren(_) => "*influxql.ParenExpr",
            Self::VarRef(_) => "*influxql.VarRef",
            Self::Call(_) => "*influxql.Call",
            Self::Distinct(_) => "*influxql.Distinct",
            Self::Wildcard(_) => "*influxql.Wildcard",
            Self::Regex(_) => "*influxql.RegexLiteral",
            Self::Integer(_) => "*influxql.IntegerLiteral",
            Self::Unsigned(_) => "*influxql.UnsignedLiteral",
            Self::Number(_) => "*influxql.NumberLiteral",
            Self::String(_) => "*influxql.StringLiteral",
            Self::Boolean(_) => "*influxql.BooleanLiteral",
            Self::Duration(_) | Self::Months(_) => "*influxql.DurationLiteral",
            Self::Time(_) => "*influxql.TimeLiteral",
            Self::Nil => "*influxql.NilLiteral",
        }
    }
}
