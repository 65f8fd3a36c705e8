//! Every example and every error text of the line protocol reference, and the limits that it names.

use tidemill_line::{Batch, ERROR_TEXT_BYTES_MAX, ERRORS_MAX, ParseOptions, Precision, ValueRef};

const NOW: i64 = 1_563_249_700_123_456_789;

fn options(precision: Precision) -> ParseOptions {
    ParseOptions { precision, now_ns: NOW, validate_keys: false }
}

/// Points as `key field=value,.. time`, with strings in Rust's notation.
fn points(body: &[u8], precision: Precision) -> Vec<String> {
    let mut batch = Batch::new(1);
    let parsed = batch.parse(body, &options(precision)).unwrap();
    assert_eq!(parsed.error_text(), None, "{}", body.escape_ascii());
    let point = |row: &tidemill_line::Row| {
        let key = String::from_utf8_lossy(parsed.series(row.series).key);
        let fields: Vec<String> = parsed
            .values(row)
            .map(|(name, value)| {
                let name = String::from_utf8_lossy(name);
                match value {
                    ValueRef::Float(value) => format!("{name}={value:?}"),
                    ValueRef::Integer(value) => format!("{name}={value}i"),
                    ValueRef::Boolean(value) => format!("{name}={value}"),
                    ValueRef::String(value) => format!("{name}={:?}", String::from_utf8_lossy(value)),
                    ValueRef::Unsigned(value) => format!("{name}={value}u"),
                }
            })
            .collect();
        format!("{key} {} {}", fields.join(","), row.time)
    };
    parsed.rows().iter().map(point).collect()
}

fn reason(line: &str) -> String {
    reason_of(line.as_bytes())
}

fn reason_of(line: &[u8]) -> String {
    let mut batch = Batch::new(1);
    let parsed = batch.parse(line, &options(Precision::Nanosecond)).unwrap();
    let text = parsed.error_text().unwrap_or_else(|| panic!("{:?} was accepted", line.escape_ascii().to_string()));
    let start = format!("unable to parse '{}': ", String::from_utf8_lossy(line));
    text.strip_prefix(&start).unwrap_or_else(|| panic!("{text}")).to_string()
}

#[test]
fn examples() {
    let one = |line: &str| points(line.as_bytes(), Precision::Nanosecond).join("|");
    for (line, expected) in [
        (r#"cpu,host=a\ b,r=x f=1,i=2i,s="q\"w",b=t 10"#, r#"cpu,host=a\ b,r=x f=1.0,i=2i,s="q\"w",b=true 10"#),
        ("cpu,r=x,host=a f=1 1", "cpu,host=a,r=x f=1.0 1"),
        (r"m\,x,t=1 f=1 1", r"m\,x,t=1 f=1.0 1"),
        (r#""m" f=1 1"#, r#""m" f=1.0 1"#),
        ("m f=\"line1\nline2\" 1", r#"m f="line1\nline2" 1"#),
        (r#"m s="a\nb" 1"#, r#"m s="a\\nb" 1"#),
        ("m f=1 -5", "m f=1.0 -5"),
        ("m f=1  5  ", "m f=1.0 5"),
        (r"q,a\=b=c\ d,e=f\,g f\ h=1 1", r"q,a\=b=c\ d,e=f\,g f h=1.0 1"),
        (r#"q "k"=1 1"#, r#"q "k"=1.0 1"#),
        ("q f=1 9223372036854775806", "q f=1.0 9223372036854775806"),
        ("q f=1 -9223372036854775806", "q f=1.0 -9223372036854775806"),
        ("m f=1,f=2 1", "m f=2.0 1"),
        ("m f=1,g=t,f=2i 1", "m f=2i,g=true 1"),
        ("# c", ""),
        ("  # c=\"", ""),
        (" \t\0 \n\n", ""),
        ("=1 f=1 1", "=1 f=1.0 1"),
        (r#"m s="a"b 1"#, r#"m s="a\"" 1"#),
        (r#"m s="a""b" 1"#, r#"m s="a\"\"b" 1"#),
        (r#"m s="" 1"#, r#"m s="" 1"#),
        (r#"m s="a, b=c" 1"#, r#"m s="a, b=c" 1"#),
        ("m time=1,f=2 1", "m f=2.0 1"),
        ("time f=1 1", "time f=1.0 1"),
        ("\t m f=1 1\nm g=1 2", "m f=1.0 1|m g=1.0 2"),
        ("m  f=1 1", "m f=1.0 1"),
        ("m f=01i,g=-0i 1", "m f=1i,g=0i 1"),
        ("m a=1.,b=.5,c=-.5,d=1e5,e=1E+5,f=-1.5e-3 1", "m a=1.0,b=0.5,c=-0.5,d=100000.0,e=100000.0,f=-0.0015 1"),
        ("m a=9223372036854775807i,b=-9223372036854775808i 1", "m a=9223372036854775807i,b=-9223372036854775808i 1"),
        ("m\0x f=1 1", "m\0x f=1.0 1"),
    ] {
        assert_eq!(one(line), expected, "{line}");
    }
}

#[test]
fn reasons() {
    for (reason_text, lines) in [
        ("missing measurement", &[",a=b f=1"][..]),
        ("missing fields", &["cpu", "cpu,a=b", r"cpu\ f=1", "cpu\tf=1"]),
        ("missing tag key", &["cpu,=b f=1", "cpu, f=1", "cpu,a=b, f=1", "cpu,a=b,,c=d f=1"]),
        ("missing tag value", &["cpu,a= f=1", "cpu,a f=1"]),
        ("invalid tag format", &["cpu,a=b=c f=1", r"cpu,a=b\ f=1"]),
        ("duplicate tags", &["cpu,a=1,a=2 f=1"]),
        ("missing field key", &["cpu =1", "cpu f=1,=2"]),
        ("missing field value", &["cpu f=", "cpu f=1,g=", "cpu f= 1"]),
        ("invalid field format", &["cpu f", "cpu f=1,", "cpu f=1,g", "cpu ", "cpu f =1"]),
        ("unbalanced quotes", &["cpu f=\"a", "cpu f=\"a\ncpu f=1"]),
        ("invalid number", &["cpu f=1a", "cpu f=1u", "cpu f=1.2.3", "cpu f=--1", "cpu f=-", "cpu f=.", "cpu f=0x1"]),
        ("invalid number", &["cpu f=1.5i", "cpu f=NaN", "cpu f=-Inf", "cpu f=1\t5", "cpu f=17\r"]),
        ("invalid float", &["cpu f=1e", "cpu f=1e400"]),
        ("invalid boolean", &["cpu f=abc", "cpu f=tru", "cpu f=i", "cpu f=+1", "cpu f=Inf"]),
        ("bad timestamp", &["cpu f=1 12x", "cpu f=1 1.5", "cpu f=1 17\r", "m s=\"a\" ,g=1"]),
        (
            "unable to parse integer 9223372036854775808: strconv.ParseInt: parsing \"9223372036854775808\": \
             value out of range",
            &["cpu f=9223372036854775808i"],
        ),
        ("strconv.ParseInt: parsing \"99999999999999999999\": value out of range", &["cpu f=1 99999999999999999999"]),
        ("strconv.ParseInt: parsing \"-\": invalid syntax", &["cpu f=1 -"]),
        (
            "time outside range -9223372036854775806 - 9223372036854775806",
            &["q f=1 9223372036854775807", "q f=1 -9223372036854775807"],
        ),
        ("point is invalid", &["cpu f=1 1 x", "cpu f=1 1 2"]),
    ] {
        for line in lines {
            assert_eq!(reason(line), reason_text, "{line:?}");
        }
    }
}

#[test]
fn key_lengths() {
    let line = |len: usize| format!("{} f=1 1", "m".repeat(len));
    assert_eq!(points(line(65_530).as_bytes(), Precision::Nanosecond).len(), 1);
    assert_eq!(reason(&line(65_531)), "max key length exceeded: 65536 > 65535");
    assert_eq!(reason(&line(65_536)), "max key length exceeded: 65536 > 65535");
    // The longer of two fields decides, also for the second line of a series and schema.
    let two = format!("m f=1,{}=2 1", "g".repeat(65_531));
    assert_eq!(reason(&two), "max key length exceeded: 65536 > 65535");
}

#[test]
fn lines_are_independent_and_texts_are_joined() {
    let body = b"m f=1 1\nbad\n  m f=2 2\n\nm f=x 3\nm f=3 3";
    let mut batch = Batch::new(1);
    let parsed = batch.parse(body, &options(Precision::Nanosecond)).unwrap();
    assert_eq!(parsed.rows().iter().map(|row| row.time).collect::<Vec<_>>(), [1, 2, 3]);
    let text = "unable to parse 'bad': missing fields\nunable to parse 'm f=x 3': invalid boolean";
    assert_eq!((parsed.error_text().as_deref(), parsed.error_count()), (Some(text), 2));
}

#[test]
fn dropped_points_and_their_texts() {
    let body = b"m\\ x,time=1 f=1 1\nm time=1 2\nm f=1 3";
    let mut batch = Batch::new(1);
    let parsed = batch.parse(body, &options(Precision::Nanosecond)).unwrap();
    let texts: Vec<String> = parsed.dropped().iter().map(|point| parsed.dropped_text(point)).collect();
    assert_eq!(
        texts,
        [
            "invalid tag key: input tag \"time\" on measurement \"m x\" is invalid",
            "invalid field name: input field \"time\" on measurement \"m\" is invalid"
        ]
    );
    assert_eq!((parsed.rows().len(), parsed.dropped_count(), parsed.error_count()), (1, 2, 0));
}

#[test]
fn keys_that_are_no_unicode_are_dropped_if_asked() {
    let body = b"m,a=\xff f=1 1\nm,a=\xff f=1 2\nm,a=b f=1 3";
    let mut batch = Batch::new(1);
    for (validate_keys, stored) in [(false, 3), (true, 1)] {
        let parsed = batch.parse(body, &ParseOptions { validate_keys, ..options(Precision::Nanosecond) }).unwrap();
        assert_eq!((parsed.rows().len(), parsed.dropped_count()), (stored, 3 - stored));
    }
    let parsed = batch.parse(body, &ParseOptions { validate_keys: true, ..options(Precision::Nanosecond) }).unwrap();
    assert_eq!(parsed.dropped_text(&parsed.dropped()[0]), r#"key contains invalid unicode: "m,a=\xff""#);
}

#[test]
fn precisions_scale_and_truncate() {
    for (precision, multiplier) in [
        (Precision::Nanosecond, 1),
        (Precision::Microsecond, 1_000),
        (Precision::Millisecond, 1_000_000),
        (Precision::Second, 1_000_000_000),
        (Precision::Minute, 60_000_000_000),
        (Precision::Hour, 3_600_000_000_000),
    ] {
        let truncated = NOW / multiplier * multiplier;
        let expected = [format!("m f=1.0 {}", 7 * multiplier), format!("m f=1.0 {truncated}")];
        assert_eq!(points(b"m f=1 7\nm f=1", precision), expected);
    }
    let mut batch = Batch::new(1);
    let parsed = batch.parse(b"m f=1 9999999999999", &options(Precision::Hour)).unwrap();
    assert!(parsed.error_text().unwrap().ends_with("time outside range -9223372036854775806 - 9223372036854775806"));
}

#[test]
fn the_reference_row() {
    let row = b"devices,devgroup=1,devid=1,devname=dev_1 humidity=16.1116,temperature=47i 1563249700000";
    assert_eq!(
        points(row, Precision::Millisecond),
        ["devices,devgroup=1,devid=1,devname=dev_1 humidity=16.1116,temperature=47i 1563249700000000000"]
    );
}

#[test]
fn a_body_of_bad_lines_costs_no_more_than_a_good_one() {
    let body = "x\n".repeat(500_000);
    let mut batch = Batch::new(1);
    let parsed = batch.parse(body.as_bytes(), &options(Precision::Nanosecond)).unwrap();
    assert_eq!((parsed.error_count(), parsed.errors().len()), (500_000, ERRORS_MAX));
    let text = parsed.error_text().unwrap();
    assert!(text.len() < 2 * ERROR_TEXT_BYTES_MAX);
    assert!(text.ends_with("more lines could not be parsed"), "{}", &text[text.len() - 100..]);
    assert!(batch.byte_size() < 4 << 20);
    // An open quote takes the rest of the body along; the answer shows the beginning of it.
    let open = format!("m f=\"{}", "y".repeat(5 << 20));
    let parsed = batch.parse(open.as_bytes(), &options(Precision::Nanosecond)).unwrap();
    let text = parsed.error_text().unwrap();
    assert!(text.ends_with("unbalanced quotes") && text.len() < ERROR_TEXT_BYTES_MAX + 100);
}

#[test]
fn buffers_of_an_unusual_body_are_given_back() {
    let mut batch = Batch::new(1);
    let wide: String = (0..1_000_000).map(|index| format!("m{index} f{index}=1\n")).collect();
    let parsed = batch.parse(wide.as_bytes(), &options(Precision::Nanosecond)).unwrap();
    assert_eq!((parsed.rows().len(), parsed.schema_count()), (1_000_000, 1_000_000));
    batch.clear();
    assert!(batch.byte_size() <= tidemill_line::RETAINED_BYTES_MAX);
}

#[test]
fn unsigned_integers_are_taken_where_they_are_asked_for() {
    let body = b"m a=7u,b=1,c=18446744073709551615u 1\nm a=8u 2\nm a=-1u 3\nm a=18446744073709551616u 4\nm a=u 5\nm a=1ux 6\nm a=1u";
    let mut batch = Batch::new(1);
    let refused = batch.parse(body, &options(Precision::Nanosecond)).unwrap();
    assert_eq!((refused.rows().len(), refused.error_count()), (0, 7));
    batch.take_unsigned(true);
    let parsed = batch.parse(body, &options(Precision::Nanosecond)).unwrap();
    assert_eq!((parsed.rows().len(), parsed.error_count()), (3, 4));
    let values: Vec<_> = parsed.rows().iter().flat_map(|row| parsed.values(row).map(|(_, value)| value)).collect();
    let unsigned = ValueRef::Unsigned;
    assert_eq!(values, [unsigned(7), ValueRef::Float(1.0), unsigned(u64::MAX), unsigned(8), unsigned(1)]);
    batch.take_unsigned(false);
    assert_eq!(batch.parse(body, &options(Precision::Nanosecond)).unwrap().rows().len(), 0);
}
