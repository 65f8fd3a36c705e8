//! Remote write: samples to line protocol.

use super::protobuf::{Malformed, TimeSeries, write_request};
use super::{NAME_LABEL, VALUE_FIELD, unpack};
use crate::body::read_body;
use crate::encode::push_float_text;
use crate::parameters::{Parameters, consistency};
use crate::reply::Reply;
use crate::service::{Service, WriteRequest};
use crate::write::{WriteCall, body_error, target_v1};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request;
use tidemill_line::series_key::{push_escaped_measurement, push_escaped_tag};

/// The measurement of samples whose metric has no name.
const NO_METRIC: &str = "prom_metric_not_specified";

pub(crate) async fn write<S: Service>(
    call: WriteCall<'_, S>,
    head: &request::Parts,
    url: &Parameters,
    incoming: Incoming,
) -> Reply {
    let spelling = call.spelling;
    let (mut target, incoming) = match call.admit(target_v1(url, call.caller.clone()), head, incoming).await {
        Ok(admitted) => admitted,
        Err(reply) => return reply,
    };
    let body = match read_body(incoming, false, call.options, call.metrics, call.received).await {
        Ok(body) => body,
        Err(error) => return body_error(spelling, &error),
    };
    let bad = |text: &str| Reply::error(spelling, StatusCode::BAD_REQUEST, text);
    match consistency(url.value("consistency")) {
        Some(consistency) => target.consistency = consistency,
        None => return bad("invalid consistency level"),
    }
    let (packed, _charge) = body.into_parts();
    let message = match unpack(&packed, call.options.body_bytes_max) {
        Ok(message) => message,
        Err(text) => return bad(text),
    };
    drop(packed);
    let lines = match lines(&message) {
        Ok(lines) => lines,
        Err(error) => return bad(&error.to_string()),
    };
    drop(message);
    target.precision = tidemill_line::Precision::Nanosecond;
    let outcome = call.service.write(WriteRequest { target, body: lines }).await;
    Reply::write_outcome(spelling, &outcome)
}

/// Why samples cannot be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("label {0:?} has a line feed or ends in a backslash")]
    Label(String),
}

/// Samples as line protocol; those without a finite value are left out, as upstream leaves them.
fn lines(message: &[u8]) -> Result<Vec<u8>, WriteError> {
    let mut lines = Vec::with_capacity(2 * message.len());
    let mut fault = None;
    write_request(message, |series| {
        match key(&series) {
            Ok(key) => push_samples(&mut lines, &key, &series),
            Err(error) => fault = fault.take().or(Some(error)),
        }
        Ok(())
    })?;
    fault.map_or(Ok(lines), Err)
}

fn key(series: &TimeSeries) -> Result<Vec<u8>, WriteError> {
    let metric = series.labels.iter().find(|(name, _)| name == NAME_LABEL);
    let metric = metric.map_or(NO_METRIC, |(_, metric)| metric.as_str());
    let mut key = Vec::new();
    push_escaped_measurement(metric.as_bytes(), &mut key);
    for (name, value) in series.labels.iter().filter(|(_, value)| !value.is_empty()) {
        // Line protocol has no way to say these.
        if [name, value].iter().any(|text| text.contains('\n') || text.ends_with('\\')) || name.is_empty() {
            return Err(WriteError::Label(name.clone()));
        }
        key.push(b',');
        push_escaped_tag(name.as_bytes(), &mut key);
        key.push(b'=');
        push_escaped_tag(value.as_bytes(), &mut key);
    }
    Ok(key)
}

fn push_samples(lines: &mut Vec<u8>, key: &[u8], series: &TimeSeries) {
    for (value, time_ms) in series.samples.iter().filter(|(value, _)| value.is_finite()) {
        lines.extend_from_slice(key);
        lines.push(b' ');
        lines.extend_from_slice(VALUE_FIELD.as_bytes());
        lines.push(b'=');
        push_float_text(lines, *value);
        lines.extend_from_slice(format!(" {}\n", time_ms.saturating_mul(1_000_000)).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::push_time_series;
    use super::*;

    /// Labels and samples.
    type Given<'a> = (&'a [(&'a str, &'a str)], &'a [(f64, i64)]);

    fn lines_of(all: &[Given<'_>]) -> Result<String, WriteError> {
        let mut message = Vec::new();
        for (labels, samples) in all {
            let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            push_time_series(&mut message, &TimeSeries { labels, samples: samples.to_vec() });
        }
        lines(&message).map(|lines| String::from_utf8(lines).unwrap())
    }

    #[test]
    fn labels_are_tags_and_the_metric_is_measurement_and_tag() {
        let text = lines_of(&[
            (&[("__name__", "up"), ("job", "a b")], &[(1.5, 7), (f64::NAN, 8), (-0.25, -9)]),
            (&[("empty", "")], &[(f64::INFINITY, 1), (2.0, 1)]),
        ]);
        let expected = "up,__name__=up,job=a\\ b value=1.5 7000000\nup,__name__=up,job=a\\ b value=-0.25 -9000000\n\
                        prom_metric_not_specified value=2 1000000\n";
        assert_eq!(text.unwrap(), expected);
    }

    #[test]
    fn what_line_protocol_cannot_say_is_refused_by_name() {
        for (name, value) in [("a", "x\ny"), ("b", "c:\\"), ("", "x")] {
            let error = lines_of(&[(&[("__name__", "up"), (name, value)], &[(1.0, 1)])]).unwrap_err();
            assert_eq!(error, WriteError::Label(name.to_owned()));
        }
    }
}
