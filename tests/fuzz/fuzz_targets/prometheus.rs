//! Messages of Prometheus' remote write and read: any bytes are read or refused, what was read is bounded however
//! little the bytes were, and a series comes back from its own bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill_http::prometheus::protobuf::{
    LABELS_MAX, MATCHERS_MAX, QUERIES_MAX, SAMPLES_MAX, TimeSeries, push_time_series, read_request, read_response,
    write_request,
};

fuzz_target!(|data: &[u8]| {
    let all = series(data);
    for one in all.iter().flatten() {
        assert!(one.labels.len() <= LABELS_MAX && one.samples.len() <= SAMPLES_MAX);
        let mut message = Vec::new();
        push_time_series(&mut message, one);
        let again = series(&message).expect("what was written is read");
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].labels, one.labels);
        let bits = |of: &TimeSeries| of.samples.iter().map(|(value, time)| (value.to_bits(), *time)).collect::<Vec<_>>();
        assert_eq!(bits(&again[0]), bits(one));
    }
    // As a message, and as the only field of one.
    for message in [data.to_vec(), read_response(data)] {
        let Ok(queries) = read_request(&message) else { continue };
        assert!(queries.len() <= QUERIES_MAX);
        assert!(queries.iter().all(|query| query.matchers.len() <= MATCHERS_MAX));
    }
});

/// The series before the first fault are dropped with it, as a request is.
fn series(message: &[u8]) -> Option<Vec<TimeSeries>> {
    let mut all = Vec::new();
    write_request(message, |series| {
        all.push(series);
        Ok(())
    })
    .ok()?;
    Some(all)
}
