//! Column names of a SELECT.

use std::collections::BTreeMap;
use tidemill_influxql::{Expr, VarRef};

/// The name of a field without alias: its name, its function's, or those of all names and functions in an arithmetic
/// expression, joined.
pub(crate) fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Call(call) => call.name.clone(),
        Expr::Distinct(_) => "distinct".to_owned(),
        Expr::VarRef(name) => name.name.clone(),
        Expr::Paren(inner) => name_of(inner),
        Expr::Binary { .. } => {
            let mut names = Vec::new();
            collect(expr, &mut names);
            names.join("_")
        }
        _ => String::new(),
    }
}

/// Whether two expressions are the same but for the types of names.
pub(crate) fn matches_without_types(a: &Expr, b: &Expr) -> bool {
    let untyped = |expr: &Expr| {
        expr.clone().rewrite(&mut |expr| match expr {
            Expr::VarRef(name) => Expr::VarRef(VarRef { name: name.name, data_type: None }),
            other => other,
        })
    };
    untyped(a) == untyped(b)
}

fn collect<'a>(expr: &'a Expr, names: &mut Vec<&'a str>) {
    match expr {
        Expr::Binary { left, right, .. } => {
            collect(left, names);
            collect(right, names);
        }
        Expr::Paren(inner) => collect(inner, names),
        Expr::Call(call) => names.push(&call.name),
        Expr::Distinct(_) => names.push("distinct"),
        Expr::VarRef(name) => names.push(&name.name),
        _ => {}
    }
}

/// The names of all columns, the time column first. Aliases and the time column stay as they are, even if two are equal; other names that
/// are taken get `_1`, `_2` and so on.
pub(crate) fn column_names<'a>(
    time_alias: Option<&str>,
    fields: impl Iterator<Item = (&'a Expr, Option<&'a str>)> + Clone,
) -> Vec<String> {
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    taken.insert(time_alias.unwrap_or("time").to_owned(), 1);
    for (_, alias) in fields.clone() {
        if let Some(alias) = alias {
            taken.insert(alias.to_owned(), 1);
        }
    }
    let mut resolve = |name: String| {
        let Some(mut count) = taken.get(&name).copied() else {
            taken.insert(name.clone(), 1);
            return name;
        };
        let mut free = format!("{name}_{count}");
        while taken.contains_key(&free) {
            count += 1;
            free = format!("{name}_{count}");
        }
        taken.insert(name, count + 1);
        taken.insert(free.clone(), 1);
        free
    };
    let mut names = vec![time_alias.unwrap_or("time").to_owned()];
    for (expr, alias) in fields {
        names.push(alias.map_or_else(|| resolve(name_of(expr)), str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_influxql::{Statement, parse_statement};

    fn names(text: &str) -> Vec<String> {
        let Ok(Statement::Select(select)) = parse_statement(text) else { panic!("{text}") };
        column_names(None, select.fields.iter().map(|field| (&field.expr, field.alias.as_deref())))
    }

    #[test]
    fn names_are_as_documented() {
        assert_eq!(names("SELECT v/i, v*2, -v, v+i AS z FROM n"), ["time", "v_i", "v", "v_1", "z"]);
        assert_eq!(names("SELECT i/2, i%2, i&3, i|8, i^1 FROM n"), ["time", "i", "i_1", "i_2", "i_3", "i_4"]);
        assert_eq!(names("SELECT v, v AS v, v FROM n"), ["time", "v_1", "v", "v_2"]);
        assert_eq!(names("SELECT mean(v)*2+1, (max(v)) FROM n"), ["time", "mean", "max"]);
        assert_eq!(names("SELECT v, v_1, v FROM n"), ["time", "v", "v_1", "v_2"]);
        assert_eq!(names("SELECT a AS x, b AS x FROM n"), ["time", "x", "x"]);
        assert_eq!(names("SELECT v::integer, v::float FROM n"), ["time", "v", "v_1"]);
    }
}
