//! Points as line protocol.

use std::io::Write;
use tidemill_column::Value;
use tidemill_line::series_key::push_escaped_tag;

/// A value that line protocol cannot express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inexpressible;

/// Appends field and value to the line that `out` ends in, which begins with the series key.
pub fn push_field(line: &mut Vec<u8>, is_first: bool, name: &[u8], value: &Value) -> Result<(), Inexpressible> {
    if matches!(value, Value::Float(value) if !value.is_finite()) {
        return Err(Inexpressible);
    }
    line.push(if is_first { b' ' } else { b',' });
    push_escaped_tag(name, line);
    line.push(b'=');
    let written = match value {
        // The shortest digits that give the same bits back.
        Value::Float(value) => write!(line, "{value:?}"),
        Value::Integer(value) => write!(line, "{value}i"),
        Value::Unsigned(value) => write!(line, "{value}u"),
        Value::Boolean(value) => write!(line, "{value}"),
        Value::String(value) => {
            line.push(b'"');
            for byte in value.iter() {
                if matches!(byte, b'"' | b'\\') {
                    line.push(b'\\');
                }
                line.push(*byte);
            }
            line.push(b'"');
            Ok(())
        }
    };
    written.map_err(|_| Inexpressible)
}

/// Appends time and end of the line.
pub fn push_time(line: &mut Vec<u8>, time_ns: i64) {
    let _ = writeln!(line, " {time_ns}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_line::{Batch, ParseOptions, Precision, ValueRef};

    #[test]
    fn values_come_back_through_the_parser() {
        let values = [
            Value::Float(-0.0),
            Value::Float(1e300),
            Value::Float(5e-324),
            Value::Float(0.1 + 0.2),
            Value::Integer(i64::MIN),
            Value::Unsigned(u64::MAX),
            Value::Boolean(true),
            Value::String(b"a \"quoted\\\" text,\nwith=all\\".as_slice().into()),
        ];
        for value in values {
            let mut line = b"m\\ x,t=a\\,b".to_vec();
            push_field(&mut line, true, b"a field,=", &value).unwrap();
            push_time(&mut line, -5);
            let mut batch = Batch::new(1);
            batch.take_unsigned(true);
            let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
            let parsed = batch.parse(&line, &options).unwrap();
            assert_eq!((parsed.rows().len(), parsed.error_text()), (1, None), "{}", line.escape_ascii());
            let row = &parsed.rows()[0];
            assert_eq!(row.time, -5);
            let (name, read) = parsed.values(row).next().unwrap();
            assert_eq!(name, b"a field,=");
            match (read, &value) {
                (ValueRef::Float(read), Value::Float(value)) => assert_eq!(read.to_bits(), value.to_bits()),
                (ValueRef::Integer(read), Value::Integer(value)) => assert_eq!(read, *value),
                (ValueRef::Unsigned(read), Value::Unsigned(value)) => assert_eq!(read, *value),
                (ValueRef::Boolean(read), Value::Boolean(value)) => assert_eq!(read, *value),
                (ValueRef::String(read), Value::String(value)) => assert_eq!(read, &value[..]),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(push_field(&mut Vec::new(), true, b"f", &Value::Float(f64::NAN)), Err(Inexpressible));
        assert_eq!(push_field(&mut Vec::new(), true, b"f", &Value::Float(f64::INFINITY)), Err(Inexpressible));
    }
}
