//! Any bytes are an entry of the hinted-handoff queue, or refused; what was read comes back as the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill::handoff::entry::{head, parse};

fuzz_target!(|data: &[u8]| {
    let Ok(entry) = parse(data) else { return };
    assert_eq!([&head(entry.queued_ms)[..], entry.image].concat(), data);
    // What it holds is a partition batch, or refused.
    let _ = entry.batch();
});
