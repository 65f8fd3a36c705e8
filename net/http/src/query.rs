//! `/query`: parameters to a [`QueryRequest`], pieces to a streamed body.

use crate::access_log::Entry;
use crate::answer::{Answer, Shape, StatementShape};
use crate::body::{Outlet, Payload, read_body};
use crate::encode::{Format, TimeFormat};
use crate::indent::Indent;
use crate::metrics::HttpMetrics;
use crate::options::Options;
use crate::parameters::{Parameters, X_TIDEMILL_SESSION, read_level};
use crate::reply::{Reply, Spelling, header_text};
use crate::service::{Caller, Pieces, QueryRequest, Service};
use crate::write::body_error;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, HeaderValue};
use hyper::http::request;
use hyper::{Method, StatusCode};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use tidemill_influxql::{ParameterValue, ParseError, Query, Statement, parse_query_with};
use tidemill_query::TimeZone;

/// Rows of a chunk when the request does not say, or says nonsense.
const CHUNK_SIZE_DEFAULT: usize = 10_000;

pub(crate) struct QueryCall<'a, S> {
    pub(crate) service: &'a S,
    pub(crate) options: &'a Options,
    pub(crate) spelling: Spelling<'a>,
    pub(crate) takes_gzip: bool,
    pub(crate) metrics: &'a Rc<HttpMetrics>,
    pub(crate) received: &'a Cell<u64>,
    pub(crate) caller: Caller,
    /// The request's line in the access log.
    pub(crate) entry: &'a RefCell<Option<Entry>>,
}

pub(crate) async fn query<S: Service>(
    call: QueryCall<'_, S>,
    head: &request::Parts,
    url: &Parameters,
    incoming: Incoming,
) -> Reply {
    let spelling = call.spelling;
    let mut parameters = Parameters::default();
    if head.method == Method::POST {
        let body = match read_body(incoming, false, call.options, call.metrics, call.received).await {
            Ok(body) => body,
            Err(error) => return body_error(spelling, &error),
        };
        parameters = Parameters::from_form(&head.headers, &body.bytes).unwrap_or_default();
        if let Some(entry) = &mut *call.entry.borrow_mut() {
            entry.note_form(&parameters);
        }
    }
    parameters.append(url.clone());
    let query = match statements(&parameters, call.options) {
        Ok(query) => query,
        Err((status, text)) => return Reply::error(spelling, status, &text),
    };
    let read = match read_level(&parameters, &head.headers) {
        Ok(read) => read,
        Err(text) => return Reply::error(spelling, StatusCode::BAD_REQUEST, &text),
    };
    let is_read_only = head.method == Method::GET;
    let text = |statement: &Statement| call.service.statement_text(statement, parameters.value("db"));
    let shape = shape(&parameters, &query, is_read_only, call.options, &text);
    let request = QueryRequest {
        query,
        database: parameters.value("db").to_owned(),
        retention_policy: parameters.text("rp"),
        chunked: shape.chunked,
        chunk_size: shape.chunk_size,
        read_only: is_read_only,
        read,
        caller: call.caller,
    };
    let pieces = match call.service.query(request).await {
        Ok(pieces) => pieces,
        Err(refusal) => return Reply::refusal(spelling, &refusal),
    };
    if parameters.is_true("async") {
        glommio::spawn_local(run_unheard(pieces)).detach();
        return Reply::empty(StatusCode::NO_CONTENT);
    }
    let time_format = TimeFormat::from_parameter(parameters.value("epoch"));
    let filter = Filter::new(spelling, call.takes_gzip);
    let mut reply = Reply::empty(StatusCode::OK);
    if let Some(token) = pieces.session() {
        reply.headers.push((X_TIDEMILL_SESSION, header_text(token.as_bytes())));
    }
    if filter.gzip.is_some() {
        reply.headers.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    }
    let outlet = Rc::new(Outlet::default());
    let answer = Answer::new(spelling.format.encoder(time_format), shape);
    reply.payload =
        Payload::Produced { outlet: outlet.clone(), producer: Box::pin(produce(pieces, answer, filter, outlet)) };
    reply
}

/// The statements of a request, or the status and text of its refusal.
///
/// # Errors
/// There are none, they are too long, or they cannot be understood.
pub fn statements(parameters: &Parameters, options: &Options) -> Result<Query, (StatusCode, String)> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let text = parameters.value("q").trim();
    if text.is_empty() {
        return Err(bad("missing required parameter \"q\"".to_owned()));
    }
    if text.len() > options.query_text_bytes_max {
        let text = format!("the query text is longer than {} bytes", options.query_text_bytes_max);
        return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let bound = bind(parameters.value("params")).map_err(bad)?;
    let refused = |error: ParseError| bad(format!("error parsing query: {error}"));
    let query = parse_query_with(text, &bound).map_err(refused)?;
    match query.time_zones().into_iter().find(|name| TimeZone::named(name).is_none()) {
        Some(unknown) => Err(refused(ParseError::unknown_time_zone(unknown))),
        None => Ok(query),
    }
}

/// Reads the `params` object.
fn bind(text: &str) -> Result<tidemill_influxql::Parameters, String> {
    let mut bound = tidemill_influxql::Parameters::new();
    if text.is_empty() {
        return Ok(bound);
    }
    let refused = |reason: &str| Err(format!("error parsing query parameters: {reason}"));
    let kind = match serde_json::from_str(text) {
        Ok(Value::Object(members)) => {
            for (name, value) in &members {
                bound.bind(name.as_str(), &parameter_value(value)?);
            }
            return Ok(bound);
        }
        Ok(Value::Null) => return Ok(bound),
        Ok(Value::Array(_)) => "array",
        Ok(Value::String(_)) => "string",
        Ok(Value::Number(_)) => "number",
        Ok(Value::Bool(_)) => "bool",
        Err(error) if error.is_eof() => return refused("unexpected EOF"),
        Err(error) => return refused(&error.to_string()),
    };
    refused(&format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
}

fn parameter_value(value: &Value) -> Result<ParameterValue, String> {
    Ok(match value {
        Value::Null => ParameterValue::Null,
        Value::Bool(value) => ParameterValue::Boolean(*value),
        Value::String(text) => ParameterValue::String(text.clone()),
        Value::Array(_) => ParameterValue::Array,
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| Ok((name.clone(), parameter_value(value)?));
            ParameterValue::Object(members.iter().map(member).collect::<Result<_, String>>()?)
        }
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => ParameterValue::Integer(value),
            (None, Some(value)) if number.is_f64() => ParameterValue::Number(value),
            _ => {
                return Err(format!(
                    "error parsing json value: strconv.ParseInt: parsing \"{number}\": value out of range"
                ));
            }
        },
    })
}

fn shape(
    parameters: &Parameters,
    query: &Query,
    is_read_only: bool,
    options: &Options,
    text: &dyn Fn(&Statement) -> String,
) -> Shape {
    let chunk_size = parameters.value("chunk_size").parse().unwrap_or(0i64);
    let statement_shape = |statement: &Statement| StatementShape {
        warning: (is_read_only && is_deprecated_in_get(statement)).then(|| {
            let text = text(statement);
            format!("deprecated use of '{text}' in a read only context, please use a POST request instead")
        }),
        is_whole: matches!(
            statement,
            Statement::ShowMeasurements(_) | Statement::ShowTagKeys(_) | Statement::ShowTagValues(_)
        ),
    };
    Shape {
        chunked: parameters.is_true("chunked"),
        chunk_size: usize::try_from(chunk_size).ok().filter(|size| *size > 0).unwrap_or(CHUNK_SIZE_DEFAULT),
        row_count_max: options.row_count_max,
        document_bytes_max: options.unstreamed_answer_bytes_max,
        statements: query.statements.iter().map(statement_shape).collect(),
    }
}

/// Statements that change something and say so when they come in a GET. DELETE does not.
fn is_deprecated_in_get(statement: &Statement) -> bool {
    match statement {
        Statement::AlterRetentionPolicy(_)
        | Statement::CreateContinuousQuery(_)
        | Statement::CreateDatabase(_)
        | Statement::CreateRetentionPolicy(_)
        | Statement::CreateSubscription(_)
        | Statement::CreateUser(_)
        | Statement::DropContinuousQuery { .. }
        | Statement::DropDatabase { .. }
        | Statement::DropField { .. }
        | Statement::DropMeasurement { .. }
        | Statement::DropRetentionPolicy { .. }
        | Statement::DropSeries(_)
        | Statement::DropShard { .. }
        | Statement::DropSubscription { .. }
        | Statement::DropUser { .. }
        | Statement::Grant { .. }
        | Statement::GrantAdmin { .. }
        | Statement::KillQuery { .. }
        | Statement::Revoke { .. }
        | Statement::RevokeAdmin { .. }
        | Statement::SetPassword { .. } => true,
        Statement::Select(select) => select.target.is_some(),
        _ => false,
    }
}

async fn run_unheard(mut pieces: impl Pieces) {
    while let Some(piece) = pieces.next().await {
        if let crate::service::Piece::Error { statement, text } = piece {
            tracing::warn!(statement, text, "a query that nobody waits for failed");
            return;
        }
    }
}

/// What happens to the encoder's bytes on their way out.
struct Filter {
    indent: Option<Indent>,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Filter {
    fn new(spelling: Spelling<'_>, takes_gzip: bool) -> Filter {
        Filter {
            indent: (spelling.is_pretty && spelling.format == Format::Json).then(Indent::default),
            // The lowest level takes a third of the time of the default one and gives up a tenth of the size.
            gzip: takes_gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
        }
    }

    /// `is_end` for the last bytes; `is_prompt` when the client must be able to read all of them now.
    fn apply(&mut self, mut bytes: Vec<u8>, is_prompt: bool, is_end: bool) -> std::io::Result<Bytes> {
        if let Some(indent) = &mut self.indent {
            let mut readable = Vec::with_capacity(bytes.len() * 2);
            indent.push(&mut readable, &bytes);
            bytes = readable;
        }
        let Some(mut gzip) = self.gzip.take() else { return Ok(bytes.into()) };
        gzip.write_all(&bytes)?;
        if is_end {
            return Ok(gzip.finish()?.into());
        }
        if is_prompt {
            gzip.flush()?;
        }
        let compressed = std::mem::take(gzip.get_mut());
        self.gzip = Some(gzip);
        Ok(compressed.into())
    }
}

async fn produce(mut pieces: impl Pieces, mut answer: Answer, mut filter: Filter, outlet: Rc<Outlet>) {
    loop {
        if answer.should_flush() {
            let is_end = answer.is_finished();
            let is_prompt = answer.is_chunked();
            // Writing into a Vec does not fail.
            let Ok(bytes) = filter.apply(answer.take(), is_prompt, is_end) else { return };
            outlet.send(bytes).await;
            if is_end {
                return;
            }
        }
        if answer.wants_piece() {
            answer.push(pieces.next().await);
        } else {
            answer.step();
            glommio::executor().yield_if_needed().await;
        }
    }
}
