//! Users and what they may do.
//!
//! Rules of reference: influxql, section 14. A password never comes here: only its salted hash does.

use crate::{Applied, Meta, MetaError};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// A salted hash of a password in its own text form, which names the algorithm and its cost. It stays out of logs.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PasswordHash(pub String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[REDACTED]")
    }
}

/// A user, in the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    pub password_hash: PasswordHash,
    /// An admin may do everything.
    pub is_admin: bool,
    /// By name of the database. A privilege that was revoked stays, as none.
    pub privileges: BTreeMap<String, DatabasePrivilege>,
}

/// What a user may do in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum DatabasePrivilege {
    None,
    Read,
    Write,
    All,
}

impl User {
    /// Whether what the user holds on a database is enough for `asked`; an admin's is.
    pub fn may(&self, asked: DatabasePrivilege, database: &str) -> bool {
        self.is_admin || self.privileges.get(database).is_some_and(|held| held.covers(asked))
    }
}

impl DatabasePrivilege {
    /// Whether holding this is enough for `asked`.
    pub fn covers(self, asked: DatabasePrivilege) -> bool {
        asked == DatabasePrivilege::None || self == DatabasePrivilege::All || self == asked
    }

    /// What is left after a REVOKE.
    fn without(self, revoked: DatabasePrivilege) -> DatabasePrivilege {
        match (self, revoked) {
            (DatabasePrivilege::All, DatabasePrivilege::Read) => DatabasePrivilege::Write,
            (DatabasePrivilege::All, DatabasePrivilege::Write) => DatabasePrivilege::Read,
            (_, DatabasePrivilege::All) => DatabasePrivilege::None,
            (held, revoked) if held == revoked => DatabasePrivilege::None,
            (held, _) => held,
        }
    }
}

impl Meta {
    /// In the order of creation.
    pub fn users(&self) -> &[User] {
        &self.users
    }

    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    pub fn has_admin(&self) -> bool {
        self.users.iter().any(|user| user.is_admin)
    }

    pub(crate) fn create_user(
        &mut self,
        name: String,
        password_hash: PasswordHash,
        is_admin: bool,
    ) -> Result<Applied, MetaError> {
        if name.is_empty() {
            return Err(MetaError::UsernameRequired);
        }
        if self.user(&name).is_some() {
            return Err(MetaError::UserExists);
        }
        self.users.push(User { name, password_hash, is_admin, privileges: BTreeMap::new() });
        Ok(Applied::default())
    }

    pub(crate) fn drop_user(&mut self, name: &str) -> Result<Applied, MetaError> {
        let position = self.users.iter().position(|user| user.name == name).ok_or(MetaError::UserNotFound)?;
        self.users.remove(position);
        Ok(Applied::default())
    }

    pub(crate) fn set_password(&mut self, name: &str, password_hash: PasswordHash) -> Result<Applied, MetaError> {
        self.user_mut(name)?.password_hash = password_hash;
        Ok(Applied::default())
    }

    pub(crate) fn set_admin(&mut self, name: &str, is_admin: bool) -> Result<Applied, MetaError> {
        self.user_mut(name)?.is_admin = is_admin;
        Ok(Applied::default())
    }

    /// The new privilege takes the place of the old one.
    pub(crate) fn grant(
        &mut self,
        name: &str,
        database: String,
        privilege: DatabasePrivilege,
    ) -> Result<Applied, MetaError> {
        self.user_mut(name)?;
        self.known_database(&database)?;
        self.user_mut(name)?.privileges.insert(database, privilege);
        Ok(Applied::default())
    }

    pub(crate) fn revoke(
        &mut self,
        name: &str,
        database: String,
        privilege: DatabasePrivilege,
    ) -> Result<Applied, MetaError> {
        self.user_mut(name)?;
        self.known_database(&database)?;
        let privileges = &mut self.user_mut(name)?.privileges;
        let held = privileges.get(&database).copied().unwrap_or(DatabasePrivilege::None);
        privileges.insert(database, held.without(privilege));
        Ok(Applied::default())
    }

    /// A database that is made anew under the name starts without grants.
    pub(crate) fn forget_privileges(&mut self, database: &str) {
        for user in &mut self.users {
            user.privileges.remove(database);
        }
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, MetaError> {
        self.users.iter_mut().find(|user| user.name == name).ok_or(MetaError::UserNotFound)
    }

    fn known_database(&self, name: &str) -> Result<(), MetaError> {
        self.database(name).map(|_| ()).ok_or_else(|| MetaError::DatabaseNotFound(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn with_user() -> Meta {
        let mut meta = Meta::default();
        meta.apply(Command::CreateDatabase { name: "d".into(), policy: None, autocreate_policy: true }).unwrap();
        meta.apply(create("u", false)).unwrap();
        meta
    }

    fn create(name: &str, is_admin: bool) -> Command {
        Command::CreateUser { name: name.into(), password_hash: PasswordHash("$h".into()), is_admin }
    }

    fn grant(user: &str, database: &str, privilege: DatabasePrivilege) -> Command {
        Command::Grant { user: user.into(), database: database.into(), privilege }
    }

    fn revoke(privilege: DatabasePrivilege) -> Command {
        Command::Revoke { user: "u".into(), database: "d".into(), privilege }
    }

    #[test]
    fn a_later_grant_replaces_the_earlier_and_revoke_leaves_the_rest() {
        use DatabasePrivilege::{All, None, Read, Write};
        let mut meta = with_user();
        for (granted, revoked, left) in [
            (Read, Write, Read),
            (Write, Write, None),
            (All, Read, Write),
            (All, Write, Read),
            (All, All, None),
            (Read, All, None),
        ] {
            meta.apply(grant("u", "d", Write)).unwrap();
            meta.apply(grant("u", "d", granted)).unwrap();
            meta.apply(revoke(revoked)).unwrap();
            assert_eq!(meta.user("u").unwrap().privileges["d"], left, "{granted:?} {revoked:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_named_and_the_user_is_looked_at_first() {
        let mut meta = with_user();
        assert_eq!(meta.apply(create("u", true)), Err(MetaError::UserExists));
        assert_eq!(meta.apply(create("", true)), Err(MetaError::UsernameRequired));
        assert_eq!(meta.apply(grant("x", "nope", DatabasePrivilege::All)), Err(MetaError::UserNotFound));
        let unknown = meta.apply(grant("u", "nope", DatabasePrivilege::All));
        assert_eq!(unknown, Err(MetaError::DatabaseNotFound("nope".into())));
        assert_eq!(meta.apply(Command::DropUser { name: "x".into() }), Err(MetaError::UserNotFound));
        assert_eq!(meta.apply(Command::SetAdmin { user: "x".into(), is_admin: true }), Err(MetaError::UserNotFound));
    }

    #[test]
    fn a_dropped_database_takes_its_grants_along() {
        let mut meta = with_user();
        meta.apply(grant("u", "d", DatabasePrivilege::All)).unwrap();
        assert!(meta.user("u").unwrap().may(DatabasePrivilege::Write, "d"));
        meta.apply(Command::DropDatabase { name: "d".into() }).unwrap();
        meta.apply(Command::CreateDatabase { name: "d".into(), policy: None, autocreate_policy: true }).unwrap();
        assert!(!meta.user("u").unwrap().may(DatabasePrivilege::Read, "d"));
        meta.apply(Command::SetAdmin { user: "u".into(), is_admin: true }).unwrap();
        assert!(meta.has_admin() && meta.user("u").unwrap().may(DatabasePrivilege::All, "d"));
    }

    #[test]
    fn hashes_stay_out_of_debug_texts() {
        let meta = with_user();
        assert!(!format!("{meta:?}").contains("$h"));
        assert!(!format!("{:?}", create("u", false)).contains("$h"));
    }
}
