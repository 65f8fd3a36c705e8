//! `/debug/requests`: who writes and queries, counted for a while.
//!
//! Owns: counts by caller of one core, kept only while anybody asks.
//! Invariant: a core holds at most [`CALLERS_MAX`] callers; those beyond are counted together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Callers of one core that are told apart.
const CALLERS_MAX: usize = 10_000;
/// Those beyond.
const OTHERS: &str = "others";

const SECONDS_DEFAULT: u64 = 10;
const SECONDS_MAX: u64 = 6 * 3600;

/// Requests for a census that are being answered, on any core.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Writes and queries by caller.
pub type Callers = BTreeMap<String, (u64, u64)>;

/// The counts of one core.
#[derive(Debug, Default)]
pub(crate) struct Census(RefCell<Callers>);

/// Keeps the census going.
pub(crate) struct Open(());

impl Open {
    pub(crate) fn new() -> Open {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Open(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Census {
    /// Whether requests are to be counted.
    pub(crate) fn is_open() -> bool {
        OPEN.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn count(&self, user: Option<&str>, peer: Option<IpAddr>, is_write: bool) {
        let peer = peer.map_or_else(String::new, |peer| peer.to_string());
        let key = user.map_or_else(|| peer.clone(), |user| format!("{user}:{peer}"));
        let mut callers = self.0.borrow_mut();
        let has_room = callers.len() < CALLERS_MAX || callers.contains_key(&key);
        let counts = callers.entry(if has_room { key } else { OTHERS.to_owned() }).or_default();
        if is_write {
            counts.0 += 1;
        } else {
            counts.1 += 1;
        }
    }

    /// What was counted, also before the census was asked for. Nothing is kept while nobody asks.
    pub(crate) fn callers(&self) -> Callers {
        if !Census::is_open() {
            self.0.borrow_mut().clear();
        }
        self.0.borrow().clone()
    }
}

/// How long to count.
///
/// # Errors
/// The text for the client.
pub(crate) fn duration(seconds: &str) -> Result<Duration, String> {
    let seconds = match seconds {
        "" => SECONDS_DEFAULT,
        text => text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?,
    };
    if seconds > SECONDS_MAX {
        return Err(format!("exceeded maximum interval time: {seconds}s > 6h"));
    }
    Ok(Duration::from_secs(seconds))
}

/// The answer: what came between two counts.
pub(crate) fn text(before: &Callers, after: &Callers) -> String {
    let mut shown = serde_json::Map::new();
    for (caller, (writes, queries)) in after {
        let (old_writes, old_queries) = before.get(caller).copied().unwrap_or_default();
        let (writes, queries) = (writes.saturating_sub(old_writes), queries.saturating_sub(old_queries));
        if writes + queries > 0 {
            shown.insert(caller.clone(), serde_json::json!({ "writes": writes, "queries": queries }));
        }
    }
    serde_json::Value::Object(shown).to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_between_two_looks() {
        let census = Census::default();
        let peer = Some("127.0.0.1".parse().unwrap());
        let open = Open::new();
        census.count(None, peer, true);
        let before = census.callers();
        census.count(Some("u"), peer, false);
        census.count(None, peer, true);
        assert_eq!(
            text(&before, &census.callers()),
            "{\"127.0.0.1\":{\"queries\":0,\"writes\":1},\"u:127.0.0.1\":{\"queries\":1,\"writes\":0}}\n"
        );
        drop(open);
    }

    #[test]
    fn durations_have_upstreams_errors() {
        assert_eq!(duration("").unwrap().as_secs(), 10);
        assert_eq!(duration("99999").unwrap_err(), "exceeded maximum interval time: 99999s > 6h");
        assert_eq!(duration("x").unwrap_err(), "strconv.ParseInt: parsing \"x\": invalid syntax");
    }

    #[test]
    fn callers_beyond_the_limit_are_counted_together() {
        let census = Census::default();
        let _open = Open::new();
        (0..CALLERS_MAX + 5).for_each(|number| census.count(Some(&number.to_string()), None, true));
        let callers = census.callers();
        assert_eq!((callers.len(), callers[OTHERS].0), (CALLERS_MAX + 1, 5));
    }
}
