//! Bytes a value, and CPU for encoding and decoding, of the two float encodings on data as it is found in the field.
//!
//! `cargo run --release -p tidemill-tsm --example float_encodings`
//!
//! Both encodings run one after the other on the same blocks, so that their ratio holds on a noisy machine.

use std::hint::black_box;
use std::time::Instant;

use tidemill_tsm::{BLOCK_POINTS_DEFAULT, FloatEncoding, floats};

/// Rounds of which the fastest counts: the machine is shared.
const ROUNDS: usize = 40;
const BLOCKS: usize = 100;

/// A stream of numbers from a seed; the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// From zero to one.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal, of deviation one.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.part()).sum::<f64>() - 6.0
    }
}

/// As a client that rounds to `digits` behind the point writes it, and a server reads it.
fn rounded(value: f64, digits: usize) -> f64 {
    format!("{value:.digits$}").parse().expect("a number was printed")
}

type Column = (&'static str, Box<dyn FnMut(&mut Random, usize) -> f64>);

fn columns() -> Vec<Column> {
    let walk = |mut at: f64, step: f64, low: f64, high: f64, digits: usize| {
        move |random: &mut Random, _: usize| {
            at = (at + random.normal() * step).clamp(low, high);
            rounded(at, digits)
        }
    };
    let mut counter = 1.0e9;
    let mut held = 230.0;
    vec![
        ("cpu, whole percents (TSBS)", Box::new(walk(50.0, 1.0, 0.0, 100.0, 0))),
        ("reference workload, 4 digits", Box::new(|random, _| rounded(17.0 / 3.0 * random.normal() + 11.0, 4))),
        ("uniform, 2 digits", Box::new(|random, _| rounded(random.part() * 100.0, 2))),
        ("temperature, 1 digit", Box::new(walk(21.0, 0.05, -20.0, 45.0, 1))),
        ("temperature, 2 digits", Box::new(walk(21.0, 0.05, -20.0, 45.0, 2))),
        ("voltage, 3 digits", Box::new(walk(230.0, 0.2, 200.0, 250.0, 3))),
        ("position, 6 digits", Box::new(walk(52.5, 0.0001, -90.0, 90.0, 6))),
        ("price, 2 digits", Box::new(walk(412.37, 0.5, 1.0, 9000.0, 2))),
        (
            "counter of bytes",
            Box::new(move |random, _| {
                counter += random.below(150_000) as f64;
                counter
            }),
        ),
        (
            "held for minutes, 1 digit",
            Box::new(move |random, _| {
                if random.below(60) == 0 {
                    held = rounded(220.0 + random.part() * 20.0, 1);
                }
                held
            }),
        ),
        (
            "percent, computed (a / b * 100)",
            Box::new(|random, _| random.below(1 << 20) as f64 / f64::from(1 << 20) * 33.3),
        ),
        ("sine, all bits", Box::new(|_, row| (row as f64 / 50.0).sin())),
    ]
}

fn seconds(mut work: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    rounds.fold(f64::MAX, f64::min)
}

fn main() {
    println!("{:34} {:>17} {:>27} {:>27}", "", "bytes a value", "encode, M values/s", "decode, M values/s");
    println!(
        "{:34} {:>8} {:>8} {:>9} {:>8} {:>8} {:>9} {:>8} {:>8}",
        "", "gorilla", "alp", "gorilla", "alp", "ratio", "gorilla", "alp", "ratio"
    );
    for (name, mut column) in columns() {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let values: Vec<f64> = (0..BLOCKS * BLOCK_POINTS_DEFAULT).map(|row| column(&mut random, row)).collect();
        let mut figures = Vec::new();
        for encoding in [FloatEncoding::Gorilla, FloatEncoding::Alp] {
            let encoded: Vec<Vec<u8>> = values
                .chunks(BLOCK_POINTS_DEFAULT)
                .map(|block| {
                    let mut bytes = Vec::new();
                    floats::encode_as(block, encoding, &mut bytes).expect("no NaN");
                    bytes
                })
                .collect();
            let (mut bytes, mut decoded) = (Vec::new(), Vec::new());
            let encoding_s = seconds(|| {
                for block in values.chunks(BLOCK_POINTS_DEFAULT) {
                    bytes.clear();
                    floats::encode_as(black_box(block), encoding, &mut bytes).expect("no NaN");
                    black_box(&bytes);
                }
            });
            let decoding_s = seconds(|| {
                for block in &encoded {
                    decoded.clear();
                    floats::decode(black_box(block), &mut decoded).expect("what was encoded");
                    black_box(&decoded);
                }
            });
            let size = encoded.iter().map(Vec::len).sum::<usize>() as f64 / values.len() as f64;
            let million = values.len() as f64 / 1e6;
            figures.push((size, million / encoding_s, million / decoding_s));
        }
        let (gorilla, alp) = (figures[0], figures[1]);
        println!(
            "{name:34} {:8.2} {:8.2} {:9.0} {:8.0} {:8.2} {:9.0} {:8.0} {:8.2}",
            gorilla.0,
            alp.0,
            gorilla.1,
            alp.1,
            alp.1 / gorilla.1,
            gorilla.2,
            alp.2,
            alp.2 / gorilla.2
        );
    }
}
