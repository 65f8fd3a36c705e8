//! What a proxy reads: the lines of bodies, which must go where the parser's rows go; claims, placements and answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use tidemill::proxy::{Placement, Verdict, claiming, error_text, joined};
use tidemill_line::{Batch, BatchClaim, LineRouter, ParseOptions, PartitionMap, Precision};

const OPTIONS: ParseOptions = ParseOptions { precision: Precision::Nanosecond, now_ns: 77, validate_keys: false };

fuzz_target!(|data: &[u8]| {
    let Some((&first, body)) = data.split_first() else { return };
    match first % 4 {
        0 | 1 => deal(body),
        2 => {
            let text = String::from_utf8_lossy(body);
            if let Ok(claim) = text.parse::<BatchClaim>() {
                assert_eq!(claim.to_string().parse(), Ok(claim));
            }
            let _ = Placement::parse(body);
        }
        _ => {
            let text = error_text(body);
            claiming(409, &text);
            let verdicts = text.split('|').map(|text| Verdict::Told { status: 400, text: text.into() });
            joined(verdicts.collect(), body, &OPTIONS, true);
        }
    }
});

/// Times by series, errors, dropped points.
type Found = (BTreeMap<Vec<u8>, Vec<i64>>, usize, usize);

fn parsed(body: &[u8], found: &mut Found) -> Vec<u64> {
    let mut batch = Batch::new(1);
    let Ok(parsed) = batch.parse(body, &OPTIONS) else { return Vec::new() };
    for row in parsed.rows() {
        found.0.entry(parsed.series(row.series).key.to_vec()).or_default().push(row.time);
    }
    found.1 += parsed.error_count();
    found.2 += parsed.dropped_count();
    parsed.rows().iter().map(|row| parsed.series(row.series).hash).collect()
}

fn deal(body: &[u8]) {
    let Ok(map) = PartitionMap::new(3, 4) else { return };
    let mut parts: BTreeMap<Option<u32>, Vec<u8>> = BTreeMap::new();
    LineRouter::new().route(body, map, |line, partition| {
        parts.entry(partition).or_default().extend_from_slice(&body[line]);
    });
    let (mut whole, mut dealt) = (Found::default(), Found::default());
    parsed(body, &mut whole);
    for (partition, part) in &parts {
        let hashes = parsed(part, &mut dealt);
        assert!(hashes.iter().all(|hash| Some(map.partition_of(*hash)) == *partition));
    }
    assert_eq!(whole, dealt);
}
