//! What a client has seen, in a text that it gives back: up to which index, of each group.
//!
//! `1` and then `-group.index` for each group, in hexadecimal digits, by group. Any other text is refused.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use std::{collections::BTreeMap, fmt, str::FromStr};
use tidemill_raft::{GroupId, LogIndex};

/// Groups of a token at most: as many as there can be partitions, and the metadata.
const GROUPS_MAX: usize = 4097;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionToken(BTreeMap<GroupId, LogIndex>);

/// The token of a session that has seen what these tokens stand for; those that are none are left out. None: none.
pub fn joined_sessions(tokens: &[&str]) -> Option<String> {
    let mut joined: Option<SessionToken> = None;
    for token in tokens.iter().filter_map(|token| token.parse().ok()) {
        joined.get_or_insert_default().join(token);
    }
    joined.map(|token| token.to_string())
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no session token of this server's")]
pub struct NoToken;

impl SessionToken {
    pub fn index_of(&self, group: GroupId) -> Option<LogIndex> {
        self.0.get(&group).copied()
    }

    /// The session has seen a group up to here.
    pub fn raise(&mut self, group: GroupId, index: LogIndex) {
        let known = self.0.entry(group).or_default();
        *known = index.max(*known);
    }

    /// The session has seen nothing of a group.
    pub fn forget(&mut self, group: GroupId) {
        self.0.remove(&group);
    }

    /// The session has also seen what the other one has.
    pub fn join(&mut self, other: SessionToken) {
        other.0.into_iter().for_each(|(group, index)| self.raise(group, index));
    }
}

impl fmt::Display for SessionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("1")?;
        self.0.iter().try_for_each(|(group, index)| write!(formatter, "-{:x}.{:x}", group.0, index.0))
    }
}

impl FromStr for SessionToken {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<SessionToken, NoToken> {
        let mut parts = text.split('-');
        if parts.next() != Some("1") {
            return Err(NoToken);
        }
        let mut token = SessionToken::default();
        for part in parts {
            let (group, index) = part.split_once('.').ok_or(NoToken)?;
            let group = u32::from_str_radix(group, 16).map_err(|_| NoToken)?;
            let index = u64::from_str_radix(index, 16).map_err(|_| NoToken)?;
            token.raise(GroupId(group), LogIndex(index));
            if token.0.len() > GROUPS_MAX {
                return Err(NoToken);
            }
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tokens_come_back(groups in prop::collection::btree_map(any::<u32>(), any::<u64>(), 0..20)) {
            let token = SessionToken(groups.into_iter().map(|(group, index)| (GroupId(group), LogIndex(index))).collect());
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn any_text_is_refused_or_read(text in "[0-9a-f.-]{0,40}|.{0,40}") {
            let _ = text.parse::<SessionToken>();
        }
    }

    #[test]
    fn what_is_joined_is_the_newest_of_each() {
        let mut token: SessionToken = "1-0.5-a.7".parse().unwrap();
        token.join("1-0.4-a.9-b.1".parse().unwrap());
        assert_eq!(token.to_string(), "1-0.5-a.9-b.1");
        assert_eq!("".parse::<SessionToken>(), Err(NoToken));
        assert_eq!("2-0.5".parse::<SessionToken>(), Err(NoToken));
    }
}
