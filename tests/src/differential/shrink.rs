//! Makes a difference small: leaves out points, deletes and parts of the statement as long as the servers still differ.

use super::{Asked, Change, Pair};
use crate::random_statements::World;
use anyhow::Result;

/// Databases that shrinking one fault may make.
const TRIALS_MAX: u32 = 400;

/// What is left, as text.
pub(super) fn shrink(pair: &mut Pair, asked: &Asked, world: World, changes: &[Change]) -> Result<String> {
    let (asked_before, full, exceptions) = (pair.asked, pair.full, pair.exceptions.clone());
    let mut trials = 0;
    let mut differs = |pair: &mut Pair, asked: &Asked, changes: &[Change]| -> Result<Option<String>> {
        trials += 1;
        if trials > TRIALS_MAX {
            return Ok(None);
        }
        let database = pair.database(changes)?;
        let is_deleted_from = changes.iter().any(|change| matches!(change, Change::Statement(_)));
        let difference = pair.difference(asked, world, &database, is_deleted_from)?;
        pair.drop_database(&database)?;
        Ok(difference)
    };
    let (mut asked, mut changes, mut last) = (asked.clone(), changes.to_vec(), None);
    loop {
        let before = (asked.clone(), changes.len());
        let mut candidates = asked.simpler();
        while let Some(simpler) = candidates.pop() {
            if let Some(difference) = differs(pair, &simpler, &changes)? {
                (asked, last) = (simpler, Some(difference));
                candidates = asked.simpler();
            }
        }
        let mut size = changes.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < changes.len() {
                let mut fewer = changes.clone();
                fewer.drain(at..(at + size).min(changes.len()));
                match differs(pair, &asked, &fewer)? {
                    Some(difference) => (changes, last) = (fewer, Some(difference)),
                    None => at += size,
                }
            }
            size /= 2;
        }
        if before == (asked.clone(), changes.len()) {
            break;
        }
    }
    (pair.asked, pair.full, pair.exceptions) = (asked_before, full, exceptions);
    let changes = changes.iter().map(|change| match change {
        Change::Line(text) | Change::Statement(text) => format!("    {text}\n"),
    });
    Ok(format!(
        "{}\n    {}\n    {}",
        changes.collect::<String>().trim_end(),
        asked.text(),
        last.unwrap_or_else(|| "did not come again in a database of its own".into())
    ))
}
