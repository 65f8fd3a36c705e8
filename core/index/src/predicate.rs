//! Conditions on tags.

/// A condition on tags, as the index evaluates it. A series that lacks a tag has the empty value.
#[derive(Clone, Debug)]
pub enum TagPredicate {
    All,
    And(Vec<TagPredicate>),
    Or(Vec<TagPredicate>),
    Equal { key: Box<[u8]>, value: Box<[u8]> },
    NotEqual { key: Box<[u8]>, value: Box<[u8]> },
    Matches { key: Box<[u8]>, regex: regex::bytes::Regex },
    NotMatches { key: Box<[u8]>, regex: regex::bytes::Regex },
}
