//! The `SHOW` statements.

use super::Parser;
use crate::error::ParseError;
use crate::select::{Measurement, Source};
use crate::statement::{
    ShowCardinality, ShowFieldKeys, ShowMeasurements, ShowSeries, ShowTagKeys, ShowTagValues, ShowTagValuesCardinality,
    Statement, TagKeyFilter,
};
use crate::token::Token;

const SHOWN: [&str; 16] = [
    "CONTINUOUS",
    "DATABASES",
    "DIAGNOSTICS",
    "FIELD",
    "GRANTS",
    "MEASUREMENT",
    "MEASUREMENTS",
    "QUERIES",
    "RETENTION",
    "SERIES",
    "SHARD",
    "SHARDS",
    "STATS",
    "SUBSCRIPTIONS",
    "TAG",
    "USERS",
];

impl Parser<'_> {
    /// The statement after its `SHOW`.
    pub(super) fn parse_show(&mut self) -> Result<Statement, ParseError> {
        let (token, position) = self.next()?;
        match token {
            Token::Keyword("CONTINUOUS") => {
                self.expect_keywords(&["QUERIES"])?;
                Ok(Statement::ShowContinuousQueries)
            }
            Token::Keyword("DATABASES") => Ok(Statement::ShowDatabases),
            Token::Keyword("DIAGNOSTICS") => Ok(Statement::ShowDiagnostics { module: self.parse_module()? }),
            Token::Keyword("FIELD") => self.parse_show_field(),
            Token::Keyword("GRANTS") => {
                self.expect_keywords(&["FOR"])?;
                Ok(Statement::ShowGrants { user: self.parse_ident()? })
            }
            Token::Keyword("MEASUREMENT") => {
                let exact = self.parse_cardinality()?;
                self.parse_cardinality_clauses(exact).map(Statement::ShowMeasurementCardinality)
            }
            Token::Keyword("MEASUREMENTS") => self.parse_show_measurements(),
            Token::Keyword("QUERIES") => Ok(Statement::ShowQueries),
            Token::Keyword("RETENTION") => {
                self.expect_keywords(&["POLICIES"])?;
                Ok(Statement::ShowRetentionPolicies { database: self.parse_on()? })
            }
            Token::Keyword("SERIES") => self.parse_show_series(),
            Token::Keyword("SHARD") => {
                self.expect_keywords(&["GROUPS"])?;
                Ok(Statement::ShowShardGroups)
            }
            Token::Keyword("SHARDS") => Ok(Statement::ShowShards),
            Token::Keyword("STATS") => Ok(Statement::ShowStats { module: self.parse_module()? }),
            Token::Keyword("SUBSCRIPTIONS") => Ok(Statement::ShowSubscriptions),
            Token::Keyword("TAG") => self.parse_show_tag(),
            Token::Keyword("USERS") => Ok(Statement::ShowUsers),
            other => Err(ParseError::expected(&other.text(), &SHOWN, position)),
        }
    }

    /// `[FOR 'module']`
    fn parse_module(&mut self) -> Result<Option<String>, ParseError> {
        if self.take_keyword("FOR")? { self.parse_string().map(Some) } else { Ok(None) }
    }

    /// `[ON database]`
    fn parse_on(&mut self) -> Result<Option<String>, ParseError> {
        if self.take_keyword("ON")? { self.parse_ident().map(Some) } else { Ok(None) }
    }

    /// `[FROM measurement, ..]`
    fn parse_from(&mut self) -> Result<Vec<Source>, ParseError> {
        if self.take_keyword("FROM")? { self.parse_list(|parser| parser.parse_source(false)) } else { Ok(Vec::new()) }
    }

    /// `[EXACT] CARDINALITY`; true when `EXACT` was there.
    fn parse_cardinality(&mut self) -> Result<bool, ParseError> {
        match self.next()? {
            (Token::Keyword("EXACT"), _) => {
                self.expect_keywords(&["CARDINALITY"])?;
                Ok(true)
            }
            (Token::Keyword("CARDINALITY"), _) => Ok(false),
            (other, position) => Err(ParseError::expected(&other.text(), &["EXACT", "CARDINALITY"], position)),
        }
    }

    fn parse_cardinality_clauses(&mut self, exact: bool) -> Result<ShowCardinality, ParseError> {
        Ok(ShowCardinality {
            database: self.parse_on()?,
            exact,
            sources: self.parse_from()?,
            condition: self.parse_condition()?,
            dimensions: self.parse_dimensions()?,
            limit: self.parse_count("LIMIT")?,
            offset: self.parse_count("OFFSET")?,
        })
    }

    fn parse_show_field(&mut self) -> Result<Statement, ParseError> {
        match self.next()? {
            (Token::Keyword("KEY"), _) => {
                let exact = self.parse_cardinality()?;
                self.parse_cardinality_clauses(exact).map(Statement::ShowFieldKeyCardinality)
            }
            (Token::Keyword("KEYS"), _) => Ok(Statement::ShowFieldKeys(ShowFieldKeys {
                database: self.parse_on()?,
                sources: self.parse_from()?,
                order: self.parse_order()?,
                limit: self.parse_count("LIMIT")?,
                offset: self.parse_count("OFFSET")?,
            })),
            (other, position) => Err(ParseError::expected(&other.text(), &["KEY", "KEYS"], position)),
        }
    }

    fn parse_show_tag(&mut self) -> Result<Statement, ParseError> {
        match self.next()? {
            (Token::Keyword("KEY"), _) => {
                let exact = self.parse_cardinality()?;
                self.parse_cardinality_clauses(exact).map(Statement::ShowTagKeyCardinality)
            }
            (Token::Keyword("KEYS"), _) => Ok(Statement::ShowTagKeys(ShowTagKeys {
                database: self.parse_on()?,
                sources: self.parse_from()?,
                condition: self.parse_condition()?,
                order: self.parse_order()?,
                limit: self.parse_count("LIMIT")?,
                offset: self.parse_count("OFFSET")?,
                slimit: self.parse_count("SLIMIT")?,
                soffset: self.parse_count("SOFFSET")?,
            })),
            (Token::Keyword("VALUES"), _) => self.parse_show_tag_values(),
            (other, position) => Err(ParseError::expected(&other.text(), &["KEY", "KEYS", "VALUES"], position)),
        }
    }

    fn parse_show_tag_values(&mut self) -> Result<Statement, ParseError> {
        let exact = self.take_keyword("EXACT")?;
        if exact {
            self.expect_keywords(&["CARDINALITY"])?;
        }
        if exact || self.take_keyword("CARDINALITY")? {
            let database = self.parse_on()?;
            let sources = self.parse_from()?;
            let key = self.parse_with_key()?;
            let clauses = ShowCardinality {
                database,
                exact,
                sources,
                condition: self.parse_condition()?,
                dimensions: self.parse_dimensions()?,
                limit: self.parse_count("LIMIT")?,
                offset: self.parse_count("OFFSET")?,
            };
            return Ok(Statement::ShowTagValuesCardinality(ShowTagValuesCardinality { key, clauses }));
        }
        Ok(Statement::ShowTagValues(ShowTagValues {
            database: self.parse_on()?,
            sources: self.parse_from()?,
            key: self.parse_with_key()?,
            condition: self.parse_condition()?,
            order: self.parse_order()?,
            limit: self.parse_count("LIMIT")?,
            offset: self.parse_count("OFFSET")?,
        }))
    }

    fn parse_with_key(&mut self) -> Result<TagKeyFilter, ParseError> {
        self.expect_keywords(&["WITH", "KEY"])?;
        let (token, position) = self.next()?;
        match token {
            Token::Keyword("IN") => {
                self.expect_symbol("(")?;
                let keys = self.parse_list(Self::parse_ident)?;
                self.expect_symbol(")")?;
                Ok(TagKeyFilter::In(keys))
            }
            Token::Symbol("=") => self.parse_ident().map(TagKeyFilter::Equal),
            Token::Symbol("!=") => self.parse_ident().map(TagKeyFilter::NotEqual),
            Token::Symbol(operator @ ("=~" | "!~")) => {
                let Some(regex) = self.parse_regex()? else {
                    let (other, position) = self.next()?;
                    return Err(ParseError::expected(&other.text(), &["regex"], position));
                };
                Ok(if operator == "=~" { TagKeyFilter::Matches(regex) } else { TagKeyFilter::NotMatches(regex) })
            }
            other => Err(ParseError::expected(&other.text(), &["IN", "=", "=~"], position)),
        }
    }

    fn parse_show_measurements(&mut self) -> Result<Statement, ParseError> {
        let database = self.parse_on()?;
        let mut with_measurement = None;
        if self.take_keyword("WITH")? {
            self.expect_keywords(&["MEASUREMENT"])?;
            with_measurement = Some(self.parse_measurement_filter()?);
        }
        Ok(Statement::ShowMeasurements(ShowMeasurements {
            database,
            with_measurement,
            condition: self.parse_condition()?,
            order: self.parse_order()?,
            limit: self.parse_count("LIMIT")?,
            offset: self.parse_count("OFFSET")?,
        }))
    }

    /// What follows decides between a name and a regular expression; upstream takes either after both operators.
    fn parse_measurement_filter(&mut self) -> Result<Measurement, ParseError> {
        match self.next()? {
            (Token::Symbol("=" | "=~"), _) => {}
            (other, position) => return Err(ParseError::expected(&other.text(), &["=", "=~"], position)),
        }
        self.parse_measurement()
    }

    fn parse_show_series(&mut self) -> Result<Statement, ParseError> {
        // `EXACT` alone is accepted by upstream and means nothing.
        let exact = self.take_keyword("EXACT")?;
        if self.take_keyword("CARDINALITY")? {
            return self.parse_cardinality_clauses(exact).map(Statement::ShowSeriesCardinality);
        }
        Ok(Statement::ShowSeries(ShowSeries {
            database: self.parse_on()?,
            sources: self.parse_from()?,
            condition: self.parse_condition()?,
            order: self.parse_order()?,
            limit: self.parse_count("LIMIT")?,
            offset: self.parse_count("OFFSET")?,
        }))
    }
}
