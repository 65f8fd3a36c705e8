//! The Prometheus text format, version 0.0.4.

use crate::encode::push_float_text;
use hdrhistogram::{Counter, Histogram};

/// Quantiles that a summary shows.
const QUANTILES: [(f64, &str); 5] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999"), (1.0, "1")];

/// Writes families of samples. The caller keeps the samples of a family together, behind its header.
#[derive(Default)]
pub struct TextWriter {
    out: Vec<u8>,
}

impl TextWriter {
    pub fn new() -> TextWriter {
        TextWriter::default()
    }

    /// The header of a family; `kind` is `counter`, `gauge`, `histogram`, `summary` or `untyped`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.out.extend_from_slice(b"# HELP ");
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b' ');
        self.escape(help, false);
        self.out.extend_from_slice(b"\n# TYPE ");
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b' ');
        self.out.extend_from_slice(kind.as_bytes());
        self.out.push(b'\n');
    }

    /// One value.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.line(name, "", labels, None, value);
    }

    /// The lines of a summary. `scale` turns recorded values into the unit of the name; `sum` is in that unit.
    pub fn summary<C: Counter>(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        values: &Histogram<C>,
        scale: f64,
        sum: f64,
    ) {
        for (quantile, text) in QUANTILES {
            let value = values.value_at_quantile(quantile) as f64 * scale;
            self.line(name, "", labels, Some(("quantile", text)), value);
        }
        self.line(name, "_sum", labels, None, sum);
        self.line(name, "_count", labels, None, values.len() as f64);
    }

    /// The lines of a histogram with these upper bounds (in recorded units, ascending). `scale` and `sum` as in
    /// [`TextWriter::summary`].
    pub fn histogram<C: Counter>(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        values: &Histogram<C>,
        bounds: &[u64],
        scale: f64,
        sum: f64,
    ) {
        for bound in bounds {
            let mut text = Vec::new();
            push_float_text(&mut text, *bound as f64 * scale);
            let text = String::from_utf8_lossy(&text);
            self.line(name, "_bucket", labels, Some(("le", &text)), values.count_between(0, *bound) as f64);
        }
        self.line(name, "_bucket", labels, Some(("le", "+Inf")), values.len() as f64);
        self.line(name, "_sum", labels, None, sum);
        self.line(name, "_count", labels, None, values.len() as f64);
    }

    /// The text.
    pub fn finish(self) -> String {
        String::from_utf8(self.out).unwrap_or_default()
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], last: Option<(&str, &str)>, value: f64) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        for (at, (label, text)) in labels.iter().copied().chain(last).enumerate() {
            self.out.push(if at == 0 { b'{' } else { b',' });
            self.out.extend_from_slice(label.as_bytes());
            self.out.extend_from_slice(b"=\"");
            self.escape(text, true);
            self.out.push(b'"');
        }
        if !labels.is_empty() || last.is_some() {
            self.out.push(b'}');
        }
        self.out.push(b' ');
        push_float_text(&mut self.out, value);
        self.out.push(b'\n');
    }

    /// Help texts escape backslash and line feed, label values the double quote as well.
    fn escape(&mut self, text: &str, is_label: bool) {
        for byte in text.bytes() {
            match byte {
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'"' if is_label => self.out.extend_from_slice(b"\\\""),
                _ => self.out.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_values_spelled() {
        let mut writer = TextWriter::new();
        writer.family("a_total", "counter", "back\\slash \"quoted\"\nline");
        writer.sample("a_total", &[("path", "C:\\\"x\"\n")], 1.5);
        writer.sample("a_total", &[], f64::INFINITY);
        writer.sample("a_total", &[], f64::NAN);
        let expected = "# HELP a_total back\\\\slash \"quoted\"\\nline\n# TYPE a_total counter\n\
            a_total{path=\"C:\\\\\\\"x\\\"\\n\"} 1.5\na_total +Inf\na_total NaN\n";
        assert_eq!(writer.finish(), expected);
    }

    #[test]
    fn histograms_cumulate() {
        let mut values = Histogram::<u64>::new(3).unwrap();
        [1, 2, 2, 500].into_iter().for_each(|value| values.record(value).unwrap());
        let mut writer = TextWriter::new();
        writer.histogram("h", &[("l", "v")], &values, &[1, 2, 100], 0.5, 7.0);
        let expected = "h_bucket{l=\"v\",le=\"0.5\"} 1\nh_bucket{l=\"v\",le=\"1\"} 3\nh_bucket{l=\"v\",le=\"50\"} 3\n\
            h_bucket{l=\"v\",le=\"+Inf\"} 4\nh_sum{l=\"v\"} 7\nh_count{l=\"v\"} 4\n";
        assert_eq!(writer.finish(), expected);
    }
}
