//! What is printed parses back to the same tree, for random trees; and no text makes the parser panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tidemill_influxql::{
    AlterRetentionPolicy, BinaryOperator, CreateContinuousQuery, CreateDatabase, DataType, DatabaseRetentionPolicy,
    Delete, Explain, Expr, Field, Fill, Measurement, MeasurementName, Privilege, RegexLiteral, SelectStatement,
    ShowCardinality, ShowTagKeys, ShowTagValues, SortKey, SortOrder, Source, Statement, TagKeyFilter, VarRef,
    WildcardKind, parse_expr, parse_query, parse_statement,
};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z_][a-zA-Z0-9_]{0,6}",
        1 => "[ -~é\n]{1,6}",
        1 => prop::sample::select(vec!["select", "FROM", "time", "true", "inf", "fill", "tz", "a.b", "1a"])
            .prop_map(str::to_owned),
    ]
}

fn regex() -> impl Strategy<Value = RegexLiteral> {
    "[a-z/]{0,4}(\\.\\*|\\[a-f\\]|\\\\/|\\|b)?".prop_map(|text| RegexLiteral::new(&text.replace("\\/", "/")).unwrap())
}

fn literal() -> impl Strategy<Value = Expr> {
    prop_oneof![
        any::<i64>().prop_map(Expr::Integer),
        (i64::MAX as u64 + 1..=u64::MAX).prop_map(Expr::Unsigned),
        any::<f64>().prop_filter("no such literal", |value| value.is_finite()).prop_map(Expr::Number),
        "[ -~\n]{0,6}".prop_map(Expr::String),
        any::<bool>().prop_map(Expr::Boolean),
        (-i64::MAX..i64::MAX).prop_map(Expr::Duration),
        (-100_i64..100).prop_map(|hours| Expr::Duration(hours * 3_600_000_000_000)),
    ]
}

fn var_ref() -> impl Strategy<Value = Expr> {
    let types = [
        DataType::Float,
        DataType::Integer,
        DataType::Unsigned,
        DataType::String,
        DataType::Boolean,
        DataType::Tag,
        DataType::AnyField,
    ];
    (name(), option::of(prop::sample::select(types.to_vec())))
        .prop_map(|(name, data_type)| Expr::VarRef(VarRef { name, data_type }))
}

fn call_name() -> impl Strategy<Value = String> {
    prop_oneof![Just("distinct".to_owned()), "[a-z_]{1,6}".prop_map(|name| name), Just("my call".to_owned())]
}

fn operators(conditions: bool) -> impl Strategy<Value = BinaryOperator> {
    use BinaryOperator as Op;
    let arithmetic = vec![
        Op::Add,
        Op::Subtract,
        Op::Multiply,
        Op::Divide,
        Op::Modulo,
        Op::BitwiseAnd,
        Op::BitwiseOr,
        Op::BitwiseXor,
    ];
    let mut all = arithmetic.clone();
    all.extend([Op::And, Op::Or, Op::Equal, Op::NotEqual, Op::Less, Op::LessOrEqual, Op::Greater, Op::GreaterOrEqual]);
    prop::sample::select(if conditions { all } else { arithmetic })
}

/// An operand that binds looser than its place goes into parentheses, as text needs them.
fn join(operator: BinaryOperator, left: Expr, right: Expr) -> Expr {
    let wrap = |expr: Expr, precedence_min: u8| match &expr {
        Expr::Binary { operator: inner, .. } if inner.precedence() < precedence_min => Expr::paren(expr),
        _ => expr,
    };
    Expr::binary(operator, wrap(left, operator.precedence()), wrap(right, operator.precedence() + 1))
}

fn expr(conditions: bool) -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        3 => var_ref(),
        3 => literal(),
        1 => name().prop_map(Expr::Distinct),
        1 => prop::sample::select(vec![WildcardKind::All, WildcardKind::Field, WildcardKind::Tag])
            .prop_map(Expr::Wildcard),
    ];
    leaf.prop_recursive(5, 32, 4, move |inner| {
        let argument = prop_oneof![4 => inner.clone(), 1 => regex().prop_map(Expr::Regex)];
        let matching = (inner.clone(), any::<bool>(), regex()).prop_map(move |(left, matches, regex)| {
            let operator = if matches { BinaryOperator::RegexMatch } else { BinaryOperator::RegexNotMatch };
            if conditions { join(operator, left, Expr::Regex(regex)) } else { left }
        });
        prop_oneof![
            4 => (operators(conditions), inner.clone(), inner.clone())
                .prop_map(|(operator, left, right)| join(operator, left, right)),
            2 => (call_name(), vec(argument, 0..4)).prop_map(|(name, arguments)| Expr::call(name, arguments)),
            1 => inner.prop_map(Expr::paren),
            1 => matching,
        ]
    })
}

fn measurement() -> impl Strategy<Value = Measurement> {
    let last = prop_oneof![3 => name().prop_map(MeasurementName::Name), 1 => regex().prop_map(MeasurementName::Regex)];
    (option::of(name()), option::of(name()), last).prop_map(|(database, retention_policy, name)| Measurement {
        database,
        retention_policy,
        name,
    })
}

fn target() -> impl Strategy<Value = Measurement> {
    let of_source = (name(), option::of(name())).prop_map(|(database, retention_policy)| Measurement {
        database: Some(database),
        retention_policy,
        name: MeasurementName::OfSource,
    });
    prop_oneof![
        measurement().prop_filter("a target has a name", |one| !matches!(one.name, MeasurementName::Regex(_))),
        of_source,
    ]
}

fn order() -> impl Strategy<Value = Option<SortOrder>> {
    option::of(prop::sample::select(vec![SortOrder::Ascending, SortOrder::Descending]))
}

/// Keys that are never time alone, which is an order.
fn sort() -> impl Strategy<Value = Vec<SortKey>> {
    let expr = prop_oneof![
        name().prop_filter("not time", |name| name != "time").prop_map(Expr::var_ref),
        name().prop_map(|name| Expr::call("max", vec![Expr::var_ref(name)])),
    ];
    let order = prop::sample::select(vec![SortOrder::Ascending, SortOrder::Descending]);
    vec((expr, order).prop_map(|(expr, order)| SortKey { expr, order }), 0..3)
}

fn fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        Just(Fill::Null),
        Just(Fill::None),
        Just(Fill::Previous),
        Just(Fill::Linear),
        any::<i64>().prop_map(Fill::Integer),
        any::<f64>().prop_filter("no such literal", |value| value.is_finite()).prop_map(Fill::Number),
    ]
}

fn select() -> impl Strategy<Value = SelectStatement> {
    let plain = select_from(measurement().prop_map(Source::Measurement).boxed());
    plain.prop_recursive(2, 6, 2, |inner| {
        let source = prop_oneof![
            2 => measurement().prop_map(Source::Measurement),
            1 => inner.prop_map(|statement| Source::Subquery(Box::new(statement))),
        ];
        select_from(source.boxed())
    })
}

fn select_from(source: BoxedStrategy<Source>) -> BoxedStrategy<SelectStatement> {
    let field = (prop_oneof![4 => expr(false), 1 => regex().prop_map(Expr::Regex)], option::of(name()))
        .prop_map(|(expr, alias)| Field { expr, alias });
    let dimension = prop_oneof![3 => expr(false), 1 => regex().prop_map(Expr::Regex)];
    let count = 0..i64::MAX as u64;
    (
        (vec(field, 1..4), option::of(target()), vec(source, 1..3), option::of(expr(true)), vec(dimension, 0..3)),
        (fill(), order(), sort(), count.clone(), count.clone(), count.clone(), count, option::of("[A-Za-z/' ]{0,6}")),
    )
        .prop_map(|((fields, target, sources, condition, dimensions), rest)| {
            let (fill, order, sort, limit, offset, slimit, soffset, time_zone) = rest;
            let order = if sort.is_empty() { order } else { None };
            SelectStatement {
                fields,
                target,
                sources,
                condition,
                dimensions,
                fill,
                order,
                sort,
                limit,
                offset,
                slimit,
                soffset,
                time_zone,
            }
        })
        .boxed()
}

fn sources() -> impl Strategy<Value = Vec<Source>> {
    vec(measurement().prop_map(Source::Measurement), 0..3)
}

fn tag_keys() -> impl Strategy<Value = TagKeyFilter> {
    prop_oneof![
        name().prop_map(TagKeyFilter::Equal),
        name().prop_map(TagKeyFilter::NotEqual),
        regex().prop_map(TagKeyFilter::Matches),
        regex().prop_map(TagKeyFilter::NotMatches),
        vec(name(), 1..4).prop_map(TagKeyFilter::In),
    ]
}

fn statement() -> impl Strategy<Value = Statement> {
    let duration = || 0..i64::MAX;
    let unqualified = || measurement().prop_map(|one| Measurement { database: None, retention_policy: None, ..one });
    let cardinality = (
        (option::of(name()), any::<bool>(), sources(), option::of(expr(true))),
        (vec(expr(false), 0..3), 0..100_u64, 0..100_u64),
    )
        .prop_map(|((database, exact, sources, condition), (dimensions, limit, offset))| ShowCardinality {
            database,
            exact,
            sources,
            condition,
            dimensions,
            limit,
            offset,
        });
    let cardinality = cardinality.boxed();
    let privilege = prop::sample::select(vec![Privilege::Read, Privilege::Write, Privilege::All]);
    prop_oneof![
        8 => select().prop_map(Statement::Select),
        1 => (any::<bool>(), select())
            .prop_map(|(analyze, statement)| Statement::Explain(Explain { analyze, statement })),
        1 => (vec(unqualified(), 0..3), expr(true))
            .prop_map(|(sources, condition)| Statement::Delete(Delete { sources, condition: Some(condition) })),
        1 => cardinality.clone().prop_map(Statement::ShowSeriesCardinality),
        1 => cardinality.prop_map(Statement::ShowFieldKeyCardinality),
        1 => (option::of(name()), sources(), tag_keys(), option::of(expr(true)), order(), 0..9_u64, 0..9_u64).prop_map(
            |(database, sources, key, condition, order, limit, offset)| Statement::ShowTagValues(ShowTagValues {
                database, sources, key, condition, order, limit, offset,
            })
        ),
        1 => (option::of(name()), sources(), option::of(expr(true)), order(), 0..9_u64, 0..9_u64, 0..9_u64, 0..9_u64)
            .prop_map(|(database, sources, condition, order, limit, offset, slimit, soffset)| {
                Statement::ShowTagKeys(ShowTagKeys {
                    database, sources, condition, order, limit, offset, slimit, soffset,
                })
            }),
        1 => (privilege, name(), name())
            .prop_map(|(privilege, database, user)| Statement::Grant { privilege, database, user }),
        1 => (name(), name(), option::of(duration()), option::of(1..99_u32), option::of(duration()), any::<bool>())
            .prop_filter("changes something", |(_, _, one, two, three, four)| {
                one.is_some() || two.is_some() || three.is_some() || *four
            })
            .prop_map(|(name, database, duration, replication, shard_duration, default)| {
                Statement::AlterRetentionPolicy(AlterRetentionPolicy {
                    name, database, duration, replication, shard_duration, default,
                })
            }),
        1 => (name(), duration(), option::of(1..9_u32), option::of(duration()), option::of(name())).prop_map(
            |(database, duration, replication, shard_duration, name)| Statement::CreateDatabase(CreateDatabase {
                name: database,
                retention_policy: Some(DatabaseRetentionPolicy {
                    duration: Some(duration), replication, shard_duration, name,
                }),
            })
        ),
        1 => (name(), name(), select(), target(), name()).prop_map(|(name, database, mut source, target, field)| {
            // Without a function, so that no interval is asked for; dimensions are checked even then.
            source.fields = vec![Field::new(Expr::var_ref(field))];
            source.dimensions.clear();
            source.target = Some(target);
            Statement::CreateContinuousQuery(CreateContinuousQuery {
                name, database, resample_every: Some(5), resample_for: None, source,
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn printed_statements_parse_back(statement in statement()) {
        let text = format!("{statement:#}");
        prop_assert_eq!(parse_statement(&text).map_err(|error| format!("{text}: {error}")), Ok(statement));
    }

    #[test]
    fn printed_expressions_parse_back(expr in expr(true)) {
        let text = format!("{expr:#}");
        prop_assert_eq!(parse_expr(&text).map_err(|error| format!("{text}: {error}")), Ok(expr));
    }

    /// The normalised text may lose digits of numbers, and nothing else.
    #[test]
    fn normalised_text_is_stable(statement in statement()) {
        let once = parse_statement(&statement.to_string()).unwrap();
        let twice = parse_statement(&once.to_string()).unwrap();
        prop_assert_eq!(once.to_string(), twice.to_string());
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,80}") {
        let _ = parse_query(&text);
    }

    #[test]
    fn any_words_are_parsed_or_refused(words in vec(prop::sample::select(WORDS.to_vec()), 0..24)) {
        if let Ok(query) = parse_query(&words.join(" ")) {
            prop_assert_eq!(parse_query(&format!("{query:#}")).map_err(|error| format!("{query:#}: {error}")), Ok(query));
        }
        let _ = parse_query(&words.concat());
    }

    /// One byte of a statement changed, removed or doubled.
    #[test]
    fn mutated_statements_are_parsed_or_refused(statement in statement(), at in any::<prop::sample::Index>(), by in any::<u8>()) {
        let text = statement.to_string();
        let characters: Vec<char> = text.chars().collect();
        let index = at.index(characters.len());
        let mut mutated = characters.clone();
        match by % 3 {
            0 => mutated[index] = char::from(by),
            1 => { mutated.remove(index); }
            _ => mutated.insert(index, characters[index]),
        }
        let mutated: String = mutated.into_iter().collect();
        match parse_query(&mutated) {
            Ok(query) => {
                // Debug text, because a number may become so large that it is equal to nothing.
                let again = parse_query(&format!("{query:#}"));
                let has_password = format!("{query}").contains("[REDACTED]");
                prop_assert!(has_password || again.as_ref() == Ok(&query), "{mutated}\n{query:#}\n{again:?}");
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

const WORDS: [&str; 64] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "OFFSET",
    "SLIMIT",
    "INTO",
    "AS",
    "SHOW",
    "SERIES",
    "TAG",
    "KEYS",
    "VALUES",
    "WITH",
    "KEY",
    "IN",
    "CARDINALITY",
    "EXACT",
    "ON",
    "CREATE",
    "DATABASE",
    "DROP",
    "DELETE",
    "BEGIN",
    "END",
    "DISTINCT",
    "time",
    "fill",
    "tz",
    "a",
    "b",
    "\"c d\"",
    "'s'",
    "1",
    "2.5",
    "10s",
    "99999999999999999999",
    "*",
    "::",
    "tag",
    "field",
    "float",
    "/re/",
    "=~",
    "!~",
    "=",
    "!=",
    "<",
    ">=",
    "+",
    "-",
    "/",
    "%",
    "(",
    ")",
    ",",
    ";",
    ".",
    ":MEASUREMENT",
    "AND",
    "OR",
    "now()",
];
