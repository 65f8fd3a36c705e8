//! Which format and compression a client takes (RFC 9110, sections 12.4.2, 12.5.1 and 12.5.3).

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::encode::Format;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};

/// The first supported format among the accepted ones, in the client's order of preference; JSON when there is none.
pub(crate) fn format(headers: &HeaderMap) -> Format {
    let mut ranges: Vec<(&str, f32)> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(range)
        .collect();
    // The sort is stable: ranges of the same quality keep their order.
    ranges.sort_by(|(_, left), (_, right)| right.total_cmp(left));
    ranges
        .iter()
        .find_map(|(range, _)| Format::ALL.into_iter().find(|format| covers(range, format.media_type())))
        .unwrap_or_default()
}

/// A media range and its quality.
fn range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';');
    let range = parts.next()?.trim();
    let quality = parts
        .filter_map(|attribute| attribute.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
        .map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0));
    (quality > 0.0).then_some((range, quality))
}

fn covers(range: &str, media_type: &str) -> bool {
    let (Some((wanted, wanted_sub)), Some((kind, sub))) = (range.split_once('/'), media_type.split_once('/')) else {
        return false;
    };
    (wanted == "*" || wanted.eq_ignore_ascii_case(kind)) && (wanted_sub == "*" || wanted_sub.eq_ignore_ascii_case(sub))
}

/// True when the client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    codings.filter_map(range).any(|(coding, _)| coding.eq_ignore_ascii_case("gzip"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn of(accept: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        format(&headers)
    }

    #[test]
    fn preferences_are_honoured_and_nothing_is_refused() {
        assert_eq!(format(&HeaderMap::new()), Format::Json);
        assert_eq!(of("*/*"), Format::Json);
        assert_eq!(of("*/csv"), Format::Csv);
        assert_eq!(of("text/*"), Format::TextCsv);
        assert_eq!(of("text/html, application/x-msgpack"), Format::MessagePack);
        assert_eq!(of("application/json;q=0.5, text/csv;q=0.9"), Format::TextCsv);
        assert_eq!(of("text/csv;q=0, application/csv;q=x"), Format::Json);
        assert_eq!(of("image/png"), Format::Json);
        assert_eq!(of(";;,=/q"), Format::Json);
    }

    #[test]
    fn gzip_may_be_declined() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            takes_gzip(&headers)
        };
        assert!(takes("deflate, gzip") && takes("GZIP;q=0.1") && !takes("gzip;q=0") && !takes("br"));
    }
}
