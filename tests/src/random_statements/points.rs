//! Points, and the statements that take them away.

use super::{UNITS, World, one};
use tidemill_perf::random::Sequence;

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
const REGIONS: [&str; 3] = ["x", "y", "z"];
const TEXTS: [&str; 4] = ["p", "q", "r", "s t"];

/// Lines with ns timestamps: two measurements; tags and fields are missing here and there. One (series, time) comes
/// once only; `taken` remembers the times of earlier calls.
pub fn points(random: &mut Sequence, count: usize, world: World, taken: &mut Vec<u64>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    while lines.len() < count {
        let measurement = one(random, &["m", "k"]);
        let mut series = measurement.to_owned();
        if random.chance(0.9) {
            series.push_str(&format!(",host={}", one(random, &HOSTS)));
        }
        if random.chance(0.7) {
            series.push_str(&format!(",region={}", one(random, &REGIONS)));
        }
        let seconds = random.below(UNITS) * world.unit_seconds;
        if world.has_unique_times {
            if taken.contains(&seconds) {
                continue;
            }
            taken.push(seconds);
        }
        if !seen.insert((series.clone(), seconds)) {
            continue;
        }
        // Floats are multiples of 1/4 and small: their sums are exact in any order.
        let mut fields = vec![format!("v={}", random.below(400) as f64 / 4.0)];
        if random.chance(0.8) {
            fields.push(format!("i={}i", random.below(50) as i64 - 10));
        }
        if random.chance(0.5) {
            fields.push(format!("s=\"{}\"", one(random, &TEXTS)));
        }
        if random.chance(0.5) {
            fields.push(format!("b={}", random.chance(0.5)));
        }
        if random.chance(0.1) {
            fields.remove(0);
            if fields.is_empty() {
                fields.push("i=7i".into());
            }
        }
        lines.push(format!("{series} {} {}", fields.join(","), seconds * 1_000_000_000));
    }
    lines
}

/// A statement that takes points or series away.
pub fn delete(random: &mut Sequence, world: World) -> String {
    let lower = random.below(UNITS) * world.unit_seconds;
    let upper = lower + random.below(UNITS / 4) * world.unit_seconds;
    let tag = one(random, &["host = 'a'", "host != 'b'", "region =~ /[xy]/", "region = ''"]);
    match random.below(5) {
        0 => format!("DELETE FROM m WHERE time >= {lower}s AND time <= {upper}s"),
        1 => format!("DELETE FROM k WHERE {tag} AND time >= {lower}s AND time < {upper}s"),
        2 => format!("DELETE FROM /[mk]/ WHERE time < {}s", lower / 8),
        3 => format!("DELETE WHERE host = 'd' AND time > {lower}s"),
        _ => "DROP SERIES FROM k WHERE host = 'c' AND region = 'x'".to_owned(),
    }
}
