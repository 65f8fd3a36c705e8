//! Continuous queries: their text, and how far each of them has come.
//!
//! Invariant: the time of the last run only moves forward, and belongs to one query: a query that was dropped and made
//! again under its name has not run yet.

use crate::{Applied, ContinuousQueryId, Meta, MetaError};
use rkyv::{Archive, Deserialize, Serialize};

/// A continuous query of a database.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ContinuousQuery {
    pub id: ContinuousQueryId,
    pub name: String,
    /// The normalised CREATE statement, with databases and policies written out.
    pub text: String,
    /// The scheduled time of the last run that succeeded, ns; `None` before the first.
    pub last_run_ns: Option<i64>,
}

impl Meta {
    pub(crate) fn create_continuous_query(
        &mut self,
        database: String,
        name: String,
        text: String,
    ) -> Result<Applied, MetaError> {
        let id = ContinuousQueryId(self.continuous_queries_made + 1);
        let known = self.databases.iter_mut().find(|known| known.name == database);
        let known = known.ok_or(MetaError::DatabaseNotFound(database))?;
        if let Some(existing) = known.continuous_queries.iter().find(|query| query.name == name) {
            let is_same = existing.text.to_lowercase() == text.to_lowercase();
            return if is_same { Ok(Applied::default()) } else { Err(MetaError::ContinuousQueryExists) };
        }
        known.continuous_queries.push(ContinuousQuery { id, name, text, last_run_ns: None });
        self.continuous_queries_made = id.0;
        Ok(Applied::default())
    }

    pub(crate) fn drop_continuous_query(&mut self, database: &str, name: &str) -> Applied {
        if let Some(known) = self.databases.iter_mut().find(|known| known.name == database) {
            known.continuous_queries.retain(|query| query.name != name);
        }
        Applied::default()
    }

    pub(crate) fn note_run(&mut self, id: ContinuousQueryId, ran_ns: i64) -> Applied {
        let mut queries = self.databases.iter_mut().flat_map(|database| &mut database.continuous_queries);
        if let Some(query) = queries.find(|query| query.id == id) {
            query.last_run_ns = query.last_run_ns.max(Some(ran_ns));
        }
        Applied::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn meta() -> Meta {
        let mut meta = Meta::default();
        meta.apply(Command::CreateDatabase { name: "d".into(), policy: None, autocreate_policy: true }).unwrap();
        meta
    }

    fn create(meta: &mut Meta, name: &str, text: &str) -> Result<Applied, MetaError> {
        meta.apply(Command::CreateContinuousQuery { database: "d".into(), name: name.into(), text: text.into() })
    }

    fn queries(meta: &Meta) -> &[ContinuousQuery] {
        &meta.databases()[0].continuous_queries
    }

    #[test]
    fn a_name_has_one_text_whatever_its_case() {
        let mut meta = meta();
        create(&mut meta, "a", "Text").unwrap();
        create(&mut meta, "a", "tEXT").unwrap();
        let error = create(&mut meta, "a", "other").unwrap_err();
        assert_eq!(error.to_string(), "continuous query already exists");
        assert_eq!((queries(&meta).len(), queries(&meta)[0].text.as_str()), (1, "Text"));
        let elsewhere = Command::CreateContinuousQuery { database: "x".into(), name: "a".into(), text: "t".into() };
        assert_eq!(meta.apply(elsewhere).unwrap_err().to_string(), "database not found: x");
    }

    #[test]
    fn runs_move_forward_and_do_not_pass_to_another_query_of_the_name() {
        let mut meta = meta();
        create(&mut meta, "a", "one").unwrap();
        let id = queries(&meta)[0].id;
        let ran = |meta: &mut Meta, id, ran_ns| {
            meta.apply(Command::NoteContinuousQueryRun { id, ran_ns }).unwrap();
            queries(meta)[0].last_run_ns
        };
        assert_eq!(ran(&mut meta, id, 5), Some(5));
        assert_eq!(ran(&mut meta, id, 3), Some(5));
        for database in ["nope", "d"] {
            let drop = Command::DropContinuousQuery { database: database.into(), name: "a".into() };
            meta.apply(drop).unwrap();
        }
        assert!(queries(&meta).is_empty());
        create(&mut meta, "a", "one").unwrap();
        assert_eq!(ran(&mut meta, id, 9), None);
        assert_ne!(queries(&meta)[0].id, id);
        assert_eq!(Meta::decode(&meta.encode()).unwrap(), meta);
    }
}
