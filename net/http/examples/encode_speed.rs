//! How fast rows become JSON: `cargo run --release -p tidemill-http --example encode_speed`.

use tidemill_column::{Column, Strings, Values};
use tidemill_http::encode::{Encoder, JsonEncoder, TimeFormat};
use tidemill_query::{ResultColumn, ResultSeries};

const ROWS: i64 = 100_000;

const ROUNDS: usize = 20;

/// CPU time of this thread: other load on the machine does not count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux kernel with schedstat");
    text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).expect("ns on the CPU") / 1e9
}

fn main() {
    let hosts: Strings = (0..ROWS).map(|row| [&b"host_1"[..], b"host_2"][(row / 1000 % 2) as usize]).collect();
    let regions: Strings = (0..ROWS).map(|_| &b"eu-central-1"[..]).collect();
    let floats = (0..ROWS).map(|row| (row as f64 * 0.37).sin() * 100.0).collect();
    let short_floats = (0..ROWS).map(|row| (row % 1000) as f64 / 10.0).collect();
    let dense = |values| ResultColumn::Values(Column::dense(values));
    let series = ResultSeries {
        name: "cpu".into(),
        tags: [].into(),
        columns: ["time", "host", "region", "usage", "idle", "count"].map(str::to_owned).into(),
        values: vec![
            ResultColumn::Time((0..ROWS).map(|row| 1_422_568_543_000_000_000 + row * 10_000_000_000).collect()),
            dense(Values::String(hosts)),
            dense(Values::String(regions)),
            dense(Values::Float(floats)),
            dense(Values::Float(short_floats)),
            dense(Values::Integer((0..ROWS).map(|row| row * 7919).collect())),
        ],
        partial: false,
    };
    let mut columns: Vec<(String, Vec<usize>)> = vec![("all".to_owned(), (0..6).collect())];
    columns.extend((0..6).map(|column| (series.columns[column].clone(), vec![column])));
    for (name, chosen) in columns {
        let part = ResultSeries {
            columns: chosen.iter().map(|at| series.columns[*at].clone()).collect(),
            values: chosen.iter().map(|at| series.values[*at].clone()).collect(),
            ..series.clone()
        };
        let started = cpu_seconds();
        let mut out = Vec::new();
        let mut bytes = 0;
        for _ in 0..ROUNDS {
            let mut encoder = JsonEncoder::new(TimeFormat::Rfc3339);
            bytes = 0;
            encoder.begin_series(&mut out, &part);
            for start in (0..ROWS as usize).step_by(500) {
                encoder.rows(&mut out, &part, start..start + 500).expect("finite values");
                if out.len() > 128 << 10 {
                    bytes += out.len();
                    out.clear();
                }
            }
            bytes += out.len();
            out.clear();
        }
        let seconds = (cpu_seconds() - started) / ROUNDS as f64;
        println!(
            "{name:8} {:8.3} ms {:6.0} MB/s {:5.1} ns/row",
            seconds * 1e3,
            bytes as f64 / seconds / 1e6,
            seconds * 1e9 / ROWS as f64
        );
    }
}
