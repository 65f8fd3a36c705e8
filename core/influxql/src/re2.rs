//! RE2 syntax, as upstream takes it, to the syntax of the `regex` crate.
//!
//! The two differ: here `[[a]` is a class of two characters, `a{x` is literal, `\d` is ASCII, `a**` is an error.
//! Checking and translating in one pass also gives upstream's error texts. Groups are translated to groups that
//! capture nothing, because only whether there is a match is ever asked.

use std::fmt::Write as _;

/// Upstream's text without `error parsing regexp: `.
pub(crate) type Refusal = String;

/// The largest count in `{n,m}`, and the largest product of such counts that enclose each other.
const REPEAT_MAX: u32 = 1000;

/// Translates a pattern.
pub(crate) fn translate(pattern: &str) -> Result<String, Refusal> {
    let mut translator = Translator {
        pattern,
        rest: pattern,
        output: String::with_capacity(pattern.len()),
        groups: Vec::new(),
        has_operand: false,
        operand_weight: 1,
        weight_max: 1,
    };
    translator.run()?;
    Ok(translator.output)
}

struct Translator<'a> {
    pattern: &'a str,
    rest: &'a str,
    output: String,
    /// For each open group, the largest weight seen before it in the enclosing one.
    groups: Vec<u32>,
    /// Whether a repetition could apply to what came last.
    has_operand: bool,
    /// The product of the counts inside what came last.
    operand_weight: u32,
    /// The largest weight in the group so far.
    weight_max: u32,
}

impl<'a> Translator<'a> {
    fn run(&mut self) -> Result<(), Refusal> {
        // Where the repetition starts that came last, if nothing came after it.
        let mut last_repeat: Option<&'a str> = None;
        while let Some(first) = self.rest.chars().next() {
            let start = self.rest;
            let mut repeat = None;
            match first {
                '(' => self.open_group()?,
                ')' => {
                    let Some(weight) = self.groups.pop() else {
                        return Err(format!("unexpected ): `{}`", self.pattern));
                    };
                    self.advance(1);
                    self.output.push(')');
                    let inner = self.weight_max;
                    self.weight_max = weight;
                    self.operand(inner);
                }
                '|' => {
                    self.advance(1);
                    self.output.push('|');
                    self.has_operand = false;
                }
                '.' | '^' | '$' => {
                    self.advance(1);
                    self.output.push(first);
                    self.operand(1);
                }
                '[' => self.class()?,
                '\\' => self.escape()?,
                '*' | '+' | '?' => {
                    self.advance(1);
                    self.repetition(start, last_repeat, 1, None)?;
                    repeat = Some(start);
                }
                '{' => match counts(self.rest) {
                    Some((minimum, maximum, length)) => {
                        self.advance(length);
                        let text = start.get(..length).unwrap_or(start);
                        let is_valid = minimum <= REPEAT_MAX
                            && maximum.is_none_or(|maximum| maximum <= REPEAT_MAX && minimum <= maximum);
                        if !is_valid {
                            return Err(format!("invalid repeat count: `{text}`"));
                        }
                        self.repetition(start, last_repeat, maximum.unwrap_or(minimum).max(1), Some(text))?;
                        repeat = Some(start);
                    }
                    None => self.literal('{', 1),
                },
                other => self.literal(other, other.len_utf8()),
            }
            last_repeat = if repeat.is_some() { last_repeat.or(repeat) } else { None };
        }
        if self.groups.is_empty() { Ok(()) } else { Err(format!("missing closing ): `{}`", self.pattern)) }
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// What lies between a place and the present one.
    fn since(&self, start: &'a str) -> &'a str {
        start.get(..start.len().saturating_sub(self.rest.len())).unwrap_or(start)
    }

    fn operand(&mut self, weight: u32) {
        self.has_operand = true;
        self.operand_weight = weight;
        self.weight_max = self.weight_max.max(weight);
    }

    fn literal(&mut self, character: char, bytes: usize) {
        self.advance(bytes);
        self.push_character(character);
        self.operand(1);
    }

    /// By number, so that it means itself in and outside of a class.
    fn push_character(&mut self, character: char) {
        if character.is_ascii_alphanumeric() {
            self.output.push(character);
        } else {
            // Writing to a string does not fail.
            let _ = write!(self.output, "\\x{{{:X}}}", u32::from(character));
        }
    }

    /// The operator itself is already read; `?` after it asks for the shortest match.
    fn repetition(
        &mut self,
        start: &'a str,
        last_repeat: Option<&'a str>,
        count: u32,
        counted: Option<&str>,
    ) -> Result<(), Refusal> {
        if self.rest.starts_with('?') {
            self.advance(1);
        }
        if let Some(last) = last_repeat {
            return Err(format!("invalid nested repetition operator: `{}`", self.since(last)));
        }
        if !self.has_operand {
            return Err(format!("missing argument to repetition operator: `{}`", self.since(start)));
        }
        let weight = self.operand_weight.saturating_mul(count);
        if weight > REPEAT_MAX {
            return Err(format!("invalid repeat count: `{}`", counted.unwrap_or_default()));
        }
        self.output.push_str(self.since(start));
        self.operand(weight);
        Ok(())
    }

    fn open_group(&mut self) -> Result<(), Refusal> {
        let start = self.rest;
        if !start.starts_with("(?") {
            self.advance(1);
            self.output.push_str("(?:");
            self.enter();
            return Ok(());
        }
        if let Some(named) = start.strip_prefix("(?P<") {
            let Some((name, _)) = named.split_once('>') else {
                return Err(format!("invalid named capture: `{start}`"));
            };
            self.advance(name.len().saturating_add("(?P<>".len()));
            let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !is_word {
                return Err(format!("invalid named capture: `{}`", self.since(start)));
            }
            self.output.push_str("(?:");
            self.enter();
            return Ok(());
        }
        self.advance(2);
        let (mut is_negative, mut has_flag) = (false, false);
        loop {
            let next = self.rest.chars().next();
            self.advance(next.map_or(0, char::len_utf8));
            match next {
                Some('i' | 'm' | 's' | 'U') => has_flag = true,
                Some('-') if !is_negative => (is_negative, has_flag) = (true, false),
                Some(')' | ':') if !is_negative || has_flag => {
                    let flags = self.since(start);
                    self.output.push_str(if flags == "(?)" { "" } else { flags });
                    if flags.ends_with(':') {
                        self.enter();
                    }
                    return Ok(());
                }
                _ => return Err(format!("invalid or unsupported Perl syntax: `{}`", self.since(start))),
            }
        }
    }

    fn enter(&mut self) {
        self.groups.push(self.weight_max);
        self.weight_max = 1;
        self.has_operand = false;
    }

    fn escape(&mut self) -> Result<(), Refusal> {
        let start = self.rest;
        let second = start.chars().nth(1);
        let fixed = match second {
            Some('A') => "\\A",
            Some('z') => "\\z",
            Some('b') => "(?-u:\\b)",
            Some('B') => "(?-u:\\B)",
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            Some('s') => "[\\t\\n\\f\\r ]",
            Some('S') => "[^\\t\\n\\f\\r ]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some('Q') => {
                let quoted = start.get(2..).unwrap_or_default();
                let (content, bytes) = match quoted.split_once("\\E") {
                    Some((content, _)) => (content, content.len().saturating_add(4)),
                    None => (quoted, start.len()),
                };
                self.advance(bytes);
                for character in content.chars() {
                    self.push_character(character);
                    self.operand(1);
                }
                return Ok(());
            }
            Some('p' | 'P') => {
                let class = self.unicode_class()?;
                self.output.push_str(&class);
                self.operand(1);
                return Ok(());
            }
            _ => {
                let character = self.escaped_character()?;
                self.push_character(character);
                self.operand(1);
                return Ok(());
            }
        };
        self.advance(2);
        self.output.push_str(fixed);
        self.operand(1);
        Ok(())
    }

    /// `\pN`, `\p{Greek}`, `\P..`, `\p{^..}`
    fn unicode_class(&mut self) -> Result<String, Refusal> {
        let start = self.rest;
        let is_upper = start.starts_with("\\P");
        self.advance(2);
        let name = match self.rest.strip_prefix('{') {
            Some(braced) => match braced.split_once('}') {
                Some((name, _)) => {
                    self.advance(name.len().saturating_add(2));
                    name
                }
                None => return Err(format!("invalid character class range: `{start}`")),
            },
            None => {
                let bytes = self.rest.chars().next().map_or(0, char::len_utf8);
                let name = self.rest.get(..bytes).unwrap_or_default();
                self.advance(bytes);
                name
            }
        };
        let plain = name.strip_prefix('^');
        let is_negated = is_upper != plain.is_some();
        let name = plain.unwrap_or(name);
        let class = format!("\\{}{{{name}}}", if is_negated { 'P' } else { 'p' });
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || regex::Regex::new(&class).is_err() {
            return Err(format!("invalid character class range: `{}`", self.since(start)));
        }
        Ok(class)
    }

    /// An escape that stands for one character.
    fn escaped_character(&mut self) -> Result<char, Refusal> {
        let start = self.rest;
        self.advance(1);
        let Some(first) = self.rest.chars().next() else {
            return Err("trailing backslash at end of expression: ``".to_owned());
        };
        self.advance(first.len_utf8());
        let found = match first {
            'a' => Some('\u{7}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            'x' => self.hexadecimal(),
            '0' => self.octal(0, 2),
            // One digit would be a reference to a group, which needs backtracking.
            '1'..='7' if self.rest.starts_with(|next: char| ('0'..='7').contains(&next)) => {
                self.octal(first.to_digit(8).unwrap_or(0), 2)
            }
            punctuation if punctuation.is_ascii() && !punctuation.is_ascii_alphanumeric() => Some(punctuation),
            _ => None,
        };
        found.ok_or_else(|| format!("invalid escape sequence: `{}`", self.since(start)))
    }

    fn octal(&mut self, first: u32, digits_max: usize) -> Option<char> {
        let mut value = first;
        for _ in 0..digits_max {
            let Some(digit) = self.rest.chars().next().and_then(|next| next.to_digit(8)) else { break };
            self.advance(1);
            value = value.saturating_mul(8).saturating_add(digit);
        }
        char::from_u32(value)
    }

    /// `\x7F`, `\x{10FFFF}`
    fn hexadecimal(&mut self) -> Option<char> {
        let is_braced = self.rest.starts_with('{');
        let mut value = 0_u32;
        if !is_braced {
            for _ in 0..2 {
                let next = self.rest.chars().next()?;
                self.advance(next.len_utf8());
                value = value.saturating_mul(16).saturating_add(next.to_digit(16)?);
            }
            return char::from_u32(value);
        }
        self.advance(1);
        let mut digits = 0_usize;
        loop {
            let next = self.rest.chars().next()?;
            if next == '}' && digits > 0 {
                self.advance(1);
                return char::from_u32(value);
            }
            self.advance(next.len_utf8());
            value = value.saturating_mul(16).saturating_add(next.to_digit(16)?);
            if value > u32::from(char::MAX) {
                return None;
            }
            digits = digits.saturating_add(1);
        }
    }

    fn class(&mut self) -> Result<(), Refusal> {
        let start = self.rest;
        let unclosed = || format!("missing closing ]: `{start}`");
        self.advance(1);
        self.output.push('[');
        if self.rest.starts_with('^') {
            self.advance(1);
            self.output.push('^');
        }
        let mut is_first = true;
        loop {
            if self.rest.starts_with(']') && !is_first {
                self.advance(1);
                self.output.push(']');
                self.operand(1);
                return Ok(());
            }
            is_first = false;
            if self.rest.is_empty() {
                return Err(unclosed());
            }
            if self.named_class()? || self.class_escape()? {
                continue;
            }
            let range = self.rest;
            let low = self.class_character().ok_or_else(unclosed)??;
            self.push_character(low);
            let mut after = self.rest.chars();
            if after.next() == Some('-') && after.next().is_some_and(|next| next != ']') {
                self.advance(1);
                let high = self.class_character().ok_or_else(unclosed)??;
                if high < low {
                    return Err(format!("invalid character class range: `{}`", self.since(range)));
                }
                self.output.push('-');
                self.push_character(high);
            }
        }
    }

    /// `None` at the end of the pattern.
    fn class_character(&mut self) -> Option<Result<char, Refusal>> {
        let first = self.rest.chars().next()?;
        if first == '\\' {
            return Some(self.escaped_character());
        }
        self.advance(first.len_utf8());
        Some(Ok(first))
    }

    /// `[:alpha:]`
    fn named_class(&mut self) -> Result<bool, Refusal> {
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
            "word", "xdigit",
        ];
        let Some((name, _)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) else {
            return Ok(false);
        };
        let bytes = name.len().saturating_add("[::]".len());
        let text = self.rest.get(..bytes).unwrap_or(self.rest);
        if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("invalid character class range: `{text}`"));
        }
        self.output.push_str(text);
        self.advance(bytes);
        Ok(true)
    }

    /// The escapes in a class that stand for several characters.
    fn class_escape(&mut self) -> Result<bool, Refusal> {
        let fixed = match self.rest.strip_prefix('\\').and_then(|rest| rest.chars().next()) {
            Some('d') => "0-9",
            Some('D') => "[^0-9]",
            Some('s') => "\\t\\n\\f\\r ",
            Some('S') => "[^\\t\\n\\f\\r ]",
            Some('w') => "0-9A-Za-z_",
            Some('W') => "[^0-9A-Za-z_]",
            Some('p' | 'P') => {
                let class = self.unicode_class()?;
                self.output.push_str(&class);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.advance(2);
        self.output.push_str(fixed);
        Ok(true)
    }
}

/// `{n}`, `{n,}` or `{n,m}`: the counts and the length of the text. Anything else in braces is literal.
fn counts(text: &str) -> Option<(u32, Option<u32>, usize)> {
    let (inner, _) = text.strip_prefix('{')?.split_once('}')?;
    let length = inner.len().saturating_add(2);
    let (minimum, maximum) = match inner.split_once(',') {
        None => {
            let count = count(inner)?;
            (count, Some(count))
        }
        Some((minimum, "")) => (count(minimum)?, None),
        Some((minimum, maximum)) => (count(minimum)?, Some(count(maximum)?)),
    };
    Some((minimum, maximum, length))
}

/// Digits without a leading zero; a number that is too large for 32 bits is as bad as the largest.
fn count(digits: &str) -> Option<u32> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
    (is_number && !has_leading_zero).then(|| digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regex_literal::RegexLiteral;
    use proptest::prelude::*;

    /// Observed from upstream.
    #[test]
    fn refusals() {
        for (pattern, text) in [
            ("(", "missing closing ): `(`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a???", "invalid nested repetition operator: `???`"),
            ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("(|*)", "missing argument to repetition operator: `*`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("(((a{100}){100}){100})", "invalid repeat count: `{100}`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("[]", "missing closing ]: `[]`"),
            ("x[a-", "missing closing ]: `[a-`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("(?<n>a)", "invalid or unsupported Perl syntax: `(?<`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
            ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
            ("(?P<n!>a)", "invalid named capture: `(?P<n!>`"),
            ("\\8", "invalid escape sequence: `\\8`"),
            ("\\1", "invalid escape sequence: `\\1`"),
            ("\\q", "invalid escape sequence: `\\q`"),
            ("[\\Q]", "invalid escape sequence: `\\Q`"),
            ("[a-\\d]", "invalid escape sequence: `\\d`"),
            ("\\pX", "invalid character class range: `\\pX`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
            ("\\x{110000}", "invalid escape sequence: `\\x{110000`"),
            ("\\xg", "invalid escape sequence: `\\xg`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ] {
            assert_eq!(translate(pattern).unwrap_err(), text, "{pattern}");
        }
    }

    #[test]
    fn what_matches() {
        for (pattern, hits, misses) in [
            ("", vec!["", "a"], vec![]),
            ("b", vec!["abc"], vec!["ac"]),
            ("^cpu[0-9]+$", vec!["cpu0", "cpu12"], vec!["cpu", "xcpu1", "cpu1x"]),
            ("a{,2}{x", vec!["a{,2}{x"], vec!["aa"]),
            ("[[a]&&b]", vec!["a&&b]", "[&&b]"], vec!["b"]),
            ("[]a]", vec!["]", "a"], vec!["b"]),
            ("[^]a]", vec!["b"], vec!["]", "a"]),
            ("\\Qa*\\E+", vec!["a*", "a**"], vec!["aaa"]),
            ("(?i)ABC", vec!["abc"], vec!["abd"]),
            ("(?i:A)b", vec!["ab"], vec!["aB"]),
            ("^\\d$", vec!["7"], vec!["٣"]),
            ("^[\\w-]+$", vec!["a-b_1"], vec!["é"]),
            ("[\\D]", vec!["a"], vec!["1"]),
            ("a??b*?c+?", vec!["c"], vec!["ab"]),
            ("(|a)*|", vec![""], vec![]),
            ("^*x", vec!["x"], vec!["y"]),
            ("(?P<n>a)(?P<n>b)", vec!["ab"], vec!["a"]),
            ("\\x{e9}|\\x41", vec!["é", "A"], vec!["e"]),
            ("\\101", vec!["A"], vec!["101"]),
            ("\\p{Greek}", vec!["λ"], vec!["l"]),
            ("^(server0[1-3]|web)\\.example$", vec!["server02.example", "web.example"], vec!["webxexample"]),
            ("\\bcpu\\b", vec!["a cpu b"], vec!["acpub"]),
            ("[a\\]b\\-c]+$", vec!["]-"], vec!["d"]),
            ("[[:alpha:]_]", vec!["x", "_"], vec!["1"]),
            ("(?s).", vec!["\n"], vec![""]),
            (".", vec!["a"], vec!["\n"]),
        ] {
            let regex = RegexLiteral::new(pattern).unwrap();
            for hit in hits {
                assert!(regex.is_match(hit.as_bytes()), "{pattern} {hit}");
            }
            for miss in misses {
                assert!(!regex.is_match(miss.as_bytes()), "{pattern} {miss}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_pattern_is_compiled_or_refused(pattern in "[a-c(){}\\[\\]|*+?^$.0-9,\\\\:<>PQEpxi&~-]{0,16}") {
            let _ = RegexLiteral::new(&pattern);
        }

        /// A literal text matches itself, whatever characters it has.
        #[test]
        fn quoted_texts_match_themselves(text in "[^\\\\]{0,12}") {
            let regex = RegexLiteral::new(&format!("\\Q{text}\\E")).unwrap();
            prop_assert!(regex.is_match(text.as_bytes()));
        }
    }
}
