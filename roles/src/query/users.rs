//! Statements about users: who there are, what they may do, their passwords.
//!
//! Invariant: a password leaves this module only as a salted hash, made off the core.

use crate::{
    access::{of_statement, password},
    query::{
        StatementError,
        answer_table::{TableColumn, table},
        definitions::change,
        pieces::Answer,
        sources::Session,
    },
};
use tidemill_influxql::{CreateUser, Password, Privilege};
use tidemill_meta::{Command, DatabasePrivilege, MetaError, PasswordHash};

/// Making a user once more, with the same password and rights, is fine.
pub(super) async fn create(session: &Session, create: CreateUser) -> Result<Answer, StatementError> {
    let known = session.core.meta().user(&create.name).cloned();
    if let Some(known) = known {
        let (asked, hash) = (create.password.clone(), known.password_hash.clone());
        let is_same = offload(session, move || password::verify(asked.reveal(), Some(&hash))).await;
        return if is_same && known.is_admin == create.admin {
            Ok(Answer::done())
        } else {
            Err(StatementError::Invalid(MetaError::UserExists.to_string()))
        };
    }
    let password_hash = hash(session, create.password).await?;
    change(session, Command::CreateUser { name: create.name, password_hash, is_admin: create.admin }).await
}

pub(super) async fn drop(session: &Session, name: String) -> Result<Answer, StatementError> {
    change(session, Command::DropUser { name }).await
}

pub(super) async fn set_password(
    session: &Session,
    user: String,
    password: Password,
) -> Result<Answer, StatementError> {
    let password_hash = hash(session, password).await?;
    change(session, Command::SetPassword { user, password_hash }).await
}

pub(super) async fn set_admin(session: &Session, user: String, is_admin: bool) -> Result<Answer, StatementError> {
    change(session, Command::SetAdmin { user, is_admin }).await
}

pub(super) async fn grant(
    session: &Session,
    user: String,
    database: String,
    privilege: Privilege,
) -> Result<Answer, StatementError> {
    change(session, Command::Grant { user, database, privilege: of_statement(privilege) }).await
}

pub(super) async fn revoke(
    session: &Session,
    user: String,
    database: String,
    privilege: Privilege,
) -> Result<Answer, StatementError> {
    change(session, Command::Revoke { user, database, privilege: of_statement(privilege) }).await
}

/// SHOW USERS, in the order of creation.
pub(super) fn show(session: &Session) -> Answer {
    let meta = session.core.meta();
    let users = meta.users();
    let columns = vec![
        ("user", TableColumn::Texts(users.iter().map(|user| user.name.clone()).collect())),
        ("admin", TableColumn::Booleans(users.iter().map(|user| user.is_admin).collect())),
    ];
    Answer::of(vec![table("", columns)])
}

/// SHOW GRANTS, by name of the database.
pub(super) fn show_grants(session: &Session, user: &str) -> Result<Answer, StatementError> {
    let meta = session.core.meta();
    let user = meta.user(user).ok_or_else(|| StatementError::Invalid(MetaError::UserNotFound.to_string()))?;
    let text = |privilege: &DatabasePrivilege| match privilege {
        DatabasePrivilege::None => "NO PRIVILEGES".to_owned(),
        DatabasePrivilege::Read => Privilege::Read.to_string(),
        DatabasePrivilege::Write => Privilege::Write.to_string(),
        DatabasePrivilege::All => Privilege::All.to_string(),
    };
    let columns = vec![
        ("database", TableColumn::Texts(user.privileges.keys().cloned().collect())),
        ("privilege", TableColumn::Texts(user.privileges.values().map(text).collect())),
    ];
    Ok(Answer::of(vec![table("", columns)]))
}

async fn hash(session: &Session, password: Password) -> Result<PasswordHash, StatementError> {
    let hashed = offload(session, move || password::hash(password.reveal())).await;
    hashed.map_err(|error| StatementError::Invalid(error.to_string()))
}

async fn offload<T: Send + 'static>(session: &Session, slow: impl FnOnce() -> T + Send + 'static) -> T {
    session.core.context().offload(slow).await
}
