//! Millions of points a second that each codec encodes and decodes on one core, in blocks of 1000 points.
//!
//! `cargo run --release -p tidemill-tsm --example codec_speed`

use std::hint::black_box;
use std::time::Instant;

use tidemill_column::{Strings, Values};
use tidemill_tsm::statistics::BlockStatistics;
use tidemill_tsm::{BLOCK_POINTS_DEFAULT, block, booleans, floats, integers, strings, timestamps};

/// Rounds of which the fastest counts: the machine is shared.
const ROUNDS: usize = 15;
const BLOCKS_PER_ROUND: usize = 300;

fn millions_per_second(mut block: impl FnMut()) -> f64 {
    let fastest = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..BLOCKS_PER_ROUND).for_each(|_| block());
        start.elapsed().as_secs_f64()
    });
    (BLOCKS_PER_ROUND * BLOCK_POINTS_DEFAULT) as f64 / fastest.fold(f64::MAX, f64::min) / 1e6
}

fn measure(name: &str, encode: impl Fn(&mut Vec<u8>), decode: impl Fn(&[u8]) -> usize) {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    assert_eq!(decode(&bytes), BLOCK_POINTS_DEFAULT);
    let per_point = bytes.len() as f64 / BLOCK_POINTS_DEFAULT as f64;
    let mut out = Vec::new();
    let encoding = millions_per_second(|| {
        out.clear();
        encode(black_box(&mut out));
    });
    let decoding = millions_per_second(|| {
        black_box(decode(black_box(&bytes)));
    });
    println!("{name:40} {per_point:6.2} B/point  encode {encoding:7.0} M/s  decode {decoding:7.0} M/s");
}

/// xorshift: the same data each time.
fn words(count: usize) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

fn main() {
    let count = BLOCK_POINTS_DEFAULT;
    let regular: Vec<i64> = (0..count as i64).map(|row| 1_700_000_000_000_000_000 + row * 10_000_000_000).collect();
    let jitter_of = |unit: u64, spread: u64| -> Vec<i64> {
        let mut time = 1_700_000_000_000_000_000u64;
        let steps = words(count).map(|word| 1 + word % spread);
        steps.map(|step| (time + step * unit, time += step * unit).0.cast_signed()).collect()
    };
    let milliseconds = jitter_of(1_000_000, 2000);
    let nanoseconds = jitter_of(1, 2_000_000_000);
    for (name, times) in
        [("times, regular", &regular), ("times, irregular ms", &milliseconds), ("times, irregular ns", &nanoseconds)]
    {
        let decode = |bytes: &[u8]| {
            let mut out = Vec::with_capacity(count);
            timestamps::decode(bytes, &mut out).expect("what was encoded");
            black_box(&out).len()
        };
        measure(name, |out| timestamps::encode(times, out), decode);
    }

    let constant = vec![42i64; count];
    let counter: Vec<i64> =
        words(count).scan(0i64, |sum, word| Some(*sum + (*sum += (word % 100) as i64, 0).1)).collect();
    let gauge: Vec<i64> = words(count).map(|word| (word % 100) as i64).collect();
    let mixed: Vec<i64> = words(count).map(|word| (word >> (20 + word % 40)).cast_signed()).collect();
    for (name, values) in [
        ("integers, constant", &constant),
        ("integers, counter", &counter),
        ("integers, 0..100", &gauge),
        ("integers, of all sizes", &mixed),
    ] {
        let decode = |bytes: &[u8]| {
            let mut out = Vec::with_capacity(count);
            integers::decode(bytes, &mut out).expect("what was encoded");
            black_box(&out).len()
        };
        measure(name, |out| integers::encode(values, out), decode);
    }

    let constant = vec![42.5f64; count];
    let whole: Vec<f64> = words(count).map(|word| (word % 100) as f64).collect();
    let walk: Vec<f64> =
        words(count).scan(50.0, |value, word| Some((*value += (word % 201) as f64 / 100.0 - 1.0, *value).1)).collect();
    let random: Vec<f64> = words(count).map(|word| f64::from_bits(word >> 2)).collect();
    for (name, values) in [
        ("floats, constant", &constant),
        ("floats, whole 0..100", &whole),
        ("floats, random walk", &walk),
        ("floats, random bits", &random),
    ] {
        let decode = |bytes: &[u8]| {
            let mut out = Vec::with_capacity(count);
            floats::decode(bytes, &mut out).expect("what was encoded");
            black_box(&out).len()
        };
        measure(name, |out| floats::encode(values, out).expect("no NaN"), decode);
    }

    let flags: Vec<bool> = words(count).map(|word| word & 1 == 1).collect();
    let decode = |bytes: &[u8]| {
        let mut out = Vec::with_capacity(count);
        booleans::decode(bytes, &mut out).expect("what was encoded");
        black_box(&out).len()
    };
    measure("booleans", |out| booleans::encode(&flags, out), decode);

    let texts: Vec<String> = words(count).map(|word| format!("state {} of machine", word % 10)).collect();
    let texts: Strings = texts.iter().map(|text| text.as_bytes()).collect();
    let decode = |bytes: &[u8]| {
        let mut out = Strings::new();
        strings::decode(bytes, &mut out).expect("what was encoded");
        black_box(&out).len()
    };
    measure("strings of 18 bytes", |out| strings::encode(&texts, 0..count, out).expect("small"), decode);

    let walk = Values::Float(walk);
    let decode = |bytes: &[u8]| {
        let (mut times, mut values) = (Vec::new(), Values::Float(Vec::new()));
        block::decode(bytes, &mut times, &mut values).expect("what was encoded");
        black_box((&times, &values)).0.len()
    };
    measure(
        "block, regular times, float walk",
        |out| block::encode(&regular, &walk, 0..count, out).expect("no NaN"),
        decode,
    );
    for (name, values) in [("floats", &walk), ("integers", &Values::Integer(gauge.clone()))] {
        let rate = millions_per_second(|| {
            black_box(BlockStatistics::of(&regular, black_box(values), 0..count));
        });
        println!("{:40} {rate:7.0} M/s", format!("statistics of {name}"));
    }
    let bytes = vec![0x5au8; 8 * count];
    let rate = millions_per_second(|| {
        black_box(crc32fast::hash(black_box(&bytes)));
    });
    println!("{:40} {rate:7.0} M/s", "crc of 8 bytes a point");
}
