//! Whether a caller may do what they ask for (reference: http-api, section 7; influxql, section 4).

use tidemill_http::Caller;
use tidemill_influxql::{Privilege, Query, RequiredPrivilege, Statement};
use tidemill_meta::{DatabasePrivilege, Meta, User};

/// Whether all statements may be run, looked at before the first one is.
///
/// # Errors
/// The text of the refusal (403).
pub fn authorize_query(meta: &Meta, caller: &Caller, query: &Query, database: &str) -> Result<(), String> {
    let user = match caller {
        Caller::Anyone => return Ok(()),
        Caller::Nobody if meta.users().is_empty() => return authorize_first_user(query),
        Caller::Nobody => None,
        Caller::User(name) => meta.user(name),
    };
    let refused = |reason: String| format!("error authorizing query: {reason}");
    let user = user.ok_or_else(|| refused("no user provided".into()))?;
    if user.is_admin {
        return Ok(());
    }
    for statement in &query.statements {
        if let Some(missing) = missing_privilege(user, statement, database) {
            let name = &user.name;
            return Err(refused(format!(
                "{name} not authorized to execute statement '{statement}', requires {missing}"
            )));
        }
    }
    Ok(())
}

/// Without users the only thing to do is to make an admin.
fn authorize_first_user(query: &Query) -> Result<(), String> {
    match query.statements.first() {
        Some(Statement::CreateUser(create)) if create.admin => Ok(()),
        _ => Err("error authorizing query: create admin user first or disable authentication".into()),
    }
}

fn missing_privilege(user: &User, statement: &Statement, database: &str) -> Option<String> {
    statement.required_privileges(database).into_iter().find_map(|required| match required {
        RequiredPrivilege::Admin => Some("admin privilege".to_owned()),
        RequiredPrivilege::Database { database, privilege } => {
            let is_held = user.may(of_statement(privilege), &database);
            (!is_held).then(|| format!("{privilege} on {database}"))
        }
    })
}

/// Whether points may be written to a database.
///
/// # Errors
/// The text of the refusal (403).
pub fn authorize_write(meta: &Meta, caller: &Caller, database: &str) -> Result<(), String> {
    let user = match caller {
        Caller::Anyone => return Ok(()),
        Caller::Nobody => None,
        Caller::User(name) => meta.user(name),
    };
    let user = user.ok_or_else(|| format!("user is required to write to database {database:?}"))?;
    if user.may(DatabasePrivilege::Write, database) {
        return Ok(());
    }
    Err(format!("{:?} user is not authorized to write to database {database:?}", user.name))
}

/// Whether SHOW DATABASES lists a database.
pub fn may_see(meta: &Meta, caller: &Caller, database: &str) -> bool {
    match caller {
        Caller::Anyone => true,
        Caller::Nobody => false,
        Caller::User(name) => meta.user(name).is_some_and(|user| {
            user.may(DatabasePrivilege::Read, database) || user.may(DatabasePrivilege::Write, database)
        }),
    }
}

/// A privilege of the language as the metadata have it.
pub fn of_statement(privilege: Privilege) -> DatabasePrivilege {
    match privilege {
        Privilege::Read => DatabasePrivilege::Read,
        Privilege::Write => DatabasePrivilege::Write,
        Privilege::All => DatabasePrivilege::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_influxql::parse_query;
    use tidemill_meta::{Command, PasswordHash};

    fn meta() -> Meta {
        let mut meta = Meta::default();
        for name in ["d", "e"] {
            meta.apply(Command::CreateDatabase { name: name.into(), policy: None, autocreate_policy: true }).unwrap();
        }
        let password_hash = PasswordHash(String::new());
        for (name, is_admin) in [("root", true), ("r", false), ("w", false), ("none", false)] {
            let create = Command::CreateUser { name: name.into(), password_hash: password_hash.clone(), is_admin };
            meta.apply(create).unwrap();
        }
        for (user, privilege) in [("r", DatabasePrivilege::Read), ("w", DatabasePrivilege::Write)] {
            meta.apply(Command::Grant { user: user.into(), database: "d".into(), privilege }).unwrap();
        }
        meta
    }

    fn ask(meta: &Meta, user: &str, text: &str) -> Result<(), String> {
        authorize_query(meta, &Caller::User(user.into()), &parse_query(text).unwrap(), "d")
    }

    #[test]
    fn statements_are_looked_at_before_the_first_one_runs() {
        let meta = meta();
        assert_eq!(ask(&meta, "root", "DROP DATABASE d"), Ok(()));
        assert_eq!(ask(&meta, "r", "SELECT v FROM m"), Ok(()));
        assert_eq!(ask(&meta, "none", "SHOW DATABASES"), Ok(()));
        for (user, text, reason) in [
            ("r", "SELECT v FROM m; DROP DATABASE d", "'DROP DATABASE d', requires admin privilege"),
            ("r", "SELECT v FROM e..m", "'SELECT v FROM e..m', requires READ on e"),
            ("w", "SELECT v FROM m", "'SELECT v FROM m', requires READ on d"),
            ("r", "DELETE FROM m", "'DELETE FROM m', requires WRITE on d"),
            (
                "none",
                "CREATE USER x WITH PASSWORD 'p'",
                "'CREATE USER x WITH PASSWORD [REDACTED]', requires admin privilege",
            ),
        ] {
            let expected = format!("error authorizing query: {user} not authorized to execute statement {reason}");
            assert_eq!(ask(&meta, user, text), Err(expected), "{user}: {text}");
        }
        let gone = ask(&meta, "dropped", "SHOW DATABASES").unwrap_err();
        assert_eq!(gone, "error authorizing query: no user provided");
    }

    #[test]
    fn without_users_an_admin_must_be_made_first() {
        let nobody = |meta: &Meta, text: &str| authorize_query(meta, &Caller::Nobody, &parse_query(text).unwrap(), "d");
        let empty = Meta::default();
        assert_eq!(nobody(&empty, "CREATE USER a WITH PASSWORD 'p' WITH ALL PRIVILEGES"), Ok(()));
        for text in ["CREATE USER a WITH PASSWORD 'p'", "SHOW DATABASES"] {
            assert!(nobody(&empty, text).unwrap_err().ends_with("create admin user first or disable authentication"));
        }
        let text = "CREATE USER a WITH PASSWORD 'p' WITH ALL PRIVILEGES";
        assert!(nobody(&meta(), text).unwrap_err().ends_with("no user provided"));
        assert_eq!(authorize_query(&empty, &Caller::Anyone, &parse_query("SHOW USERS").unwrap(), ""), Ok(()));
    }

    #[test]
    fn writes_and_the_list_of_databases() {
        let meta = meta();
        let write = |user: &str| authorize_write(&meta, &Caller::User(user.into()), "d");
        assert_eq!((write("w"), write("root")), (Ok(()), Ok(())));
        assert_eq!(write("r").unwrap_err(), "\"r\" user is not authorized to write to database \"d\"");
        let nobody = authorize_write(&meta, &Caller::Nobody, "d");
        assert_eq!(nobody.unwrap_err(), "user is required to write to database \"d\"");
        let seen = |user: &str| {
            let caller = Caller::User(user.into());
            ["d", "e"].map(|database| may_see(&meta, &caller, database))
        };
        assert_eq!(
            (seen("root"), seen("r"), seen("w"), seen("none")),
            ([true; 2], [true, false], [true, false], [false; 2])
        );
        assert!(!may_see(&meta, &Caller::Nobody, "d") && may_see(&meta, &Caller::Anyone, "d"));
    }
}
