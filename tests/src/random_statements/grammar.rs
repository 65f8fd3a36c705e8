//! What SELECT statements are made of, and how often.

use super::{Kind, Select, Source, UNITS, World, one};
use tidemill_perf::random::Sequence;

/// A random SELECT.
pub fn select(random: &mut Sequence, world: World) -> Select {
    let mut select = match random.below(20) {
        0..=3 => raw(random, world),
        4..=6 => selector(random, world),
        7..=11 => aggregate(random, world),
        12..=13 => between_windows(random, world),
        14..=15 if world.has_unique_times => between_rows(random, world),
        14..=15 => aggregate(random, world),
        _ => nested(random, world),
    };
    if select.kind != Kind::Selector && random.chance(0.4) {
        let skipped = if random.chance(0.4) { random.below(6) } else { 0 };
        select.limit = Some((1 + random.below(8) as usize, skipped as usize));
    }
    // Their clocks are not set while the points lie; one is behind UTC by no whole minutes. Windows of an inner statement
    // are those of UTC, and would begin before the outer range.
    select.zone = random.chance(0.15).then(|| one(random, &["America/New_York", "Asia/Kolkata", "Africa/Monrovia"]));
    if select.is_nested() && select.text().contains("time(") {
        select.zone = None;
    }
    if !world.has_unique_times {
        select.without_first_and_last();
    }
    // Windows with an offset may begin before the epoch, where upstream counts two as one.
    if select.fill == " fill(linear)" && select.dimensions.iter().any(|text| text.contains("s, -")) {
        select.fill = "";
    }
    select
}

fn sources(random: &mut Sequence) -> Vec<Source> {
    let names: &[&'static str] = match random.below(5) {
        0 => &["m"],
        1 => &["k"],
        2 => &["m", "k"],
        3 => &["/^[mk]$/"],
        _ => &["\"m\""],
    };
    names.iter().map(|name| Source::Name(name)).collect()
}

/// One measurement.
fn source(random: &mut Sequence) -> Vec<Source> {
    vec![Source::Name(one(random, &["m", "k"]))]
}

fn conditions(random: &mut Sequence, world: World, need_bounds: bool) -> Vec<String> {
    let mut all = Vec::new();
    if random.chance(0.6) {
        all.push(
            one(
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
                    "nosuch = ''",
                    "v > 50",
                    "i <= 10",
                    "v >= 20 AND v < 80",
                    "(v < 10 OR i > 30)",
                    "s = 'p'",
                    "s != 'p'",
                    "s =~ /[pq]/",
                    "s !~ /p/",
                    "b = true",
                    "b != true",
                    "v + 1 > 30",
                    "v * 2 < i * 5",
                    "v > i",
                    "i % 2 = 0",
                    "i / 2 = 3",
                    "v = 'x'",
                    "zzz = 1",
                    "(host = 'a' AND v > 30 OR region = 'x' AND i < 5)",
                    "(host = 'a' OR v > 30) AND (region = 'x' OR i < 5)",
                    "(host = 'c' OR s = 'q')",
                ],
            )
            .to_owned(),
        );
    }
    all.extend(bounds(random, world, need_bounds));
    all
}

/// Bounds of time.
fn bounds(random: &mut Sequence, world: World, need_bounds: bool) -> Vec<String> {
    let mut all = Vec::new();
    let unit_seconds = world.unit_seconds;
    let lower = random.below(UNITS) * unit_seconds;
    if need_bounds || random.chance(0.5) {
        all.push(format!("time >= {lower}s"));
    }
    if need_bounds || random.chance(0.4) {
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
    all
}

fn tags(random: &mut Sequence) -> Vec<String> {
    let tags: &[&str] = match random.below(12) {
        0..=5 => &[],
        6 => &["host"],
        7 => &["region"],
        8 => &["host", "region"],
        9 => &["*"],
        10 => &["nosuch"],
        _ => &["/^h/"],
    };
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

fn order(random: &mut Sequence) -> &'static str {
    one(random, &["", "", "", "", "", " ORDER BY time DESC", " ORDER BY time DESC", " ORDER BY time ASC"])
}

/// The length of a window and its offset, in units.
fn length(random: &mut Sequence) -> (i64, i64) {
    *random.pick(&[(10, 0), (30, 0), (60, 0), (7, 0), (60, 10), (30, -5)])
}

fn window_of((every, offset): (i64, i64), world: World) -> String {
    let unit = world.unit_seconds as i64;
    match offset {
        0 => format!("time({}s)", every * unit),
        _ => format!("time({}s, {}s)", every * unit, offset * unit),
    }
}

fn window(random: &mut Sequence, world: World) -> String {
    window_of(length(random), world)
}

/// Bounds of which the lower one is the start of a window.
fn bounds_at((every, offset): (i64, i64), random: &mut Sequence, world: World) -> Vec<String> {
    let unit = world.unit_seconds as i64;
    let lower = 1 + random.below(UNITS) as i64 / every;
    let lower = (lower * every + offset) * unit;
    let upper = lower + (1 + random.below(UNITS / 2) as i64) * unit;
    vec![format!("time >= {lower}s"), format!("time < {upper}s")]
}

fn fill(random: &mut Sequence) -> &'static str {
    one(random, &["", " fill(null)", " fill(none)", " fill(previous)", " fill(linear)", " fill(0)", " fill(-3)"])
}

/// A statement with nothing behind its sources.
fn plain(kind: Kind, fields: Vec<String>, sources: Vec<Source>) -> Select {
    let (conditions, dimensions) = (Vec::new(), Vec::new());
    Select { kind, fields, sources, conditions, dimensions, fill: "", order: "", limit: None, zone: None }
}

fn raw(random: &mut Sequence, world: World) -> Select {
    let fields = one(
        random,
        &[
            "*",
            "v",
            "v, i",
            "v, host",
            "i, s, b",
            "*::field",
            "*::tag, v",
            "/v|i/",
            "v * 2",
            "v + i AS z",
            "-v",
            "s, nosuch",
            "v / 4, i % 7, i / 4",
            "i & 6, i | 1, i ^ 3",
            "abs(v - 50), round(v), floor(v / 3)",
            "pow(i, 2), sqrt(v)",
            "v::integer, i::float",
            "(v + 1) * (i - 2) AS a",
            "b, v > 0",
            "s::string, v::string",
            "region, s, host",
            "v - i - 1, v - (i - 1)",
        ],
    );
    // A comparison is no field: both servers must refuse it in the same words.
    let mut select = plain(Kind::Raw, fields.split(", ").map(str::to_owned).collect(), sources(random));
    if fields.contains('(') {
        select.fields = vec![fields.to_owned()];
    }
    select.conditions = conditions(random, world, false);
    select.dimensions = tags(random);
    select.order = order(random);
    select
}

fn selector(random: &mut Sequence, world: World) -> Select {
    const CALLS: [&str; 25] = [
        "first(v)",
        "last(i)",
        "min(v)",
        "max(i)",
        "min(b)",
        "max(b)",
        "percentile(v, 50)",
        "percentile(i, 90)",
        "percentile(v, 12.5)",
        "top(v, 3)",
        "top(i, 1)",
        "bottom(i, 2)",
        "bottom(v, 4)",
        "top(v, host, 2)",
        "bottom(i, region, 2)",
        "top(i, host, region, 3)",
        "distinct(i)",
        "distinct(s)",
        "distinct(b)",
        "first(s)",
        "last(b)",
        "first(b)",
        "last(s)",
        "sample(v, 1000)",
        "count(distinct(i))",
    ];
    let call = one(random, &CALLS);
    let mut select = plain(Kind::Selector, vec![call.to_owned()], source(random));
    let alone = ["distinct", "count", "percentile"].iter().any(|name| call.starts_with(name));
    // What stands beside a selector comes from its point, which only unique times define.
    if world.has_unique_times && !alone && !call.starts_with("sample") && random.chance(0.4) {
        select.fields.push(one(random, &["i", "s", "host", "v * 2", "b", "region", "nosuch"]).to_owned());
    }
    select.conditions = conditions(random, world, false);
    select.dimensions = tags(random);
    // A group or window of which a percentile takes no row ends upstream's answer.
    if call.contains("12.5") {
        select.dimensions.clear();
    } else if random.chance(0.3) {
        select.conditions.retain(|condition| !condition.starts_with("time"));
        select.conditions.extend(bounds(random, world, true));
        select.dimensions.push(window(random, world));
        // Numbers in the gaps of texts and tags are upstream's alone.
        let is_alone = select.fields.len() == 1 && !call.contains("host") && !call.contains("region");
        select.fill = match is_alone {
            true => one(random, &["", "", " fill(none)", " fill(0)", " fill(previous)"]),
            false => one(random, &["", "", " fill(none)"]),
        };
    }
    // distinct() from newest to oldest keeps the first occurrence here, upstream the last.
    if random.chance(0.2) && !select.calls(&["top", "bottom", "sample", "distinct"]) {
        select.order = " ORDER BY time DESC";
    }
    select
}

fn aggregate(random: &mut Sequence, world: World) -> Select {
    const CALLS: [&str; 30] = [
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
        "count(distinct(s))",
        "max(v) - min(v)",
        "sum(i) / count(i)",
        "abs(mean(v) - 50)",
        "round(mean(v))",
        "first(i) % 3",
        "mean(nosuch)",
        "sum(v) AS z",
        "max(b)",
        "sum(i::float)",
    ];
    const WIDE: [&str; 5] = ["count(*)", "mean(*)", "sum(/v|i/)", "max(*)", "last(*)"];
    let mut fields: Vec<String> = (0..1 + random.below(3)).map(|_| one(random, &CALLS).to_owned()).collect();
    if random.chance(0.1) {
        fields = vec![one(random, &WIDE).to_owned()];
    }
    let windows = random.chance(0.6);
    let mut select = plain(Kind::Aggregate, fields, sources(random));
    select.conditions = conditions(random, world, windows);
    select.dimensions = tags(random);
    if windows {
        select.dimensions.push(window(random, world));
        select.fill = fill(random);
    }
    select.order = order(random);
    select
}

/// A function over what windows give.
fn between_windows(random: &mut Sequence, world: World) -> Select {
    const INNER: [&str; 12] = [
        "mean(v)",
        "sum(i)",
        "count(v)",
        "max(v)",
        "min(i)",
        "first(v)",
        "last(i)",
        "median(v)",
        "spread(i)",
        "sum(v)",
        "count(s)",
        "mean(i)",
    ];
    let call = |random: &mut Sequence| {
        let inner = one(random, &INNER);
        match random.below(9) {
            0 => format!("derivative({inner})"),
            1 => format!("derivative({inner}, 10s)"),
            2 => format!("non_negative_derivative({inner}, 1m)"),
            3 => format!("difference({inner})"),
            4 => format!("non_negative_difference({inner})"),
            5 => format!("moving_average({inner}, 2)"),
            6 => format!("cumulative_sum({inner})"),
            7 => format!("elapsed({inner}, 1s)"),
            _ => format!("difference({inner}) * 2"),
        }
    };
    let mut fields: Vec<String> = (0..1 + random.below(2)).map(|_| call(random)).collect();
    if random.chance(0.3) {
        fields.push(one(random, &INNER).to_owned());
    }
    let mut select = plain(Kind::Transformation, fields, sources(random));
    select.conditions = conditions(random, world, true);
    select.dimensions = tags(random);
    select.dimensions.push(window(random, world));
    // What a row gets where one of several functions has none is filled otherwise than a window.
    select.fill = match select.fields.len() {
        1 => fill(random),
        _ => one(random, &["", " fill(null)", " fill(none)"]),
    };
    select.order = order(random);
    select
}

/// A function from one row to the next.
fn between_rows(random: &mut Sequence, world: World) -> Select {
    const CALLS: [&str; 19] = [
        "derivative(v)",
        "derivative(i, 1m)",
        "non_negative_derivative(v, 10s)",
        "difference(v)",
        "difference(i)",
        "non_negative_difference(i)",
        "moving_average(v, 3)",
        "moving_average(i, 2)",
        "cumulative_sum(v)",
        "cumulative_sum(i)",
        "elapsed(v, 1s)",
        "elapsed(s)",
        "elapsed(b, 10s)",
        "abs(difference(v))",
        "exponential_moving_average(v, 3)",
        "double_exponential_moving_average(i, 2)",
        "relative_strength_index(v, 3)",
        "chande_momentum_oscillator(v, 3)",
        "kaufmans_efficiency_ratio(i, 2)",
    ];
    let fields = (0..1 + random.below(2)).map(|_| one(random, &CALLS).to_owned()).collect();
    let mut select = plain(Kind::Transformation, fields, source(random));
    if random.chance(0.15) {
        select.fields = vec![one(random, &["integral(v)", "integral(i, 1m)", "integral(v), count(v)"]).to_owned()];
    }
    select.conditions = conditions(random, world, false);
    // Upstream answers the series of integral() in reverse, and at the epoch whatever the bounds are.
    if select.calls(&["integral"]) {
        select.conditions.retain(|condition| !condition.starts_with("time >="));
    } else {
        select.dimensions = tags(random);
        select.order = order(random);
    }
    select
}

/// A statement over the rows of another.
fn nested(random: &mut Sequence, world: World) -> Select {
    match random.below(4) {
        0 => {
            // Single rows come through: their order is defined by unique times only.
            let mut inner = raw(random, world);
            inner.fields = vec!["v AS a".into(), "i AS c".into(), "host".into(), "s".into()];
            inner.order = "";
            let fields = if world.has_unique_times {
                one(
                    random,
                    &["a", "a, c", "a + c", "a, host", "s, a", "difference(a)", "max(a), host", "mean(c), sum(a)"],
                )
            } else {
                one(random, &["mean(a)", "sum(c)", "count(s)", "max(a)", "min(c)", "count(a), mean(c)"])
            };
            let is_raw = !fields.contains('(');
            let kind = if is_raw { Kind::Raw } else { Kind::Aggregate };
            let mut outer = plain(kind, vec![fields.to_owned()], vec![Source::Nested(Box::new(inner))]);
            if random.chance(0.4) {
                outer.conditions.push(one(random, &["a > 30", "c < 10", "host = 'a'", "s = 'p'", "a < c"]).to_owned());
            }
            if random.chance(0.4) {
                outer.dimensions.push(one(random, &["host", "region", "nosuch"]).to_owned());
            }
            outer
        }
        1 => {
            // Aggregates of groups.
            let mut inner = plain(Kind::Aggregate, Vec::new(), sources(random));
            inner.fields = vec![
                format!("{} AS a", one(random, &["mean(v)", "sum(v)", "max(v)", "count(v)", "last(v)"])),
                format!("{} AS c", one(random, &["sum(i)", "min(i)", "count(s)", "first(i)"])),
            ];
            inner.conditions = conditions(random, world, false);
            inner.dimensions = vec![one(random, &["host", "region", "host, region"]).to_owned()];
            let mut outer = plain(Kind::Aggregate, Vec::new(), vec![Source::Nested(Box::new(inner))]);
            outer.fields = vec![
                one(
                    random,
                    &["mean(a)", "sum(a)", "max(a)", "count(a)", "spread(a)", "sum(c)", "min(c)", "sum(a) / 2"],
                )
                .to_owned(),
            ];
            if random.chance(0.3) {
                outer.fields.push(one(random, &["count(c)", "max(c)", "mean(c)"]).to_owned());
            }
            if random.chance(0.3) {
                outer.dimensions = vec![one(random, &["host", "region"]).to_owned()];
            }
            if random.chance(0.3) {
                outer.conditions = vec![one(random, &["a > 20", "c > 10", "a < 500", "a > c"]).to_owned()];
            }
            // Where a group has only one of two columns, upstream makes two rows.
            let text = format!("{} {} ", outer.fields.join(" "), outer.conditions.join(" "));
            if ["(c)", "c "].iter().any(|c| text.contains(c)) && ["(a)", "a "].iter().any(|a| text.contains(a)) {
                let Some(Source::Nested(inner)) = outer.sources.first_mut() else { unreachable!("made above") };
                inner.fields[1] = one(random, &["min(v) AS c", "count(v) AS c", "spread(v) AS c"]).to_owned();
            }
            outer
        }
        2 => {
            // Windows of windows.
            let mut inner = plain(Kind::Aggregate, Vec::new(), source(random));
            inner.fields =
                vec![format!("{} AS a", one(random, &["mean(v)", "sum(v)", "max(i)", "count(v)", "first(v)"]))];
            let length = length(random);
            inner.dimensions = vec![window_of(length, world)];
            inner.fill = fill(random);
            let has_windows = random.chance(0.5);
            let by_host = random.chance(0.4);
            if by_host || !has_windows && random.chance(0.4) {
                inner.dimensions.push("host".into());
                // Upstream carries values of fill(previous) from one series into the next, and fills anew whenever the
                // next row is of another group that the outer statement does not have.
                inner.fill = match by_host {
                    true => one(random, &["", " fill(none)", " fill(0)", " fill(linear)"]),
                    false => one(random, &["", " fill(none)"]),
                };
            }
            if !has_windows {
                inner.conditions = bounds(random, world, true);
            }
            let mut outer = plain(Kind::Aggregate, Vec::new(), vec![Source::Nested(Box::new(inner))]);
            outer.fields = vec![one(random, &["mean(a)", "max(a)", "sum(a)", "count(a)", "min(a), max(a)"]).to_owned()];
            if has_windows {
                // A row of the inner statement before the range of the outer one ends upstream's answer.
                outer.conditions = bounds_at(length, random, world);
                outer.dimensions.push(format!("time({}s)", 120 * world.unit_seconds));
                outer.fill = fill(random);
            }
            if by_host {
                outer.dimensions.push("host".into());
            }
            outer
        }
        _ => {
            // Two levels.
            let mut inmost = plain(Kind::Aggregate, vec!["mean(v) AS a".into()], source(random));
            inmost.conditions = conditions(random, world, false);
            inmost.dimensions = vec!["host".into(), "region".into()];
            let mut inner = plain(Kind::Aggregate, vec!["max(a) AS c".into()], vec![Source::Nested(Box::new(inmost))]);
            inner.dimensions = vec![one(random, &["host", "region"]).to_owned()];
            let mut outer = plain(Kind::Aggregate, vec!["sum(c)".into()], vec![Source::Nested(Box::new(inner))]);
            outer.fields.push(one(random, &["count(c)", "mean(c)", "min(c)"]).to_owned());
            outer
        }
    }
}
