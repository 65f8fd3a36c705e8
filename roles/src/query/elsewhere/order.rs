//! What a holder of partitions is asked.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::{
    data::question::{About, Filter, MeasurementTest, Question, Wanted},
    query::listing::{ListOrder, Listed, PageOrder, Source},
};
use bytes::Bytes;
use rkyv::{
    Archive, Deserialize, Serialize,
    api::high::{HighSerializer, to_bytes_in},
    rancor::Error,
    ser::allocator::ArenaHandle,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidemill_influxql::{RegexLiteral, Statement, TagKeyFilter, parse_expr, parse_statement};
use tidemill_query::{CompileOptions, Plan, SelectLimits, SourceSchema, TagFilter, compile};
use tidemill_store::DatabaseId;

/// Bytes that are no order, or not one that can be understood here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("the archive of a question is damaged")]
    Archive,
    #[error("{text:?} of another node: {why}")]
    Text { text: String, why: String },
}

/// A question about some partitions.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Order {
    /// All on the core that is asked.
    pub partitions: Vec<u32>,
    pub what: What,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum What {
    /// The part of one partition.
    Scan(ScanText),
    /// What scanning the partitions would read.
    Cost(ScanText),
    Ask(QuestionText),
    List(ListText),
    /// Texts of rows of a list.
    Texts {
        source: SourceText,
        ids: Vec<u32>,
    },
}

/// How to come to the plan of a statement again.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Recipe {
    pub statement: String,
    pub now_ns: i64,
    pub default_database: Option<String>,
    pub limits: SelectLimits,
    /// The statement in FROM that is meant: its number, in the statement of the number before.
    pub path: Vec<u32>,
    /// What its sources were found to have.
    pub schemas: Vec<SourceSchema>,
}

/// One of the scans of a plan.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ScanText {
    pub recipe: Arc<Recipe>,
    /// Its place among all scans of the plan.
    pub number: u32,
    pub database: u32,
    pub groups: Vec<u64>,
    /// The query, for errors that name it.
    pub query: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct QuestionText {
    database: u32,
    wanted: WantedText,
    about: AboutText,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ListText {
    database: u32,
    wanted: WantedText,
    /// None: series.
    tag_values_of: Option<TagKeyText>,
    rows_max: Option<u64>,
    /// The query, for errors that name it.
    pub query: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SourceText {
    pub database: u32,
    pub partition: u32,
    pub born: u64,
    pub tag: Option<Vec<u8>>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
struct WantedText {
    measurements: Option<Vec<MeasurementText>>,
    filter: FilterText,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum MeasurementText {
    Name(String),
    Regex(String),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum FilterText {
    All,
    Same(TagFilterText),
    Where { condition: String, fields: BTreeMap<String, BTreeSet<String>> },
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, <__C as rkyv::rancor::Fallible>::Error: rkyv::rancor::Source)))]
enum TagFilterText {
    All,
    None,
    And(#[rkyv(omit_bounds)] Vec<TagFilterText>),
    Or(#[rkyv(omit_bounds)] Vec<TagFilterText>),
    Equal { tag: String, value: String },
    NotEqual { tag: String, value: String },
    Match { tag: String, regex: String },
    NotMatch { tag: String, regex: String },
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum AboutText {
    Measurements,
    TagKeys,
    TagValueCount(TagKeyText),
    Series,
    SeriesCount,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum TagKeyText {
    Equal(String),
    NotEqual(String),
    Matches(String),
    NotMatches(String),
    In(Vec<String>),
}

/// A value as bytes.
pub(super) fn encode<T>(value: &T) -> Bytes
where
    T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Error>>,
{
    #[expect(clippy::expect_used, reason = "own values: only an archive above 2 GiB fails, and memory goes first")]
    let bytes = to_bytes_in::<_, Error>(value, Vec::new()).expect("own values can be archived");
    bytes.into()
}

fn regex(text: &str) -> Result<RegexLiteral, OrderError> {
    RegexLiteral::new(text).map_err(|error| wrong(text, &error))
}

fn wrong(text: &str, why: &dyn ToString) -> OrderError {
    OrderError::Text { text: text.to_owned(), why: why.to_string() }
}

impl Order {
    pub fn decode(bytes: &[u8]) -> Result<Order, OrderError> {
        rkyv::from_bytes::<Order, Error>(bytes).map_err(|_| OrderError::Archive)
    }
}

impl Recipe {
    /// The plan, as it was made where the statement came in.
    ///
    /// # Errors
    /// The text is not that of a statement which was planned.
    pub fn plan(&self) -> Result<Plan, OrderError> {
        let wrong = |why: &dyn ToString| wrong(&self.statement, why);
        let statement = parse_statement(&self.statement).map_err(|error| wrong(&error))?;
        let Statement::Select(select) = statement else { return Err(wrong(&"no SELECT")) };
        let options = CompileOptions {
            now_ns: self.now_ns,
            default_database: self.default_database.clone(),
            limits: self.limits,
        };
        let compiled = compile(&select, &options).map_err(|error| wrong(&error))?;
        let mut meant = &compiled;
        for number in &self.path {
            meant = meant.subqueries().get(*number as usize).ok_or_else(|| wrong(&"it has no such source"))?;
        }
        meant.plan(self.schemas.clone()).map_err(|error| wrong(&error))
    }
}

impl QuestionText {
    pub fn of(question: &Question) -> QuestionText {
        let about = match &question.about {
            About::Measurements => AboutText::Measurements,
            About::TagKeys => AboutText::TagKeys,
            About::TagValueCount(keys) => AboutText::TagValueCount(TagKeyText::of(keys)),
            About::Series => AboutText::Series,
            About::SeriesCount => AboutText::SeriesCount,
        };
        QuestionText { database: question.database.0, wanted: WantedText::of(&question.wanted), about }
    }

    pub fn question(&self) -> Result<Question, OrderError> {
        let about = match &self.about {
            AboutText::Measurements => About::Measurements,
            AboutText::TagKeys => About::TagKeys,
            AboutText::TagValueCount(keys) => About::TagValueCount(keys.filter()?),
            AboutText::Series => About::Series,
            AboutText::SeriesCount => About::SeriesCount,
        };
        Ok(Question { database: DatabaseId(self.database), wanted: self.wanted.wanted()?, about })
    }
}

impl ListText {
    pub fn of(order: &ListOrder) -> ListText {
        let tag_values_of = match &order.listed {
            Listed::Series => None,
            Listed::TagValues(keys) => Some(TagKeyText::of(keys)),
        };
        ListText {
            database: order.database.0,
            wanted: WantedText::of(&order.wanted),
            tag_values_of,
            rows_max: order.rows_max,
            query: order.query.id,
        }
    }

    /// The order, but for the query that it is of.
    pub fn parts(&self) -> Result<(DatabaseId, Wanted, Listed, Option<u64>), OrderError> {
        let listed = match &self.tag_values_of {
            None => Listed::Series,
            Some(keys) => Listed::TagValues(keys.filter()?),
        };
        Ok((DatabaseId(self.database), self.wanted.wanted()?, listed, self.rows_max))
    }
}

impl SourceText {
    pub fn of(source: &Source) -> SourceText {
        SourceText {
            database: source.database.0,
            partition: source.partition,
            born: source.born,
            tag: source.tag.as_ref().map(|tag| tag.to_vec()),
        }
    }

    pub fn source(&self) -> Source {
        Source {
            database: DatabaseId(self.database),
            partition: self.partition,
            born: self.born,
            tag: self.tag.as_deref().map(Arc::from),
        }
    }
}

impl What {
    pub fn texts(page: &PageOrder) -> What {
        What::Texts { source: SourceText::of(&page.source), ids: page.ids.clone() }
    }
}

impl WantedText {
    fn of(wanted: &Wanted) -> WantedText {
        let test = |test: &MeasurementTest| match test {
            MeasurementTest::Name(name) => MeasurementText::Name(name.clone()),
            MeasurementTest::Regex(regex) => MeasurementText::Regex(regex.text().to_owned()),
        };
        let filter = match &wanted.filter {
            Filter::All => FilterText::All,
            Filter::Same(filter) => FilterText::Same(TagFilterText::of(filter)),
            Filter::Where { condition, fields } => {
                FilterText::Where { condition: condition.to_string(), fields: fields.clone() }
            }
        };
        WantedText { measurements: wanted.measurements.as_ref().map(|tests| tests.iter().map(test).collect()), filter }
    }

    fn wanted(&self) -> Result<Wanted, OrderError> {
        let test = |test: &MeasurementText| match test {
            MeasurementText::Name(name) => Ok(MeasurementTest::Name(name.clone())),
            MeasurementText::Regex(text) => regex(text).map(MeasurementTest::Regex),
        };
        let tests = self.measurements.as_ref().map(|tests| tests.iter().map(test).collect::<Result<Vec<_>, _>>());
        let filter = match &self.filter {
            FilterText::All => Filter::All,
            FilterText::Same(filter) => Filter::Same(filter.filter()?),
            FilterText::Where { condition, fields } => {
                let parsed = parse_expr(condition).map_err(|error| wrong(condition, &error))?;
                Filter::Where { condition: parsed, fields: fields.clone() }
            }
        };
        Ok(Wanted { measurements: tests.transpose()?, filter })
    }
}

impl TagFilterText {
    fn of(filter: &TagFilter) -> TagFilterText {
        let all = |parts: &[TagFilter]| parts.iter().map(TagFilterText::of).collect();
        match filter {
            TagFilter::All => TagFilterText::All,
            TagFilter::None => TagFilterText::None,
            TagFilter::And(parts) => TagFilterText::And(all(parts)),
            TagFilter::Or(parts) => TagFilterText::Or(all(parts)),
            TagFilter::Equal { tag, value } => TagFilterText::Equal { tag: tag.clone(), value: value.clone() },
            TagFilter::NotEqual { tag, value } => TagFilterText::NotEqual { tag: tag.clone(), value: value.clone() },
            TagFilter::Match { tag, regex } => {
                TagFilterText::Match { tag: tag.clone(), regex: regex.text().to_owned() }
            }
            TagFilter::NotMatch { tag, regex } => {
                TagFilterText::NotMatch { tag: tag.clone(), regex: regex.text().to_owned() }
            }
        }
    }

    fn filter(&self) -> Result<TagFilter, OrderError> {
        let all = |parts: &[TagFilterText]| parts.iter().map(TagFilterText::filter).collect::<Result<Vec<_>, _>>();
        Ok(match self {
            TagFilterText::All => TagFilter::All,
            TagFilterText::None => TagFilter::None,
            TagFilterText::And(parts) => TagFilter::And(all(parts)?),
            TagFilterText::Or(parts) => TagFilter::Or(all(parts)?),
            TagFilterText::Equal { tag, value } => TagFilter::Equal { tag: tag.clone(), value: value.clone() },
            TagFilterText::NotEqual { tag, value } => TagFilter::NotEqual { tag: tag.clone(), value: value.clone() },
            TagFilterText::Match { tag, regex: text } => TagFilter::Match { tag: tag.clone(), regex: regex(text)? },
            TagFilterText::NotMatch { tag, regex: text } => {
                TagFilter::NotMatch { tag: tag.clone(), regex: regex(text)? }
            }
        })
    }
}

impl TagKeyText {
    fn of(filter: &TagKeyFilter) -> TagKeyText {
        match filter {
            TagKeyFilter::Equal(key) => TagKeyText::Equal(key.clone()),
            TagKeyFilter::NotEqual(key) => TagKeyText::NotEqual(key.clone()),
            TagKeyFilter::Matches(regex) => TagKeyText::Matches(regex.text().to_owned()),
            TagKeyFilter::NotMatches(regex) => TagKeyText::NotMatches(regex.text().to_owned()),
            TagKeyFilter::In(keys) => TagKeyText::In(keys.clone()),
        }
    }

    fn filter(&self) -> Result<TagKeyFilter, OrderError> {
        Ok(match self {
            TagKeyText::Equal(key) => TagKeyFilter::Equal(key.clone()),
            TagKeyText::NotEqual(key) => TagKeyFilter::NotEqual(key.clone()),
            TagKeyText::Matches(text) => TagKeyFilter::Matches(regex(text)?),
            TagKeyText::NotMatches(text) => TagKeyFilter::NotMatches(regex(text)?),
            TagKeyText::In(keys) => TagKeyFilter::In(keys.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_column::FieldType;
    use tidemill_query::SourceIndex;

    fn recipe(statement: &str, path: &[u32]) -> Recipe {
        let schema = |source, measurement: &str| SourceSchema {
            source,
            database: "d".into(),
            retention_policy: "r".into(),
            measurement: measurement.into(),
            fields: [("v".to_owned(), FieldType::Float)].into(),
            tag_keys: ["host".to_owned()].into(),
        };
        Recipe {
            statement: statement.to_owned(),
            now_ns: 1_000_000_000_000,
            default_database: Some("d".to_owned()),
            limits: SelectLimits { max_select_point: 7, ..SelectLimits::default() },
            path: path.to_vec(),
            schemas: vec![schema(SourceIndex::Measurement(0), "m"), schema(SourceIndex::Measurement(0), "n")],
        }
    }

    #[test]
    fn plans_come_out_alike() {
        for (statement, path) in [
            (
                "SELECT v FROM /m|n/ WHERE time > now() - 1h AND host =~ /a\\/b/ GROUP BY host ORDER BY time DESC",
                &[][..],
            ),
            (
                "SELECT mean(v), max(v) INTO x FROM m, n WHERE \"host\" = 'it''s' GROUP BY time(1m, 3s), * fill(0) tz('Asia/Kolkata')",
                &[],
            ),
            ("SELECT sum(s) FROM (SELECT sum(v) AS s FROM m GROUP BY time(1m), host) GROUP BY time(1h)", &[0]),
            ("SELECT top(v, host, 2), derivative(v) FROM m", &[]),
        ] {
            let one = recipe(statement, path);
            let order = Order {
                partitions: vec![1, 17],
                what: What::Scan(ScanText {
                    recipe: one.clone().into(),
                    number: 0,
                    database: 3,
                    groups: vec![5],
                    query: 9,
                }),
            };
            let back = Order::decode(&encode(&order)).unwrap();
            assert_eq!(back, order);
            let made = one.plan();
            let What::Scan(scan) = back.what else { panic!() };
            match (made, scan.recipe.plan()) {
                (Ok(one), Ok(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}"), "{statement}"),
                (one, other) => assert_eq!(one.map(drop), other.map(drop), "{statement}"),
            }
        }
        for (statement, path, named) in [
            ("SELECT v FROM", &[][..], "SELECT v FROM"),
            ("SHOW DATABASES", &[], "no SELECT"),
            ("SELECT v FROM m", &[0], "no such source"),
            ("SELECT v FROM m WHERE time > 'x'", &[], "x"),
        ] {
            let error = recipe(statement, path).plan().map(drop).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn questions_come_back() {
        let regex = |text: &str| RegexLiteral::new(text).unwrap();
        let condition = parse_expr("host = 'a' AND (region !~ /b\\/c/ OR \"v\" > 1)").unwrap();
        let filters = [
            Filter::All,
            Filter::Same(
                TagFilter::Equal { tag: "a".into(), value: "b".into() }.and(
                    TagFilter::Match { tag: "c".into(), regex: regex("d|e") }
                        .or(TagFilter::NotMatch { tag: "é".into(), regex: regex("^$") }),
                ),
            ),
            Filter::Where { condition, fields: [("m".to_owned(), ["v".to_owned()].into())].into() },
        ];
        for filter in filters {
            let told: Vec<String> = ["m", "n"].iter().map(|name| format!("{:?}", filter.of(name))).collect();
            let measurements = Some(vec![MeasurementTest::Name("m".into()), MeasurementTest::Regex(regex("n.*"))]);
            let question = Question {
                database: DatabaseId(7),
                wanted: Wanted { measurements, filter },
                about: About::TagValueCount(TagKeyFilter::Matches(regex("host|region"))),
            };
            let text = QuestionText::of(&question);
            let order = Order { partitions: vec![3], what: What::Ask(text.clone()) };
            assert_eq!(Order::decode(&encode(&order)).unwrap(), order);
            let back = text.question().unwrap();
            let again: Vec<String> =
                ["m", "n"].iter().map(|name| format!("{:?}", back.wanted.filter.of(name))).collect();
            assert_eq!(again, told);
            let tests = back.wanted.measurements.unwrap();
            assert_eq!(["m", "n1", "o"].map(|name| tests.iter().any(|test| test.accepts(name))), [true, true, false]);
            assert!(matches!(&back.about, About::TagValueCount(keys) if keys.accepts("region") && !keys.accepts("dc")));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_an_order(
            noise in prop::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            bit in 0..8u32,
        ) {
            let _ = Order::decode(&noise);
            let scan = ScanText { recipe: recipe("SELECT v FROM m", &[]).into(), number: 0, database: 3, groups: vec![5], query: 9 };
            let mut bytes = encode(&Order { partitions: vec![1], what: What::Cost(scan) }).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            if let Ok(Order { what: What::Cost(scan), .. }) = Order::decode(&bytes) {
                let _ = scan.recipe.plan();
            }
        }
    }
}
