//! Where the lines of a body go, by their series alone: fields and times are not read.
//!
//! Owns: finding lines and the partition of each. Invariants: a line that the parser takes is found whole, in the partition
//! that the parser's row goes to; lines keep their order; every byte that is no blank line or comment belongs to exactly one
//! line, so that what is wrong with a body is still wrong with one of its parts.
//! Knows nothing of what is wrong with a line: the parser says that.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::PartitionMap;
use crate::key::{TagSpan, key_end, push_canonical, scan_key};
use crate::line_end::line_end;
use crate::text::{byte_at, skip_whitespace};
use memchr::{memchr, memchr2};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Finds the lines of bodies. Keeps its buffers from one body to the next.
#[derive(Debug, Default)]
pub struct LineRouter {
    tags: Vec<TagSpan>,
    key: Vec<u8>,
}

impl LineRouter {
    pub fn new() -> LineRouter {
        LineRouter::default()
    }

    /// Tells each line of `input` with its partition, in their order; `None` for a line that has no series. A line's
    /// newline belongs to it; the last line may have none.
    pub fn route(&mut self, input: &[u8], map: PartitionMap, mut told: impl FnMut(Range<usize>, Option<u32>)) {
        // Rows of one series often come behind each other.
        let (mut last_key, mut last_partition): (&[u8], u32) = (&[], 0);
        let mut at = 0;
        while at < input.len() {
            let start = skip_whitespace(input, at);
            match byte_at(input, start) {
                b'\n' => {
                    at = start + 1;
                    continue;
                }
                b'#' => {
                    at = newline_from(input, start) + 1;
                    continue;
                }
                _ => {}
            }
            let key = key_end(input, start).and_then(|end| Some((end, input.get(start..end)?)));
            let Some((key_end, key)) = key else {
                let end = (line_end(input, start) + 1).min(input.len());
                told(start..end, None);
                at = end;
                continue;
            };
            let end = match memchr2(b'\n', b'"', input.get(key_end..).unwrap_or_default()) {
                Some(offset) if byte_at(input, key_end + offset) == b'\n' => key_end + offset + 1,
                // A newline may stand in a text.
                Some(_) => (line_end(input, start) + 1).min(input.len()),
                None => input.len(),
            };
            if key == last_key {
                told(start..end, Some(last_partition));
            } else {
                let partition = self.hash(key).map(|hash| map.partition_of(hash));
                if let Some(partition) = partition {
                    (last_key, last_partition) = (key, partition);
                }
                told(start..end, partition);
            }
            at = end;
        }
    }

    fn hash(&mut self, raw: &[u8]) -> Option<u64> {
        let shape = scan_key(raw, true, &mut self.tags).ok()?;
        if shape.canonical {
            return Some(xxh3_64(raw));
        }
        self.key.clear();
        push_canonical(raw, shape, &self.tags, &mut self.key);
        Some(xxh3_64(&self.key))
    }
}

fn newline_from(input: &[u8], at: usize) -> usize {
    input.get(at..).and_then(|rest| memchr(b'\n', rest)).map_or(input.len(), |offset| at + offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, ParseOptions, Precision};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const OPTIONS: ParseOptions = ParseOptions { precision: Precision::Nanosecond, now_ns: 77, validate_keys: false };

    /// Times by series in their order, errors, dropped points.
    type Found = (BTreeMap<Vec<u8>, Vec<(i64, String)>>, Vec<String>, usize);

    fn parsed(input: &[u8], found: &mut Found) -> Vec<u64> {
        let mut batch = Batch::new(1);
        let parsed = batch.parse(input, &OPTIONS).unwrap();
        for row in parsed.rows() {
            let values = parsed.values(row).map(|(name, value)| format!("{name:?}{value:?}")).collect();
            found.0.entry(parsed.series(row.series).key.to_vec()).or_default().push((row.time, values));
        }
        found.1.extend(parsed.errors().iter().map(|error| error.display(input).to_string()));
        found.2 += parsed.dropped_count();
        parsed.rows().iter().map(|row| parsed.series(row.series).hash).collect()
    }

    fn check(input: &[u8]) {
        let map = PartitionMap::new(3, 4).unwrap();
        let mut parts: BTreeMap<Option<u32>, Vec<u8>> = BTreeMap::new();
        let mut last_end = 0;
        LineRouter::new().route(input, map, |line, partition| {
            assert!(line.start >= last_end && line.end > line.start && line.end <= input.len());
            last_end = line.end;
            parts.entry(partition).or_default().extend_from_slice(&input[line]);
        });
        let (mut whole, mut dealt) = (Found::default(), Found::default());
        parsed(input, &mut whole);
        for (partition, part) in &parts {
            let hashes = parsed(part, &mut dealt);
            assert!(hashes.iter().all(|hash| Some(map.partition_of(*hash)) == *partition), "{partition:?}");
        }
        whole.1.sort();
        dealt.1.sort();
        assert_eq!(whole, dealt, "{:?}", String::from_utf8_lossy(input));
    }

    #[test]
    fn lines_are_those_of_the_parser() {
        for text in [
            "",
            "\n\n# x\ncpu,b=1,a=2 v=1 5\ncpu,a=2,b=1 v=2 6\n",
            "m s=\"a\nb\",t=\"\\\"\n\" 7\nn v=1",
            "m v=\"open\nn v=1 3\nk v=2",
            "m,a=1,a=2 v=1\n,x v=1\nm\nm v\n  m v=1 1 \n\tm v=1 2",
            "m\\ n,t\\,=\\ x v=1\\\nm v=2",
            "m,time=1 v=1\nm time=1\nm a\"b=1 3\nm v=1 9\r\n",
            "m \0v=1\n \0\tm v=1",
        ] {
            check(text.as_bytes());
        }
    }

    fn line() -> impl Strategy<Value = String> {
        let key = prop_oneof![Just("m".to_owned()), "[mn](,[ab\\\\=]{1,2}=[xy\\\\\" ]{1,3}){0,3}", "[ -~]{0,12}"];
        let fields = prop_oneof!["[fg]=[0-9]{1,3}i?", "f=\"[a\\\\\"\n ,=]{0,6}\"(,g=[12])?", "[ -~\n]{0,12}"];
        let rest = prop_oneof![Just(String::new()), Just(" 12".to_owned()), Just(" x".to_owned()), "[ \"\\\\0-9]{0,4}"];
        let end = prop_oneof![Just("\n"), Just("\n"), Just("\r\n"), Just(""), Just("\n\n#c\n")];
        (key, fields, rest, end).prop_map(|(key, fields, rest, end)| format!("{key} {fields}{rest}{end}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn parts_are_together_what_the_whole_is(lines in prop::collection::vec(line(), 0..6)) {
            check(lines.concat().as_bytes());
        }

        #[test]
        fn any_bytes_are_lines_or_none(input in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'"'), Just(b' '), Just(b'='), Just(b','), Just(b'\\'), any::<u8>()], 0..80)) {
            check(&input);
        }
    }
}
