//! Parts of queries over partitions that other nodes hold.
//!
//! ```text
//! core with the links                          core of a holder
//! Order (what, of which partitions) ──────────> reads as far as its leader is (I3), then
//! pieces <── outputs, findings, runs, texts ── does what a core of this node would do
//! ```
//!
//! Owns: the questions and answers as bytes, who is asked, and what is done for whoever asks. A plan travels as the text
//! of its statement with what was known of the sources: planning is pure, so the same plan comes out of it there.
//! Invariants: whatever a holder answers shows all that was acknowledged before it was asked; the next holder is asked
//! only if nothing of an answer was used; an answer that breaks off is an error (I9).
//! Knows nothing of merges, and of who leads a group.

mod ask;
mod order;
mod piece;
mod serve;

pub(crate) use ask::{ask, texts};
pub(super) use ask::{cost, list, scan};
pub(super) use order::Recipe;
pub(crate) use serve::serve;
