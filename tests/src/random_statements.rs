//! Random points and random SELECT statements for the differential test, from a seed.
//!
//! Statements stay within what upstream answers in a defined way: no OFFSET without LIMIT on raw rows (upstream gives
//! one row), no arithmetic that yields infinity, no unbounded windows.

use tidemill_perf::random::Sequence;

/// Points lie within this many units after the epoch. A unit of one second keeps them in one shard group, one of an
/// hour spreads them over four.
const UNITS: u64 = 600;
const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
const REGIONS: [&str; 3] = ["x", "y", "z"];
const TEXTS: [&str; 4] = ["p", "q", "r", "s t"];

/// Lines with ns timestamps: two measurements; tags and fields are missing here and there. One (series, time) comes
/// once only.
pub fn points(random: &mut Sequence, count: usize, unit_seconds: u64) -> String {
    let mut lines = String::new();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < count {
        let measurement = one(random, &["m", "k"]);
        let mut series = measurement.to_owned();
        if random.chance(0.9) {
            series.push_str(&format!(",host={}", one(random, &HOSTS)));
        }
        if random.chance(0.7) {
            series.push_str(&format!(",region={}", one(random, &REGIONS)));
        }
        let seconds = random.below(UNITS) * unit_seconds;
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
        lines.push_str(&format!("{series} {} {}\n", fields.join(","), seconds * 1_000_000_000));
    }
    lines
}

/// One entry of a list.
fn one(random: &mut Sequence, list: &[&'static str]) -> &'static str {
    let index = random.below(list.len() as u64);
    list[index as usize]
}

/// A statement that takes points or series away.
pub fn delete(random: &mut Sequence, unit_seconds: u64) -> String {
    let lower = random.below(UNITS) * unit_seconds;
    let upper = lower + random.below(UNITS / 4) * unit_seconds;
    let tag = one(random, &["host = 'a'", "host != 'b'", "region =~ /[xy]/", "region = ''"]);
    match random.below(5) {
        0 => format!("DELETE FROM m WHERE time >= {lower}s AND time <= {upper}s"),
        1 => format!("DELETE FROM k WHERE {tag} AND time >= {lower}s AND time < {upper}s"),
        2 => format!("DELETE FROM /[mk]/ WHERE time < {}s", lower / 8),
        3 => format!("DELETE WHERE host = 'd' AND time > {lower}s"),
        _ => "DROP SERIES FROM k WHERE host = 'c' AND region = 'x'".to_owned(),
    }
}

/// Statements about what there is.
pub const SHOWS: [&str; 6] = [
    "SHOW MEASUREMENTS",
    "SHOW SERIES",
    "SHOW TAG KEYS",
    "SHOW TAG VALUES WITH KEY IN (host, region)",
    "SHOW FIELD KEYS",
    "SHOW SERIES FROM m WHERE host =~ /[ab]/",
];

/// One SELECT statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// Without LIMIT, OFFSET and TZ.
    pub text: String,
    /// What cuts windows and shows times, if not UTC.
    pub zone: Option<&'static str>,
    /// LIMIT and OFFSET.
    pub limit: Option<(usize, usize)>,
    /// Without functions: several rows of a series of the answer may have the same time.
    pub is_raw: bool,
}

impl Select {
    /// The whole statement.
    pub fn whole(&self) -> String {
        let limit = match self.limit {
            None => String::new(),
            Some((rows, 0)) => format!(" LIMIT {rows}"),
            Some((rows, skipped)) => format!(" LIMIT {rows} OFFSET {skipped}"),
        };
        format!("{}{limit}{}", self.text, self.zone_text())
    }

    /// The statement without LIMIT and OFFSET.
    pub fn unlimited(&self) -> String {
        format!("{}{}", self.text, self.zone_text())
    }

    fn zone_text(&self) -> String {
        self.zone.map_or_else(String::new, |zone| format!(" TZ('{zone}')"))
    }
}

pub fn select(random: &mut Sequence, unit_seconds: u64) -> Select {
    let kind = random.below(10);
    let text = match kind {
        0..=2 => raw(random, unit_seconds),
        3 => selector(random, unit_seconds),
        _ => aggregate(random, unit_seconds),
    };
    let limit = (kind != 3 && random.chance(0.5)).then(|| {
        let skipped = if random.chance(0.4) { random.below(6) } else { 0 };
        (1 + random.below(8) as usize, skipped as usize)
    });
    // Their clocks are not set while the points lie; one is ahead of UTC by no whole minutes.
    let zone = random.chance(0.2).then(|| one(random, &["America/New_York", "Asia/Kolkata", "Africa/Monrovia"]));
    Select { text, zone, limit, is_raw: kind <= 2 }
}

fn source(random: &mut Sequence) -> &'static str {
    one(random, &["m", "k", "m, k", "/^[mk]$/", "\"m\""])
}

fn conditions(random: &mut Sequence, unit_seconds: u64, need_upper_bound: bool) -> String {
    let mut all = Vec::new();
    if random.chance(0.6) {
        all.push(
            (one(
                random,
                &[
                    "host = 'a'",
                    "host != 'a'",
                    "host =~ /[ab]/",
                    "host !~ /a|b/",
                    "region = ''",
                    "region != ''",
                    "(host = 'a' OR host = 'b')",
                    "nosuch = 'x'",
                    "v > 50",
                    "i <= 10",
                    "v >= 20 AND v < 80",
                    "(v < 10 OR i > 30)",
                    "s = 'p'",
                    "s =~ /[pq]/",
                    "b = true",
                    "v + 1 > 30",
                    "(host = 'a' AND v > 30 OR region = 'x' AND i < 5)",
                ],
            ))
            .to_owned(),
        );
    }
    let lower = random.below(UNITS) * unit_seconds;
    if random.chance(0.5) || need_upper_bound {
        all.push(format!("time >= {lower}s"));
    }
    if random.chance(0.4) || need_upper_bound {
        let upper = lower + (1 + random.below(UNITS / 2)) * unit_seconds;
        all.push(match random.below(3) {
            0 => format!("time < {upper}s"),
            1 => format!("time <= {upper}s"),
            _ if upper < 86_400 => {
                format!("time < '1970-01-01T{:02}:{:02}:{:02}Z'", upper / 3600, upper / 60 % 60, upper % 60)
            }
            _ => format!("time < {upper}000000000"),
        });
    }
    if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
}

fn tags(random: &mut Sequence) -> Option<&'static str> {
    random.chance(0.5).then(|| one(random, &["host", "region", "host, region", "*", "nosuch", "/^h/"]))
}

fn order(random: &mut Sequence) -> &'static str {
    one(random, &["", "", "", "", "", " ORDER BY time DESC", " ORDER BY time DESC", " ORDER BY time ASC"])
}

fn raw(random: &mut Sequence, unit_seconds: u64) -> String {
    let fields = one(
        random,
        &["*", "v", "v, i", "v, host", "i, s, b", "*::field", "/v|i/", "v * 2", "v + i AS z", "-v", "s, nosuch"],
    );
    let group = tags(random).map(|tags| format!(" GROUP BY {tags}")).unwrap_or_default();
    format!(
        "SELECT {fields} FROM {}{}{group}{}",
        source(random),
        conditions(random, unit_seconds, false),
        order(random)
    )
}

fn selector(random: &mut Sequence, unit_seconds: u64) -> String {
    let call = one(
        random,
        &[
            "first(v)",
            "last(i)",
            "min(v)",
            "max(i)",
            "percentile(v, 50)",
            "percentile(i, 90)",
            "top(v, 3)",
            "bottom(i, 2)",
            "top(v, host, 2)",
            "distinct(i)",
            "distinct(s)",
            "first(s)",
            "last(b)",
        ],
    );
    let group = tags(random).map(|tags| format!(" GROUP BY {tags}")).unwrap_or_default();
    format!("SELECT {call} FROM {}{}{group}", one(random, &["m", "k"]), conditions(random, unit_seconds, false))
}

fn aggregate(random: &mut Sequence, unit_seconds: u64) -> String {
    const CALLS: [&str; 20] = [
        "count(v)",
        "sum(v)",
        "mean(v)",
        "min(v)",
        "max(v)",
        "spread(v)",
        "median(v)",
        "stddev(v)",
        "mode(i)",
        "first(v)",
        "last(v)",
        "count(i)",
        "sum(i)",
        "mean(i)",
        "min(i)",
        "max(i)",
        "spread(i)",
        "count(s)",
        "mean(v) * 2",
        "sum(i) + count(v)",
    ];
    let calls: Vec<&str> = (0..1 + random.below(3)).map(|_| one(random, &CALLS)).collect();
    let windows = random.chance(0.6);
    let mut dimensions: Vec<String> = tags(random).map(str::to_owned).into_iter().collect();
    let mut fill = String::new();
    if windows {
        let (every, offset) = *random.pick(&[(10, 0), (30, 0), (60, 0), (7, 0), (60, 10), (30, -5)]);
        let unit = unit_seconds as i64;
        dimensions.push(match offset {
            0 => format!("time({}s)", every * unit),
            _ => format!("time({}s, {}s)", every * unit, offset * unit),
        });
        fill.push_str(one(
            random,
            &["", " fill(null)", " fill(none)", " fill(previous)", " fill(linear)", " fill(0)", " fill(-3)"],
        ));
    }
    let group = if dimensions.is_empty() { String::new() } else { format!(" GROUP BY {}", dimensions.join(", ")) };
    let conditions = conditions(random, unit_seconds, windows);
    format!("SELECT {} FROM {}{conditions}{group}{fill}{}", calls.join(", "), source(random), order(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_statements() {
        let all = |seed| {
            let mut random = Sequence::new(seed);
            let lines = points(&mut random, 100, 1);
            (lines, (0..100).map(|_| select(&mut random, 3600)).collect::<Vec<_>>())
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }
}
