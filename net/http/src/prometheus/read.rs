//! Remote read: a SELECT whose answer goes back as protobuf.
//!
//! Upstream lets anybody read who has proved who they are; here the caller needs READ on the database, as for every
//! SELECT.

use super::protobuf::{MatcherKind, ReadQuery, TimeSeries, push_time_series, read_request, read_response};
use super::{NAME_LABEL, VALUE_FIELD, unpack};
use crate::body::{Payload, read_body};
use crate::parameters::Parameters;
use crate::reply::Reply;
use crate::service::{Piece, Pieces, QueryRequest, Service};
use crate::write::{WriteCall, body_error};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use tidemill_column::Values;
use tidemill_influxql::{
    BinaryOperator, DataType, Expr, Field, Measurement, MeasurementName, Query, RegexLiteral, SelectStatement, Source,
    Statement, VarRef, WildcardKind,
};
use tidemill_query::{ResultColumn, ResultSeries};

const NS_PER_MS: i64 = 1_000_000;
const CHUNK_ROWS: usize = 10_000;

pub(crate) async fn read<S: Service>(call: WriteCall<'_, S>, url: &Parameters, incoming: Incoming) -> Reply {
    let spelling = call.spelling;
    let body = match read_body(incoming, false, call.options, call.metrics, call.received).await {
        Ok(body) => body,
        Err(error) => return body_error(spelling, &error),
    };
    let bad = |text: &str| Reply::error(spelling, StatusCode::BAD_REQUEST, text);
    let Some(database) = url.text("db") else { return bad("database is required") };
    let queries = unpack(&body.bytes, call.options.body_bytes_max)
        .map_err(str::to_owned)
        .and_then(|message| read_request(&message).map_err(|error| error.to_string()));
    drop(body);
    let (select, shown) = match queries.and_then(|queries| statement(&queries)) {
        Ok(statement) => statement,
        Err(text) => return bad(&text),
    };
    let request = QueryRequest {
        query: Query { statements: vec![Statement::Select(select)] },
        database,
        retention_policy: url.text("rp"),
        chunked: false,
        chunk_size: CHUNK_ROWS,
        read_only: true,
        read: crate::service::ReadLevel::default(),
        caller: call.caller,
    };
    let mut pieces = match call.service.query(request).await {
        Ok(pieces) => pieces,
        Err(refusal) => return Reply::refusal(spelling, &refusal),
    };
    let mut answer = AnswerSeries { result: Vec::new(), open: None, shown };
    let bytes_max = call.options.unstreamed_answer_bytes_max;
    while let Some(piece) = pieces.next().await {
        match piece {
            Piece::Series { series, .. } => answer.push(&series),
            Piece::Error { text, .. } => return Reply::error(spelling, StatusCode::INTERNAL_SERVER_ERROR, &text),
            Piece::StatementDone(_) | Piece::Zone { .. } | Piece::Message { .. } => {}
        }
        if answer.byte_size() > bytes_max {
            let text = format!("the answer is larger than {bytes_max} bytes; ask for a shorter time");
            return Reply::error(spelling, StatusCode::INTERNAL_SERVER_ERROR, &text);
        }
    }
    match snap::raw::Encoder::new().compress_vec(&read_response(&answer.finish())) {
        Ok(packed) => {
            let mut reply = Reply::new(StatusCode::OK, Payload::Bytes(packed));
            reply.content_type = Some("application/x-protobuf");
            reply.headers.push((CONTENT_ENCODING, HeaderValue::from_static("snappy")));
            reply
        }
        Err(error) => Reply::error(spelling, StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Which of the measurements that were read are asked for.
type Shown = Box<dyn Fn(&str) -> bool>;

/// The SELECT of the one query, and which of its measurements are asked for.
fn statement(queries: &[ReadQuery]) -> Result<(SelectStatement, Shown), String> {
    let [query] = queries else {
        return Err("Prometheus read endpoint currently only supports one query at a time".to_owned());
    };
    if query.matchers.is_empty() {
        return Err("expected matcher".to_owned());
    }
    let mut name = MeasurementName::Regex(regex(".*")?);
    let mut tests: Vec<(bool, RegexLiteral)> = Vec::new();
    let ms = |ms: i64| Expr::Integer(ms.saturating_mul(NS_PER_MS));
    let time = || Expr::VarRef(VarRef { name: "time".to_owned(), data_type: None });
    let mut condition = Expr::binary(
        BinaryOperator::And,
        Expr::binary(BinaryOperator::GreaterOrEqual, time(), ms(query.start_ms)),
        Expr::binary(BinaryOperator::LessOrEqual, time(), ms(query.end_ms)),
    );
    for matcher in &query.matchers {
        if matcher.name == NAME_LABEL {
            match matcher.kind {
                MatcherKind::Equal => name = MeasurementName::Name(matcher.value.clone()),
                MatcherKind::Matches => tests.push((true, anchored(&matcher.value)?)),
                MatcherKind::NotMatches => tests.push((false, anchored(&matcher.value)?)),
                MatcherKind::NotEqual => tests.push((false, regex(&literally(&matcher.value))?)),
            }
            continue;
        }
        let tag = Expr::VarRef(VarRef { name: matcher.name.clone(), data_type: Some(DataType::Tag) });
        let (operator, value) = match matcher.kind {
            MatcherKind::Equal => (BinaryOperator::Equal, Expr::String(matcher.value.clone())),
            MatcherKind::NotEqual => (BinaryOperator::NotEqual, Expr::String(matcher.value.clone())),
            MatcherKind::Matches => (BinaryOperator::RegexMatch, Expr::Regex(anchored(&matcher.value)?)),
            MatcherKind::NotMatches => (BinaryOperator::RegexNotMatch, Expr::Regex(anchored(&matcher.value)?)),
        };
        condition = Expr::binary(BinaryOperator::And, condition, Expr::binary(operator, tag, value));
    }
    // Only what the pattern lets through is read at all.
    if let (MeasurementName::Regex(_), Some((_, pattern))) = (&name, tests.iter().find(|(wanted, _)| *wanted)) {
        name = MeasurementName::Regex(pattern.clone());
    }
    let measurement = Measurement { database: None, retention_policy: None, name };
    let select = SelectStatement {
        fields: vec![Field::new(Expr::VarRef(VarRef { name: VALUE_FIELD.to_owned(), data_type: None }))],
        sources: vec![Source::Measurement(measurement)],
        condition: Some(condition),
        dimensions: vec![Expr::Wildcard(WildcardKind::All)],
        ..SelectStatement::default()
    };
    let shown = move |name: &str| tests.iter().all(|(wanted, regex)| regex.is_match(name.as_bytes()) == *wanted);
    Ok((select, Box::new(shown)))
}

fn regex(text: &str) -> Result<RegexLiteral, String> {
    RegexLiteral::new(text).map_err(|error| error.to_string())
}

/// Prometheus' patterns match whole values.
fn anchored(text: &str) -> Result<RegexLiteral, String> {
    regex(&format!("^(?:{text})$"))
}

/// A pattern that only this text matches.
fn literally(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| {
            let is_special = "\\.+*?()|[]{}^$".contains(c);
            is_special.then_some('\\').into_iter().chain([c])
        })
        .collect();
    format!("^{escaped}$")
}

/// The series of the answer, of which the last may go on in the next piece.
struct AnswerSeries {
    result: Vec<u8>,
    open: Option<TimeSeries>,
    shown: Shown,
}

impl AnswerSeries {
    fn push(&mut self, piece: &ResultSeries) {
        let [ResultColumn::Time(times), ResultColumn::Values(column)] = piece.values.as_slice() else { return };
        // Only floats are samples.
        let Values::Float(values) = &column.values else { return };
        if !(self.shown)(&piece.name) {
            return;
        }
        let labels: Vec<(String, String)> = piece.tags.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
        if self.open.as_ref().is_none_or(|open| open.labels != labels) {
            self.close();
            self.open = Some(TimeSeries { labels, samples: Vec::new() });
        }
        let Some(open) = &mut self.open else { return };
        let rows = times.iter().zip(values).enumerate().filter(|(row, _)| column.is_valid(*row));
        open.samples.extend(rows.map(|(_, (time, value))| (*value, time.div_euclid(NS_PER_MS))));
    }

    fn close(&mut self) {
        if let Some(series) = self.open.take() {
            push_time_series(&mut self.result, &series);
        }
    }

    fn byte_size(&self) -> usize {
        self.result.len() + self.open.as_ref().map_or(0, |open| open.samples.len() * size_of::<(f64, i64)>())
    }

    fn finish(mut self) -> Vec<u8> {
        self.close();
        self.result
    }
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::Matcher;
    use super::*;

    fn query(matchers: &[(MatcherKind, &str, &str)]) -> Vec<ReadQuery> {
        let matcher = |(kind, name, value): &(MatcherKind, &str, &str)| Matcher {
            kind: *kind,
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        vec![ReadQuery { start_ms: 1, end_ms: 2, matchers: matchers.iter().map(matcher).collect() }]
    }

    #[test]
    fn matchers_become_a_condition() {
        let matchers = [
            (MatcherKind::Equal, "__name__", "up"),
            (MatcherKind::NotEqual, "job", "a"),
            (MatcherKind::Matches, "host", "b|c"),
        ];
        let (select, _) = statement(&query(&matchers)).unwrap();
        assert_eq!(
            select.to_string(),
            "SELECT value FROM up WHERE time >= 1000000 AND time <= 2000000 AND job::tag != 'a' AND \
             host::tag =~ /^(?:b|c)$/ GROUP BY *"
        );
    }

    #[test]
    fn names_are_tested() {
        let matchers = [(MatcherKind::Matches, "__name__", "u.*"), (MatcherKind::NotEqual, "__name__", "u.p")];
        let (select, shown) = statement(&query(&matchers)).unwrap();
        assert!(select.to_string().contains("FROM /^(?:u.*)$/"), "{select}");
        assert!(shown("up") && shown("uxp") && !shown("u.p") && !shown("xup"));
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        let error = |queries: &[ReadQuery]| statement(queries).err().unwrap();
        assert_eq!(error(&query(&[])), "expected matcher");
        assert_eq!(error(&[]), "Prometheus read endpoint currently only supports one query at a time");
        assert!(error(&query(&[(MatcherKind::Matches, "a", "(")])).contains("error parsing regexp"));
    }
}
