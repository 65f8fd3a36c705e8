//! Prints ns per row of scans over dense columns in memory: the cost of the operators alone, without decoding.
//!
//! `cargo run --release -p tidemill-query --example scan_speed [rows [part of a statement]]`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tidemill_column::{Column, FieldType, Points, Values};
use tidemill_influxql::{Statement, parse_statement};
use tidemill_query::{
    CompileOptions, Merge, MergeDemand, PartDemand, PartExec, Plan, ScanSeries, SourceSchema, compile,
};

const SERIES: usize = 100;
const BATCH_ROWS: usize = 10_000;
const STEP_NS: i64 = 10_000_000_000;

fn plan(query: &str) -> Arc<Plan> {
    let Ok(Statement::Select(select)) = parse_statement(query) else { panic!("{query}") };
    let options = CompileOptions { now_ns: i64::MAX / 2, ..CompileOptions::default() };
    let schema = SourceSchema {
        source: tidemill_query::SourceIndex::Measurement(0),
        database: "d".to_owned(),
        retention_policy: "autogen".to_owned(),
        measurement: "m".to_owned(),
        fields: BTreeMap::from([("f".to_owned(), FieldType::Float), ("i".to_owned(), FieldType::Integer)]),
        tag_keys: BTreeSet::from(["host".to_owned()]),
    };
    let compiled = compile(&select, &options).expect("the statements are right");
    Arc::new(compiled.plan(vec![schema]).expect("the statements are right"))
}

fn main() {
    let rows: usize = std::env::args().nth(1).and_then(|rows| rows.parse().ok()).unwrap_or(10_000_000);
    let per_series = rows / SERIES;
    let per_batch = BATCH_ROWS.min(per_series.max(1));
    let upper = per_series as i64 * STEP_NS;
    let only = std::env::args().nth(2).unwrap_or_default();
    for (query, columns) in [
        ("SELECT count(f) FROM m", 1),
        ("SELECT sum(f) FROM m", 1),
        ("SELECT sum(i) FROM m", 1),
        ("SELECT mean(f) FROM m", 1),
        ("SELECT max(f) FROM m", 1),
        ("SELECT max(i) FROM m", 1),
        ("SELECT spread(f) FROM m", 1),
        ("SELECT top(f, 5) FROM m", 1),
        ("SELECT stddev(f) FROM m", 1),
        ("SELECT median(f) FROM m", 1),
        ("SELECT count(f), sum(f), mean(f) FROM m GROUP BY host", 1),
        ("SELECT mean(f) FROM m WHERE time >= 0 AND time < UPPER GROUP BY time(1m)", 1),
        ("SELECT count(f), sum(f), mean(f) FROM m WHERE time >= 0 AND time < UPPER GROUP BY time(1m)", 1),
        ("SELECT max(f), max(i) FROM m WHERE time >= 0 AND time < UPPER GROUP BY time(1h)", 2),
        ("SELECT mean(f) FROM m WHERE time >= 0 AND time < UPPER GROUP BY time(1m), host", 1),
        ("SELECT count(f) FROM m WHERE i > 90", 2),
        ("SELECT f, i FROM m", 2),
        ("SELECT * FROM m", 2),
        ("SELECT * FROM m GROUP BY *", 2),
    ] {
        if !query.contains(&only) {
            continue;
        }
        let query = query.replace("UPPER", &upper.to_string());
        let plan = plan(&query);
        let scan = plan.scans()[0].clone();
        let series: Vec<ScanSeries> = (0..SERIES)
            .map(|number| ScanSeries {
                key: format!("m,host=h{number:03}").into_bytes().into(),
                tags: vec![("host".to_owned(), format!("h{number:03}"))],
            })
            .collect();
        let column = |field_type: FieldType| {
            Column::dense(match field_type {
                FieldType::Integer => Values::Integer((0..per_batch as i64).map(|row| row * 7919 % 101).collect()),
                _ => Values::Float((0..per_batch as i64).map(|row| (row * 7919 % 1009) as f64 / 8.0).collect()),
            })
        };
        let columns_of: Vec<Option<Column>> = scan.fields().iter().map(|(_, one)| Some(column(*one))).collect();
        let mut best = std::time::Duration::MAX;
        let (mut answered, mut held) = (0, 0);
        // The best of a few runs: other work on the machine only ever adds.
        for _ in 0..5 {
            let (plan, scan) = (plan.clone(), scan.clone());
            let mut left = vec![per_series / per_batch; SERIES];
            answered = 0;
            let start = Instant::now();
            let mut part = PartExec::new(scan, series.clone());
            let mut merge = Merge::new(plan, 1, 10_000);
            let mut outside = std::time::Duration::ZERO;
            loop {
                match merge.poll().expect("nothing fails") {
                    MergeDemand::Rows(series) => answered += series.row_count(),
                    MergeDemand::Done => break,
                    MergeDemand::Part { scan, part: number } => loop {
                        match part.poll() {
                            PartDemand::Points(series) => {
                                // The clock stands while a batch is made, as a decoder would: just before it is read.
                                let making = Instant::now();
                                held = held.max(part.bytes_held() + merge.bytes_held());
                                let batch = per_series / per_batch - left[series as usize];
                                let points = (left[series as usize] > 0).then(|| Points {
                                    times: (0..per_batch)
                                        .map(|row| (batch * per_batch + row) as i64 * STEP_NS)
                                        .collect(),
                                    columns: columns_of.clone(),
                                });
                                left[series as usize] = left[series as usize].saturating_sub(1);
                                outside += making.elapsed();
                                part.supply(series, points);
                            }
                            PartDemand::Emit(output) => {
                                merge.supply(scan, number, Some(output));
                                break;
                            }
                            PartDemand::Done => {
                                merge.supply(scan, number, None);
                                break;
                            }
                        }
                    },
                }
            }
            best = best.min(start.elapsed().saturating_sub(outside));
        }
        let cells = (per_series / per_batch * per_batch * SERIES * columns) as f64;
        println!(
            "{:7.2} ns/row/column {:9.2} ms {:9} rows answered {:10} bytes held  {query}",
            best.as_nanos() as f64 / cells,
            best.as_secs_f64() * 1e3,
            answered,
            held
        );
    }
}
