//! What recovery finds, and what it does about it.
//!
//! | finding | decision | why |
//! |---|---|---|
//! | clean end | continue | nothing of this segment's generation follows the last valid commit |
//! | torn tail | cut | the last commit is incomplete and nothing valid follows it in the whole log: it was in flight, its sync never returned |
//! | damage inside | refuse | a valid commit lies behind the bad one: good entries would be lost by a cut |
//! | broken chain | refuse | a whole commit, but not the successor of the one before: a write was lost or went astray |
//! | bad frame | refuse | a frame that does not decode in a commit whose checksum is right: written by a newer version, or by a defect |
//! | index gap | refuse | entries between two others (or between the files and the log) are missing |
//! | term went back | refuse | raft never writes that |
//! | missing segment | refuse | the newest commit says that it is needed, a sealed segment announces it, or its neighbours exist |
//! | damaged header | refuse | a header is durable before the segment gets its name, so this is rot |
//! | damaged header of an unused segment | reuse | nothing was ever committed into it: the one before is not sealed, and no commit of its sequence is in it |
//! | foreign log | refuse | the file belongs to another log |
//! | unknown version | refuse | written by a newer version |
//! | misnamed segment | refuse | name and header disagree |
//! | short segment | refuse | the file is shorter than its header says; the length is durable before the name |
//! | prepared segment | continue | behind the end, without commits: it is the next one |
//! | released segment | reuse | older than the oldest one that the newest commit needs: the crash came before its renaming |
//! | spare file | reuse | its content does not matter |
//! | unfinished file | remove | a segment in the making |

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    CleanEnd,
    TornTail,
    DamageInside,
    BrokenChain,
    BadFrame,
    IndexGap,
    TermWentBack,
    MissingSegment,
    DamagedHeader,
    DamagedUnusedHeader,
    ForeignLog,
    UnknownVersion,
    MisnamedSegment,
    ShortSegment,
    PreparedSegment,
    ReleasedSegment,
    SpareFile,
    UnfinishedFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Use it as it is.
    Continue,
    /// Go on before it; its blocks are overwritten.
    Cut,
    /// Do not open.
    Refuse,
    /// Take the file for another segment.
    Reuse,
    Remove,
}

/// The table of the module documentation, as data.
pub const DECISIONS: [(Finding, &str, Decision); 18] = [
    (Finding::CleanEnd, "clean end", Decision::Continue),
    (Finding::TornTail, "torn tail", Decision::Cut),
    (Finding::DamageInside, "damage inside", Decision::Refuse),
    (Finding::BrokenChain, "broken chain", Decision::Refuse),
    (Finding::BadFrame, "bad frame", Decision::Refuse),
    (Finding::IndexGap, "index gap", Decision::Refuse),
    (Finding::TermWentBack, "term went back", Decision::Refuse),
    (Finding::MissingSegment, "missing segment", Decision::Refuse),
    (Finding::DamagedHeader, "damaged header", Decision::Refuse),
    (Finding::DamagedUnusedHeader, "damaged header of an unused segment", Decision::Reuse),
    (Finding::ForeignLog, "foreign log", Decision::Refuse),
    (Finding::UnknownVersion, "unknown version", Decision::Refuse),
    (Finding::MisnamedSegment, "misnamed segment", Decision::Refuse),
    (Finding::ShortSegment, "short segment", Decision::Refuse),
    (Finding::PreparedSegment, "prepared segment", Decision::Continue),
    (Finding::ReleasedSegment, "released segment", Decision::Reuse),
    (Finding::SpareFile, "spare file", Decision::Reuse),
    (Finding::UnfinishedFile, "unfinished file", Decision::Remove),
];

impl Finding {
    fn row(self) -> (&'static str, Decision) {
        // The table is in the order of the enum; a test holds it to that.
        let (_, name, decision) = DECISIONS[self as usize];
        (name, decision)
    }

    pub fn decision(self) -> Decision {
        self.row().1
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_as_documented() {
        let documented: Vec<&str> =
            include_str!("decision.rs").lines().filter(|line| line.starts_with("//! | ")).skip(1).collect();
        assert_eq!(documented.len(), DECISIONS.len());
        for (at, (finding, name, decision)) in DECISIONS.iter().enumerate() {
            assert_eq!(*finding as usize, at);
            let row = format!("//! | {name} | {} |", format!("{decision:?}").to_lowercase());
            assert!(documented[at].starts_with(&row), "{row}");
        }
    }
}
