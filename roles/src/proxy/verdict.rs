//! What nodes answer to the parts of a write, and the one answer that a data node would give for all of it.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use crate::data::claimed;
use tidemill_line::{Batch, CLAIM_GROUPS_MAX, ParseOptions};

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is stored; the session token, if one was asked for.
    Stored { session: Option<String> },
    /// The node's word, with its status and text. 500: nobody knows.
    Told { status: u16, text: String },
}

/// What a node's answer says to the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claiming {
    /// Nothing was done: the claim must name these shard groups.
    Groups(Vec<u64>),
    /// Nothing was done: the partition remembers no session up to this one.
    Forgotten(u64),
}

/// The text of an error document; of other bytes, as much as can be read.
pub fn error_text(body: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = parsed.as_ref().and_then(|document| document.get("error")).and_then(serde_json::Value::as_str);
    error.map_or_else(|| String::from_utf8_lossy(body.get(..1024).unwrap_or(body)).trim().to_owned(), str::to_owned)
}

/// What a refusal asks of the proxy; `None`: it is for the client.
pub fn claiming(status: u16, text: &str) -> Option<Claiming> {
    if status != claimed::STATUS {
        return None;
    }
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    if let Some(through) = text.strip_prefix(claimed::FORGOTTEN) {
        return number(through).map(Claiming::Forgotten);
    }
    let list: Option<Vec<u64>> = text.strip_prefix(claimed::GROUPS)?.split(',').map(number).collect();
    let groups = list.filter(|list| list.len() <= CLAIM_GROUPS_MAX && list.is_sorted_by(|a, b| a < b))?;
    Some(Claiming::Groups(groups))
}

/// How bad an answer is: what nobody knows is worse than what was refused, and that than what is stored in part.
fn rank(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Stored { .. } => 0,
        Verdict::Told { status: 400, .. } => 1,
        Verdict::Told { status: 500, .. } => 3,
        Verdict::Told { .. } => 2,
    }
}

/// The answer to the whole, of the answers to its parts in their order.
pub fn joined(verdicts: Vec<Verdict>, body: &[u8], options: &ParseOptions, unsigned: bool) -> Verdict {
    let worst = verdicts.iter().map(rank).max().unwrap_or(0);
    match worst {
        0 => {
            let sessions: Vec<&str> = verdicts
                .iter()
                .filter_map(|verdict| match verdict {
                    Verdict::Stored { session } => session.as_deref(),
                    Verdict::Told { .. } => None,
                })
                .collect();
            Verdict::Stored { session: crate::data::joined_sessions(&sessions) }
        }
        1 => {
            let texts = verdicts.iter().filter_map(|verdict| match verdict {
                Verdict::Told { text, .. } => Some(text.as_str()),
                Verdict::Stored { .. } => None,
            });
            let texts: Vec<&str> = texts.collect();
            let text = match (&texts[..], verdicts.len()) {
                ([text], 1) => (*text).to_owned(),
                _ => joined_text(&texts, body, options, unsigned),
            };
            Verdict::Told { status: 400, text }
        }
        worst => {
            verdicts.into_iter().find(|verdict| rank(verdict) == worst).unwrap_or(Verdict::Stored { session: None })
        }
    }
}

const PARTIAL: &str = "partial write: ";
const UNPARSED: &str = "unable to parse ";
const RETIRED: &str = "points beyond retention policy";

/// What a data node would say of a body of whose parts these texts were said.
fn joined_text(texts: &[&str], body: &[u8], options: &ParseOptions, unsigned: bool) -> String {
    let rest = |text: &str| text.strip_prefix(PARTIAL).map(str::to_owned);
    let counted = |text: &str| -> Option<(String, u64)> {
        let rest = rest(text)?;
        let (why, dropped) = rest.rsplit_once(" dropped=")?;
        Some((why.to_owned(), dropped.parse().ok()?))
    };
    let is_unparsed = |text: &str| rest(text).unwrap_or(text.to_owned()).starts_with(UNPARSED);
    let others = || texts.iter().copied().filter(|text| !is_unparsed(text));
    // A shard's whole share, then single points that a shard refuses, then those beyond retention, then lines.
    if let Some(whole) = others().find(|text| counted(text).is_none()) {
        return whole.to_owned();
    }
    let sum = |is_retired: bool| {
        let mut found = others().filter_map(counted).filter(|(why, _)| (why == RETIRED) == is_retired);
        let (why, first) = found.next()?;
        let dropped = found.fold(first, |sum, (_, dropped)| sum.saturating_add(dropped));
        Some(format!("{PARTIAL}{why} dropped={dropped}"))
    };
    if let Some(text) = sum(false).or_else(|| sum(true)) {
        return text;
    }
    // Lines are named in the order of the body, which only the body tells.
    let mut batch = Batch::new(0);
    batch.take_unsigned(unsigned);
    let parsed =
        batch.parse(body, options).ok().and_then(|parsed| Some((parsed.error_text()?, parsed.rows().is_empty())));
    match parsed {
        Some((text, true)) => text,
        Some((text, false)) => format!("{PARTIAL}{text} dropped=0"),
        None => texts.first().copied().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_line::Precision;

    const OPTIONS: ParseOptions = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };

    fn told(status: u16, text: &str) -> Verdict {
        Verdict::Told { status, text: text.into() }
    }

    fn stored() -> Verdict {
        Verdict::Stored { session: None }
    }

    fn of(verdicts: Vec<Verdict>) -> Verdict {
        joined(verdicts, b"m v=1\nbad\nm v=2\nworse\n", &OPTIONS, false)
    }

    #[test]
    fn the_worst_answer_is_the_answer() {
        let unknown = told(500, "nobody knows");
        assert_eq!(of(vec![told(503, "busy"), unknown.clone(), told(400, "x")]), unknown);
        assert_eq!(of(vec![stored(), told(400, "x"), told(507, "disk full")]), told(507, "disk full"));
        assert_eq!(of(vec![stored(), stored()]), stored());
    }

    #[test]
    fn points_left_out_are_added_up() {
        let retired = "partial write: points beyond retention policy dropped=";
        let conflict = "partial write: field type conflict: input field \"v\" dropped=";
        let text = |one: &str, two: &str| of(vec![told(400, one), stored(), told(400, two)]);
        assert_eq!(text(&format!("{retired}2"), &format!("{retired}3")), told(400, &format!("{retired}5")));
        assert_eq!(text(&format!("{retired}2"), &format!("{conflict}3")), told(400, &format!("{conflict}3")));
        assert_eq!(text(&format!("{conflict}1"), &format!("{conflict}3")), told(400, &format!("{conflict}4")));
        assert_eq!(text("unable to parse 'bad': x", &format!("{retired}1")), told(400, &format!("{retired}1")));
    }

    #[test]
    fn lines_are_named_in_the_order_of_the_body() {
        let bad = told(400, "unable to parse 'worse': missing fields");
        let Verdict::Told { text, .. } = of(vec![bad.clone(), stored()]) else { panic!("no text") };
        assert!(
            text.starts_with("partial write: unable to parse 'bad': missing fields\nunable to parse 'worse'"),
            "{text}"
        );
        assert!(text.ends_with(" dropped=0"), "{text}");
        let alone = joined(vec![bad.clone(), bad], b"bad\nworse", &OPTIONS, false);
        assert!(matches!(&alone, Verdict::Told { text, .. } if text.starts_with("unable to parse 'bad'")), "{alone:?}");
    }

    #[test]
    fn what_is_for_the_proxy_is_understood() {
        assert_eq!(claiming(409, "claim needs shard groups 3,1f"), Some(Claiming::Groups(vec![3, 31])));
        assert_eq!(claiming(409, "claim is of a session before ff"), Some(Claiming::Forgotten(255)));
        for text in ["claim needs shard groups ", "claim needs shard groups 4,3", "claim is of a session before x", ""]
        {
            assert_eq!(claiming(409, text), None, "{text}");
        }
        assert_eq!(claiming(400, "claim needs shard groups 3"), None);
        assert_eq!(error_text(b"{\"error\":\"x\"}\n"), "x");
        assert_eq!(error_text(b"\xff<html>"), "\u{fffd}<html>");
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(body in prop::collection::vec(any::<u8>(), 0..60), texts in prop::collection::vec(".{0,20}|partial write: .{0,9} dropped=[0-9]{0,22}", 0..4)) {
            error_text(&body);
            let verdicts = texts.iter().map(|text| { claiming(409, text); told(400, text) }).collect();
            joined(verdicts, &body, &OPTIONS, false);
        }
    }
}
