//! Walking and rewriting expressions, and what planners ask about them.

use crate::expression::{Call, Expr, VarRef};
use crate::select::Field;

impl Expr {
    /// Calls `visitor` on this node and then on everything below it, left to right.
    pub fn visit<'a>(&'a self, visitor: &mut impl FnMut(&'a Expr)) {
        visitor(self);
        match self {
            Self::Binary { left, right, .. } => {
                left.visit(visitor);
                right.visit(visitor);
            }
            Self::Paren(inner) => inner.visit(visitor),
            Self::Call(call) => call.arguments.iter().for_each(|argument| argument.visit(visitor)),
            _ => {}
        }
    }

    /// Rebuilds the expression from its leaves up: `rewriter` gets each node with its children already rewritten.
    pub fn rewrite(self, rewriter: &mut impl FnMut(Expr) -> Expr) -> Expr {
        let rebuilt = match self {
            Self::Binary { operator, left, right } => {
                let left = left.rewrite(rewriter);
                let right = right.rewrite(rewriter);
                Self::binary(operator, left, right)
            }
            Self::Paren(inner) => Self::paren(inner.rewrite(rewriter)),
            Self::Call(Call { name, arguments }) => {
                let arguments = arguments.into_iter().map(|argument| argument.rewrite(rewriter)).collect();
                Self::Call(Call { name, arguments })
            }
            leaf => leaf,
        };
        rewriter(rebuilt)
    }

    /// Whether any node satisfies the predicate.
    pub fn any(&self, predicate: &mut impl FnMut(&Expr) -> bool) -> bool {
        let mut found = false;
        self.visit(&mut |expr| found = found || predicate(expr));
        found
    }

    /// Every field or tag reference, left to right, `DISTINCT name` not included, duplicates included.
    pub fn var_refs(&self) -> Vec<&VarRef> {
        let mut references = Vec::new();
        self.visit(&mut |expr| {
            if let Self::VarRef(reference) = expr {
                references.push(reference);
            }
        });
        references
    }

    /// Every call, outermost first, left to right.
    pub fn calls(&self) -> Vec<&Call> {
        let mut calls = Vec::new();
        self.visit(&mut |expr| {
            if let Self::Call(call) = expr {
                calls.push(call);
            }
        });
        calls
    }

    /// Whether the time column is mentioned.
    pub fn has_time_expr(&self) -> bool {
        self.any(&mut |expr| matches!(expr, Self::VarRef(reference) if reference.is_time()))
    }
}

impl Field {
    /// The column that the field makes, before duplicates are renamed: its alias, or the name of its expression.
    pub fn column_name(&self) -> String {
        match &self.alias {
            Some(alias) => alias.clone(),
            None => self.expr.column_name(),
        }
    }
}

impl Expr {
    /// The name of a reference or call; for operators the names inside, left to right, joined by `_`. Empty for
    /// literals and for wildcards, whose names depend on the schema.
    pub fn column_name(&self) -> String {
        match self {
            Self::VarRef(reference) => reference.name.clone(),
            Self::Call(call) => call.name.clone(),
            Self::Distinct(_) => "distinct".to_owned(),
            Self::Paren(inner) => inner.column_name(),
            Self::Binary { .. } => {
                let mut names = Vec::new();
                self.push_names(&mut names);
                names.join("_")
            }
            _ => String::new(),
        }
    }

    fn push_names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::VarRef(reference) => names.push(&reference.name),
            Self::Call(call) => names.push(&call.name),
            Self::Distinct(_) => names.push("distinct"),
            Self::Paren(inner) => inner.push_names(names),
            Self::Binary { left, right, .. } => {
                left.push_names(names);
                right.push_names(names);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse_expr;

    #[test]
    fn column_names() {
        for (text, expected) in [
            ("v", "v"),
            ("v::float", "v"),
            ("v / i", "v_i"),
            ("mean(v) * 2 + 1", "mean"),
            ("-v", "v"),
            ("(v)", "v"),
            ("sin(v) + (a - b)", "sin_a_b"),
            ("DISTINCT v", "distinct"),
            ("1 + 2", ""),
            ("*", ""),
        ] {
            assert_eq!(parse_expr(text).unwrap().column_name(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_inside() {
        let expr = parse_expr("f(a, g(b)) + (c::tag) > Time").unwrap();
        let names: Vec<&str> = expr.var_refs().iter().map(|reference| reference.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "Time"]);
        let calls: Vec<&str> = expr.calls().iter().map(|call| call.name.as_str()).collect();
        assert_eq!(calls, ["f", "g"]);
        assert!(expr.has_time_expr());
        let renamed = expr.rewrite(&mut |node| match node {
            Expr::VarRef(reference) if reference.name == "b" => Expr::Integer(1),
            other => other,
        });
        assert_eq!(renamed.to_string(), "f(a, g(1)) + (c::tag) > \"Time\"".replace('"', ""));
    }
}
