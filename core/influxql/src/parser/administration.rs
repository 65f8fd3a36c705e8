//! Statements that are neither `SELECT` nor `SHOW`: databases, policies, users, continuous queries, deletion.

use super::Parser;
use crate::dimension::group_by_time;
use crate::duration::DurationText;
use crate::error::{ParseError, Position};
use crate::expression::Expr;
use crate::select::{Measurement, SelectStatement};
use crate::statement::{
    AlterRetentionPolicy, CreateContinuousQuery, CreateDatabase, CreateRetentionPolicy, CreateSubscription, CreateUser,
    DatabaseRetentionPolicy, Delete, DropSeries, Explain, Password, Privilege, Statement, SubscriptionMode,
};
use crate::token::Token;

const STATEMENTS: [&str; 11] =
    ["SELECT", "DELETE", "SHOW", "CREATE", "DROP", "EXPLAIN", "GRANT", "REVOKE", "ALTER", "SET", "KILL"];
const CREATED: [&str; 5] = ["CONTINUOUS", "DATABASE", "USER", "RETENTION", "SUBSCRIPTION"];
/// As upstream lists them. `DROP FIELD` is ours and not among them, so that its clients see the texts they know.
const DROPPED: [&str; 8] =
    ["CONTINUOUS", "DATABASE", "MEASUREMENT", "RETENTION", "SERIES", "SHARD", "SUBSCRIPTION", "USER"];

impl Parser<'_> {
    pub(super) fn parse_statement(&mut self) -> Result<Statement, ParseError> {
        let (token, position) = self.next()?;
        match token {
            Token::Keyword("SELECT") => self.parse_select(false).map(Statement::Select),
            Token::Keyword("DELETE") => self.parse_delete(),
            Token::Keyword("SHOW") => self.parse_show(),
            Token::Keyword("CREATE") => self.parse_create(),
            Token::Keyword("DROP") => self.parse_drop(),
            Token::Keyword("EXPLAIN") => self.parse_explain(),
            Token::Keyword("GRANT") => self.parse_grant(),
            Token::Keyword("REVOKE") => self.parse_revoke(),
            Token::Keyword("ALTER") => self.parse_alter(),
            Token::Keyword("SET") => self.parse_set_password(),
            Token::Keyword("KILL") => self.parse_kill(),
            other => Err(ParseError::expected(&other.text(), &STATEMENTS, position)),
        }
    }

    fn parse_create(&mut self) -> Result<Statement, ParseError> {
        match self.next()? {
            (Token::Keyword("CONTINUOUS"), _) => self.parse_create_continuous_query(),
            (Token::Keyword("DATABASE"), _) => self.parse_create_database(),
            (Token::Keyword("USER"), _) => self.parse_create_user(),
            (Token::Keyword("RETENTION"), _) => self.parse_create_retention_policy(),
            (Token::Keyword("SUBSCRIPTION"), _) => self.parse_create_subscription(),
            (other, position) => Err(ParseError::expected(&other.text(), &CREATED, position)),
        }
    }

    fn parse_create_continuous_query(&mut self) -> Result<Statement, ParseError> {
        self.expect_keywords(&["QUERY"])?;
        let name = self.parse_ident()?;
        self.expect_keywords(&["ON"])?;
        let database = self.parse_ident()?;
        let (resample_every, resample_for) = self.parse_resample()?;
        self.expect_keywords(&["BEGIN", "SELECT"])?;
        let source = self.parse_select(true)?;
        self.check_continuous_query(&source, resample_every, resample_for)?;
        self.expect_keywords(&["END"])?;
        let statement = CreateContinuousQuery { name, database, resample_every, resample_for, source };
        Ok(Statement::CreateContinuousQuery(statement))
    }

    fn parse_resample(&mut self) -> Result<(Option<i64>, Option<i64>), ParseError> {
        if !self.take_keyword("RESAMPLE")? {
            return Ok((None, None));
        }
        let every = if self.take_keyword("EVERY")? { Some(self.parse_duration()?) } else { None };
        let range = if self.take_keyword("FOR")? { Some(self.parse_duration()?) } else { None };
        if every.is_none() && range.is_none() {
            let (other, position) = self.next()?;
            return Err(ParseError::expected(&other.text(), &["EVERY", "FOR"], position));
        }
        Ok((every, range))
    }

    /// A continuous query with a function needs windows, and must look back over at least one of them.
    fn check_continuous_query(
        &self,
        source: &SelectStatement,
        every: Option<i64>,
        range: Option<i64>,
    ) -> Result<(), ParseError> {
        let is_raw = !source.fields.iter().any(|field| field.expr.any(&mut |expr| matches!(expr, Expr::Call(_))));
        let interval = match group_by_time(&source.dimensions) {
            Ok(time) => time.map_or(0, |time| time.interval_ns),
            Err(error) => {
                let reason = error.to_string();
                let expected = ["GROUP BY time(...)", reason.as_str()];
                return Err(ParseError::expected(&self.last.0.text(), &expected, self.last.1));
            }
        };
        if is_raw {
            return Ok(());
        }
        if interval == 0 {
            return Err(ParseError::expected(&self.last.0.text(), &["GROUP BY time(...)"], self.last.1));
        }
        let range_min = interval.max(every.unwrap_or(0));
        match range {
            Some(range) if range < range_min => Err(ParseError::without_position(format!(
                "FOR duration must be >= GROUP BY time duration: must be a minimum of {}, got {}",
                DurationText(range_min),
                DurationText(range)
            ))),
            _ => Ok(()),
        }
    }

    fn parse_create_database(&mut self) -> Result<Statement, ParseError> {
        let name = self.parse_ident()?;
        if !self.take_keyword("WITH")? {
            return Ok(Statement::CreateDatabase(CreateDatabase { name, retention_policy: None }));
        }
        match self.peek()? {
            (Token::Keyword("DURATION" | "NAME" | "REPLICATION" | "SHARD"), _) => {}
            (other, position) => {
                let expected = ["DURATION", "NAME", "REPLICATION", "SHARD"];
                return Err(ParseError::expected(&other.text(), &expected, position));
            }
        }
        let mut policy = DatabaseRetentionPolicy::default();
        if self.take_keyword("DURATION")? {
            policy.duration = Some(self.parse_duration_or_infinite()?);
        }
        if self.take_keyword("REPLICATION")? {
            policy.replication = Some(self.parse_replication()?);
        }
        if self.take_keyword("SHARD")? {
            self.expect_keywords(&["DURATION"])?;
            policy.shard_duration = Some(self.parse_duration_or_infinite()?);
        }
        if self.take_keyword("NAME")? {
            policy.name = Some(self.parse_ident()?);
        }
        Ok(Statement::CreateDatabase(CreateDatabase { name, retention_policy: Some(policy) }))
    }

    fn parse_replication(&mut self) -> Result<u32, ParseError> {
        let (text, position) = match self.next()? {
            (Token::Integer(text), position) => (text, position),
            (other, position) => return Err(ParseError::expected(&other.text(), &["integer"], position)),
        };
        let Ok(value) = text.parse::<i64>() else {
            let message = format!("strconv.Atoi: parsing \"{text}\": value out of range");
            return Err(ParseError::at(message, position));
        };
        match u32::try_from(value) {
            Ok(count) if count >= 1 && i32::try_from(count).is_ok() => Ok(count),
            _ => {
                let message = format!("invalid value {value}: must be 1 <= n <= {}", i32::MAX);
                Err(ParseError::at(message, position))
            }
        }
    }

    fn parse_shard_duration(&mut self) -> Result<i64, ParseError> {
        match self.peek()? {
            (Token::Keyword("INF"), position) => {
                Err(ParseError::at("invalid duration INF for shard duration", position))
            }
            _ => self.parse_duration(),
        }
    }

    fn parse_create_retention_policy(&mut self) -> Result<Statement, ParseError> {
        self.expect_keywords(&["POLICY"])?;
        let name = self.parse_ident()?;
        self.expect_keywords(&["ON"])?;
        let database = self.parse_ident()?;
        self.expect_keywords(&["DURATION"])?;
        let duration = self.parse_duration_or_infinite()?;
        self.expect_keywords(&["REPLICATION"])?;
        let replication = self.parse_replication()?;
        let mut shard_duration = None;
        if self.take_keyword("SHARD")? {
            self.expect_keywords(&["DURATION"])?;
            // A shard duration of zero asks for the default, as leaving it out does.
            shard_duration = Some(self.parse_shard_duration()?).filter(|nanoseconds| *nanoseconds != 0);
        }
        let default = self.take_keyword("DEFAULT")?;
        let statement = CreateRetentionPolicy { name, database, duration, replication, shard_duration, default };
        Ok(Statement::CreateRetentionPolicy(statement))
    }

    fn parse_alter(&mut self) -> Result<Statement, ParseError> {
        self.expect_keywords(&["RETENTION", "POLICY"])?;
        let name = if self.take_keyword("DEFAULT")? { "default".to_owned() } else { self.parse_ident()? };
        self.expect_keywords(&["ON"])?;
        let database = self.parse_ident()?;
        let mut statement = AlterRetentionPolicy {
            name,
            database,
            duration: None,
            replication: None,
            shard_duration: None,
            default: false,
        };
        let mut options = 0_usize;
        loop {
            let (token, position) = self.peek()?;
            let option = match token {
                Token::Keyword(option @ ("DURATION" | "REPLICATION" | "SHARD" | "DEFAULT")) => option,
                _ if options > 0 => return Ok(Statement::AlterRetentionPolicy(statement)),
                other => {
                    let expected = ["DURATION", "REPLICATION", "SHARD", "DEFAULT"];
                    return Err(ParseError::expected(&other.text(), &expected, position));
                }
            };
            self.next()?;
            self.parse_alter_option(option, position, &mut statement)?;
            options = options.saturating_add(1);
        }
    }

    fn parse_alter_option(
        &mut self,
        option: &str,
        position: Position,
        statement: &mut AlterRetentionPolicy,
    ) -> Result<(), ParseError> {
        let is_duplicate = match option {
            "DURATION" => statement.duration.is_some(),
            "REPLICATION" => statement.replication.is_some(),
            "SHARD" => statement.shard_duration.is_some(),
            _ => statement.default,
        };
        if is_duplicate {
            return Err(ParseError::at(format!("found duplicate {option} option"), position));
        }
        match option {
            "DURATION" => statement.duration = Some(self.parse_duration_or_infinite()?),
            "REPLICATION" => statement.replication = Some(self.parse_replication()?),
            "SHARD" => {
                self.expect_keywords(&["DURATION"])?;
                statement.shard_duration = Some(self.parse_shard_duration()?);
            }
            _ => statement.default = true,
        }
        Ok(())
    }

    /// `db.rp`
    fn parse_database_and_policy(&mut self) -> Result<(String, String), ParseError> {
        let database = self.parse_ident()?;
        self.expect_symbol(".")?;
        Ok((database, self.parse_ident()?))
    }

    fn parse_create_subscription(&mut self) -> Result<Statement, ParseError> {
        let name = self.parse_ident()?;
        self.expect_keywords(&["ON"])?;
        let (database, retention_policy) = self.parse_database_and_policy()?;
        self.expect_keywords(&["DESTINATIONS"])?;
        let mode = match self.next()? {
            (Token::Keyword("ALL"), _) => SubscriptionMode::All,
            (Token::Keyword("ANY"), _) => SubscriptionMode::Any,
            (other, position) => return Err(ParseError::expected(&other.text(), &["ALL", "ANY"], position)),
        };
        let destinations = self.parse_list(Self::parse_string)?;
        let statement = CreateSubscription { name, database, retention_policy, mode, destinations };
        Ok(Statement::CreateSubscription(statement))
    }

    fn parse_create_user(&mut self) -> Result<Statement, ParseError> {
        let name = self.parse_ident()?;
        self.expect_keywords(&["WITH", "PASSWORD"])?;
        let password = Password::new(self.parse_string()?);
        let admin = self.take_keyword("WITH")?;
        if admin {
            self.expect_keywords(&["ALL", "PRIVILEGES"])?;
        }
        Ok(Statement::CreateUser(CreateUser { name, password, admin }))
    }

    fn parse_set_password(&mut self) -> Result<Statement, ParseError> {
        self.expect_keywords(&["PASSWORD", "FOR"])?;
        let user = self.parse_ident()?;
        self.expect_symbol("=")?;
        Ok(Statement::SetPassword { user, password: Password::new(self.parse_string()?) })
    }

    /// A privilege; `true` when it is `ALL`, which may go without a database.
    fn parse_privilege(&mut self) -> Result<(Privilege, bool), ParseError> {
        match self.next()? {
            (Token::Keyword("READ"), _) => Ok((Privilege::Read, false)),
            (Token::Keyword("WRITE"), _) => Ok((Privilege::Write, false)),
            (Token::Keyword("ALL"), _) => {
                self.take_keyword("PRIVILEGES")?;
                Ok((Privilege::All, true))
            }
            (other, position) => {
                Err(ParseError::expected(&other.text(), &["READ", "WRITE", "ALL [PRIVILEGES]"], position))
            }
        }
    }

    /// `ON` database, or nothing when the next word is `direction` and that is allowed; consumes the direction.
    fn parse_grant_database(&mut self, may_be_admin: bool, direction: &str) -> Result<Option<String>, ParseError> {
        if may_be_admin {
            return match self.next()? {
                (Token::Keyword("ON"), _) => {
                    let database = self.parse_ident()?;
                    self.expect_keywords(&[direction])?;
                    Ok(Some(database))
                }
                (Token::Keyword(found), _) if found == direction => Ok(None),
                (other, position) => Err(ParseError::expected(&other.text(), &["ON", direction], position)),
            };
        }
        self.expect_keywords(&["ON"])?;
        let database = self.parse_ident()?;
        self.expect_keywords(&[direction])?;
        Ok(Some(database))
    }

    fn parse_grant(&mut self) -> Result<Statement, ParseError> {
        let (privilege, is_all) = self.parse_privilege()?;
        let database = self.parse_grant_database(is_all, "TO")?;
        let user = self.parse_ident()?;
        Ok(match database {
            Some(database) => Statement::Grant { privilege, database, user },
            None => Statement::GrantAdmin { user },
        })
    }

    fn parse_revoke(&mut self) -> Result<Statement, ParseError> {
        let (privilege, is_all) = self.parse_privilege()?;
        let database = self.parse_grant_database(is_all, "FROM")?;
        let user = self.parse_ident()?;
        Ok(match database {
            Some(database) => Statement::Revoke { privilege, database, user },
            None => Statement::RevokeAdmin { user },
        })
    }

    fn parse_kill(&mut self) -> Result<Statement, ParseError> {
        self.expect_keywords(&["QUERY"])?;
        let id = self.parse_identifier_number()?;
        let host = if self.take_keyword("ON")? { Some(self.parse_ident()?) } else { None };
        Ok(Statement::KillQuery { id, host })
    }

    fn parse_explain(&mut self) -> Result<Statement, ParseError> {
        let analyze = self.take_keyword("ANALYZE")?;
        self.expect_keywords(&["SELECT"])?;
        Ok(Statement::Explain(Explain { analyze, statement: self.parse_select(false)? }))
    }

    fn parse_delete(&mut self) -> Result<Statement, ParseError> {
        let (sources, condition) = self.parse_deleted()?;
        Ok(Statement::Delete(Delete { sources, condition }))
    }

    /// `[FROM ..] [WHERE ..]`, at least one of them.
    fn parse_deleted(&mut self) -> Result<(Vec<Measurement>, Option<Expr>), ParseError> {
        let mut sources = Vec::new();
        match self.peek()? {
            (Token::Keyword("FROM"), _) => {
                self.next()?;
                sources = self.parse_list(Self::parse_measurement)?;
                let start = Position { line: 1, character: 1 };
                if sources.iter().any(|source| source.retention_policy.is_some()) {
                    return Err(ParseError::at("retention policy not supported", start));
                }
                if sources.iter().any(|source| source.database.is_some()) {
                    return Err(ParseError::at("database not supported", start));
                }
            }
            (Token::Keyword("WHERE"), _) => {}
            (other, position) => return Err(ParseError::expected(&other.text(), &["FROM", "WHERE"], position)),
        }
        Ok((sources, self.parse_condition()?))
    }

    fn parse_drop(&mut self) -> Result<Statement, ParseError> {
        match self.next()? {
            (Token::Keyword("CONTINUOUS"), _) => {
                self.expect_keywords(&["QUERY"])?;
                let (name, database) = self.parse_name_on_database()?;
                Ok(Statement::DropContinuousQuery { name, database })
            }
            (Token::Keyword("DATABASE"), _) => Ok(Statement::DropDatabase { name: self.parse_ident()? }),
            (Token::Keyword("FIELD"), _) => {
                let name = self.parse_ident()?;
                self.expect_keywords(&["FROM"])?;
                Ok(Statement::DropField { name, measurement: self.parse_ident()? })
            }
            (Token::Keyword("MEASUREMENT"), _) => Ok(Statement::DropMeasurement { name: self.parse_ident()? }),
            (Token::Keyword("RETENTION"), _) => {
                self.expect_keywords(&["POLICY"])?;
                let (name, database) = self.parse_name_on_database()?;
                Ok(Statement::DropRetentionPolicy { name, database })
            }
            (Token::Keyword("SERIES"), _) => {
                let (sources, condition) = self.parse_deleted()?;
                Ok(Statement::DropSeries(DropSeries { sources, condition }))
            }
            (Token::Keyword("SHARD"), _) => Ok(Statement::DropShard { id: self.parse_identifier_number()? }),
            (Token::Keyword("SUBSCRIPTION"), _) => {
                let name = self.parse_ident()?;
                self.expect_keywords(&["ON"])?;
                let (database, retention_policy) = self.parse_database_and_policy()?;
                Ok(Statement::DropSubscription { name, database, retention_policy })
            }
            (Token::Keyword("USER"), _) => Ok(Statement::DropUser { name: self.parse_ident()? }),
            (other, position) => Err(ParseError::expected(&other.text(), &DROPPED, position)),
        }
    }

    fn parse_name_on_database(&mut self) -> Result<(String, String), ParseError> {
        let name = self.parse_ident()?;
        self.expect_keywords(&["ON"])?;
        Ok((name, self.parse_ident()?))
    }
}
