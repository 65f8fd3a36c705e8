//! Files that upstream 1.8.10 wrote (`tsm-format`, section 2.8): they open, hold the points that were written, and the
//! same points give the same blocks and the same index again.

use tidemill_column::Values;
use tidemill_tsm::file::{FileBytes, FileError, FileWriter};
use tidemill_tsm::statistics::BlockStatistics;
use tidemill_tsm::{block, index::FileIndex};

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Key, times and values of each block, in index order.
type Blocks = Vec<(String, Vec<i64>, Values)>;

fn blocks_of(bytes: &[u8]) -> Result<Blocks, FileError> {
    let file = FileBytes::open(bytes)?;
    let mut blocks = Vec::new();
    for key in file.index.iter() {
        for entry in key.entries.iter() {
            let (mut times, mut values) = (Vec::new(), Values::new(key.field_type));
            block::decode(file.block(&entry)?, &mut times, &mut values).unwrap();
            assert_eq!((times[0], times[times.len() - 1]), (entry.min_time, entry.max_time));
            blocks.push((String::from_utf8(key.key.to_vec()).unwrap(), times, values));
        }
    }
    Ok(blocks)
}

fn check(hex: &str, expected: Blocks) {
    let upstream = bytes_of(hex);
    assert_eq!(blocks_of(&upstream).unwrap(), expected);
    let file = FileBytes::open(&upstream).unwrap();
    assert!(file.statistics.is_none());

    let mut ours = Vec::new();
    let mut writer = FileWriter::begin(&mut ours);
    for (key, times, values) in &expected {
        let mut bytes = Vec::new();
        block::encode(times, values, 0..times.len(), &mut bytes).unwrap();
        let statistics = BlockStatistics::of(times, values, 0..times.len());
        let (first, last) = (times[0], times[times.len() - 1]);
        let field_type = values.field_type();
        writer.push_block(key.as_bytes(), field_type, first, last, &bytes, Some(&statistics), &mut ours).unwrap();
    }
    writer.finish(&mut ours);
    let blocks_end = file.layout.index.start as usize;
    assert_eq!(ours[..blocks_end], upstream[..blocks_end], "header, CRC and blocks");
    let index: FileIndex = FileBytes::open(&ours).unwrap().index;
    assert_eq!(index.bytes(), &upstream[blocks_end..upstream.len() - 8], "index");

    for bit in 0..blocks_end * 8 {
        let mut damaged = upstream.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(blocks_of(&damaged).is_err(), "bit {bit} of header and blocks");
    }
}

#[test]
fn floats_at_whole_seconds() {
    let hex = concat!(
        "16d116d101333544bc001118000000003b9aca00e0000003c000000a103ff0000000000000d80f01ffff70017ff400000000",
        "0002000a6d2c743d6123217e2366000001000000003b9aca0000000000d09dc30000000000000000050000002f0000000000",
        "000034"
    );
    check(
        hex,
        vec![(
            "m,t=a#!~#f".into(),
            vec![1_000_000_000, 2_000_000_000, 3_500_000_000],
            Values::Float(vec![1.0, 1.5, -2.25]),
        )],
    );
}

#[test]
fn integers_with_a_step_down() {
    let hex = concat!(
        "16d116d1019efe1730010b2a00000000000000000104100000000000000014d0003b0000a0001400066d23217e2369010001",
        "000000000000000000000006fc23ac000000000000000005000000220000000000000027"
    );
    check(
        hex,
        vec![(
            "m#!~#i".into(),
            vec![0, 10_000_000_000, 20_000_000_000, 30_000_000_000],
            Values::Integer(vec![10, 20, 25, -5]),
        )],
    );
}

#[test]
fn integers_in_a_run() {
    let hex = concat!(
        "16d116d10170de7c42010b2a000000000000000001042000000000000000000a0300066d23217e2369010001000000000000",
        "000000000006fc23ac0000000000000000050000001c0000000000000021"
    );
    check(
        hex,
        vec![(
            "m#!~#i".into(),
            vec![0, 10_000_000_000, 20_000_000_000, 30_000_000_000],
            Values::Integer(vec![0, 5, 10, 15]),
        )],
    );
}

#[test]
fn three_integers_make_a_run() {
    let hex = concat!(
        "16d116d101ed40ab29010b200000000000000001010320000000000000000e040200066d23217e2369010001000000000000",
        "0001000000000000000300000000000000050000001c0000000000000021"
    );
    check(hex, vec![("m#!~#i".into(), vec![1, 2, 3], Values::Integer(vec![7, 9, 11]))]);
}

#[test]
fn two_integers_make_none() {
    let hex = concat!(
        "16d116d10196a656eb010b200000000000000001010210000000000000000ef00000000000000000066d23217e2369010001",
        "000000000000000100000000000000020000000000000005000000220000000000000027"
    );
    check(hex, vec![("m#!~#i".into(), vec![1, 2], Values::Integer(vec![7, 7]))]);
}

#[test]
fn integers_whose_deltas_wrap() {
    let hex = concat!(
        "16d116d1011725e3590111100000000000000001e00000008000000100fffffffffffffffe0000000000000002ffffffffff",
        "fffffd00066d23217e2369010001000000000000000100000000000000040000000000000005000000300000000000000035"
    );
    check(hex, vec![("m#!~#i".into(), vec![1, 2, 4], Values::Integer(vec![i64::MAX, i64::MIN, 1]))]);
}

#[test]
fn times_without_a_common_scale() {
    let hex = concat!(
        "16d116d101234cb3d0011910000000003b9aca00f000000077359400e0000001fb9aca00100000000000000002d0000c0000",
        "10000200066d23217e2369010001000000003b9aca0000000000ee6b28070000000000000005000000300000000000000035"
    );
    check(
        hex,
        vec![(
            "m#!~#i".into(),
            vec![1_000_000_000, 3_000_000_000, 4_000_000_000, 4_000_000_007],
            Values::Integer(vec![1, 2, 1, 7]),
        )],
    );
}

#[test]
fn times_too_far_apart_to_pack() {
    let hex = concat!(
        "16d116d1012c780147011900016345785d8a000110a741a4627800000000000000000001100000000000000002e000000000",
        "00000200066d23217e2369010001016345785d8a0001120a871cc00200020000000000000005000000300000000000000035"
    );
    check(
        hex,
        vec![(
            "m#!~#i".into(),
            vec![100_000_000_000_000_001, 1_300_000_000_000_000_001, 1_300_000_000_000_000_002],
            Values::Integer(vec![1, 2, 2]),
        )],
    );
}

#[test]
fn booleans() {
    let hex = concat!(
        "16d116d10100cc7e630211100000000000000001d0000200001000011004b000066d23217e23620200010000000000000001",
        "000000000000000500000000000000050000001a000000000000001f"
    );
    check(hex, vec![("m#!~#b".into(), vec![1, 2, 3, 5], Values::Boolean(vec![true, false, true, true]))]);
}

#[test]
fn strings() {
    let hex = concat!(
        "16d116d1013eb8ba62030b2300000000000003e80103100d300568656c6c6f000568656c6c6f00066d23217e237303000100",
        "000000000003e80000000000000bb80000000000000005000000210000000000000026"
    );
    check(
        hex,
        vec![(
            "m#!~#s".into(),
            vec![1000, 2000, 3000],
            Values::String([&b"hello"[..], b"", b"hello"].into_iter().collect()),
        )],
    );
}

#[test]
fn one_float() {
    let hex = concat!(
        "16d116d101f1d76ac300091c1457b58f22c0d848100000000000000000c3ffff8000000000001000066d23217e2366000001",
        "1457b58f22c0d8481457b58f22c0d8480000000000000005000000220000000000000027"
    );
    check(hex, vec![("m#!~#f".into(), vec![1_465_839_830_100_400_200], Values::Float(vec![0.0]))]);
}

#[test]
fn floats_that_differ_in_the_last_bits() {
    let hex = concat!(
        "16d116d101cbbe07530011100000000000000001c000200100008001103ff0000000000000ff0800000007f4400000001b4e",
        "9266666666666787f8083333333333336000066d23217e236600000100000000000000010000000000000008000000000000",
        "00050000003e0000000000000043"
    );
    check(
        hex,
        vec![(
            "m#!~#f".into(),
            vec![1, 2, 3, 7, 8],
            Values::Float(vec![1.0, 1.000_000_000_000_000_2, 1.000_000_000_000_000_4, 1.000_000_000_000_000_4, 0.1]),
        )],
    );
}

#[test]
fn an_escaped_key() {
    let hex = concat!(
        "16d116d1018694d55200091c0000000000000001103ff0000000000000c3fc0080000000000010001663705c2c752c685c20",
        "743d615c3d6223217e2366203100000100000000000000010000000000000001000000000000000500000022000000000000",
        "0027"
    );
    check(hex, vec![(r"cp\,u,h\ t=a\=b#!~#f 1".into(), vec![1], Values::Float(vec![1.0]))]);
}

#[test]
fn two_series() {
    let hex = concat!(
        "16d116d101d823cd4d000b2000000000000000010202103ff0000000000000c267ffe2fbff00000000000010cfdd9f010009",
        "1c0000000000000002104000000000000000c5f7ff00000000000020000a6d2c743d6123217e236600000100000000000000",
        "010000000000000003000000000000000500000027000a6d2c743d6223217e23660000010000000000000002000000000000",
        "0002000000000000002c00000022000000000000004e"
    );
    let first = ("m,t=a#!~#f".into(), vec![1, 3], Values::Float(vec![1.0, 3.0]));
    check(hex, vec![first, ("m,t=b#!~#f".into(), vec![2], Values::Float(vec![2.0]))]);
}
