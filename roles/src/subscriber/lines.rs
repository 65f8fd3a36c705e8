//! Points on their way to subscriptions, as line protocol.

use crate::line_text::{push_field, push_time};
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tidemill_column::Value;
use tidemill_line::{Parsed, ValueRef, series_key::push_escaped_tag};

/// Lines of a batch; what they take is given back when the last of their readers is done.
#[derive(Debug, Default)]
pub struct Lines {
    text: Vec<u8>,
    /// Where each line ends: a string may hold a line feed.
    ends: Vec<usize>,
    charge: Option<(Arc<AtomicUsize>, usize)>,
}

impl Lines {
    /// The rows that pass, with times in ns. Floats have no exponents, as upstream sends them.
    pub fn of(parsed: &Parsed<'_>, keeps: impl Fn(usize) -> bool) -> Lines {
        let mut lines = Lines::default();
        for (_, row) in parsed.rows().iter().enumerate().filter(|(number, _)| keeps(*number)) {
            lines.text.extend_from_slice(parsed.series(row.series).key);
            for (number, (name, value)) in parsed.values(row).enumerate() {
                // What was parsed has a text.
                let _ = match value {
                    ValueRef::Float(value) => {
                        lines.text.push(if number == 0 { b' ' } else { b',' });
                        push_escaped_tag(name, &mut lines.text);
                        write!(lines.text, "={value}").map_err(|_| crate::line_text::Inexpressible)
                    }
                    value => push_field(&mut lines.text, number == 0, name, &owned(value)),
                };
            }
            push_time(&mut lines.text, row.time);
            lines.ends.push(lines.text.len());
        }
        lines
    }

    /// All lines.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    pub fn point_count(&self) -> u64 {
        self.ends.len() as u64
    }

    /// One after the other, each with its line end.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }

    /// Takes room in a counter of bytes; whether there was some.
    pub fn charge(&mut self, held: &Arc<AtomicUsize>, bytes_max: usize) -> bool {
        let bytes = self.text.len() + self.ends.len() * size_of::<usize>();
        let before = held.fetch_add(bytes, Ordering::Relaxed);
        self.charge = Some((held.clone(), bytes));
        before + bytes <= bytes_max
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some((held, bytes)) = &self.charge {
            held.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Float(value) => Value::Float(value),
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Unsigned(value) => Value::Unsigned(value),
        ValueRef::Boolean(value) => Value::Boolean(value),
        ValueRef::String(value) => Value::String(value.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_line::{Batch, ParseOptions, Precision};

    #[test]
    fn points_are_written_out_in_full() {
        let mut batch = Batch::new(1);
        let options = ParseOptions { precision: Precision::Second, now_ns: 7, validate_keys: false };
        let input = b"m,b=2,a=1 f=1e21,i=3i,s=\"x\ny\",t=t 5\nn f=0.1";
        let parsed = batch.parse(input, &options).unwrap();
        let mut lines = Lines::of(&parsed, |_| true);
        let found: Vec<String> = lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(found[0], "m,a=1,b=2 f=1000000000000000000000,i=3i,s=\"x\ny\",t=true 5000000000\n");
        assert!(found[1].starts_with("n f=0.1 "));
        assert_eq!((lines.point_count(), lines.text().len()), (2, found.concat().len()));
        assert_eq!(Lines::of(&parsed, |row| row == 1).point_count(), 1);
        let held = Arc::new(AtomicUsize::new(0));
        assert!(lines.charge(&held, 1 << 20));
        assert!(held.load(Ordering::Relaxed) > 0);
        let mut other = Lines::of(&parsed, |_| true);
        assert!(!other.charge(&held, 10));
        drop((lines, other));
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }
}
