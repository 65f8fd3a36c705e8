//! What a line of the shell asks for.

use crate::shell::{
    Session,
    client::{self, Insert},
    format::Format,
    prompt,
};

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Nothing,
    Exit,
    Help,
    Settings,
    History,
    Pretty,
    Chunked,
    ChunkSize(String),
    Auth,
    Connect(String),
    Use(String),
    Format(String),
    Precision(String),
    Consistency(String),
    Clear(String),
    Insert(Insert),
    /// Neither of these: statements.
    Query(String),
}

/// What is left to do.
pub enum Next {
    Done,
    Query(String),
}

const HELP: &str = "\
connect <host:port>      another server
auth                     asks for user and password
use <db>[.<rp>]          default database and retention policy
insert [into <db>.<rp>] <line>  writes a point in line protocol
format <format>          column, csv or json
precision <unit>         rfc3339, h, m, s, ms, u or ns
consistency <level>      any, one, quorum or all
pretty, chunked          turn indented JSON or answers in pieces on and off
chunk size <rows>        rows of a piece; 0 leaves it to the server
clear database, clear retention policy
settings, history, help, exit
anything else            is sent as a query";

impl Command {
    pub fn parse(line: &str) -> Command {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (word.to_ascii_lowercase().as_str(), rest) {
            ("", _) => Command::Nothing,
            ("exit" | "quit", "") => Command::Exit,
            ("help", "") => Command::Help,
            ("settings", "") => Command::Settings,
            ("history", "") => Command::History,
            ("pretty", "") => Command::Pretty,
            ("chunked", "") => Command::Chunked,
            ("chunk", rest) if rest.to_ascii_lowercase().starts_with("size") => {
                Command::ChunkSize(rest["size".len()..].trim().to_owned())
            }
            ("auth", "") => Command::Auth,
            ("connect", place) => Command::Connect(place.to_owned()),
            ("use", name) => Command::Use(name.trim_end_matches(';').to_owned()),
            ("format", name) => Command::Format(name.to_owned()),
            ("precision", name) => Command::Precision(name.to_owned()),
            ("consistency", name) => Command::Consistency(name.to_owned()),
            ("clear", what) => Command::Clear(what.to_ascii_lowercase()),
            ("insert", rest) => Command::Insert(insert(rest)),
            _ => Command::Query(line.to_owned()),
        }
    }

    /// Does what needs no answer of a query.
    pub(super) fn run(self, session: &mut Session) -> Result<Next, String> {
        let connection = &mut session.connection;
        match self {
            Command::Nothing | Command::Exit => {}
            Command::Help => println!("{HELP}"),
            Command::Settings => println!("{}", settings(session)),
            Command::History => print!("{}", prompt::history()),
            Command::Pretty => {
                session.is_pretty = !session.is_pretty;
                println!("Pretty print {}", if session.is_pretty { "enabled" } else { "disabled" });
            }
            Command::Chunked => {
                connection.is_chunked = !connection.is_chunked;
                println!("Chunked responses {}", if connection.is_chunked { "enabled" } else { "disabled" });
            }
            Command::ChunkSize(text) => {
                connection.chunk_size = text.parse().map_err(|_| format!("{text:?} is no number of rows"))?;
            }
            Command::Auth => connection.user = Some(prompt::credentials().map_err(|error| error.to_string())?),
            Command::Connect(place) => {
                let version = connection.connect(&place)?;
                println!("Connected to {} version {version}", connection.url());
            }
            Command::Use(name) => use_database(session, &name)?,
            Command::Format(name) => session.format = Format::named(&name)?,
            Command::Precision(name) => connection.precision = client::precision(&name)?,
            Command::Consistency(name) => connection.consistency = client::consistency(&name)?,
            Command::Clear(what) => match what.as_str() {
                "db" | "database" => connection.database.clear(),
                "rp" | "retention policy" => connection.retention_policy.clear(),
                other => return Err(format!("{other:?} cannot be cleared: there are database and retention policy")),
            },
            Command::Insert(insert) => connection.insert(&insert)?,
            Command::Query(text) => return Ok(Next::Query(text)),
        }
        Ok(Next::Done)
    }
}

/// `[into db.rp] line`
fn insert(rest: &str) -> Insert {
    let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !word.eq_ignore_ascii_case("into") {
        return Insert { database: None, retention_policy: None, line: rest.to_owned() };
    }
    let (target, line) = split_path(after.trim_start());
    let (database, retention_policy) = match target.as_slice() {
        [database, policy, ..] => (Some(database.clone()), Some(policy.clone())),
        // One name alone is that of a retention policy, as in upstream.
        [policy] => (None, Some(policy.clone())),
        [] => (None, None),
    };
    Insert { database, retention_policy, line: line.trim_start().to_owned() }
}

/// Names with dots between them, quoted or not, and what stands behind.
fn split_path(text: &str) -> (Vec<String>, &str) {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let name = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"').unwrap_or(quoted.len());
                rest = quoted.get(end + 1..).unwrap_or_default();
                &quoted[..end]
            }
            None => {
                let end = rest.find(|c: char| c == '.' || c.is_whitespace()).unwrap_or(rest.len());
                let name = &rest[..end];
                rest = &rest[end..];
                name
            }
        };
        names.push(name.to_owned());
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None => return (names, rest),
        }
    }
}

fn use_database(session: &mut Session, name: &str) -> Result<(), String> {
    let (path, _) = split_path(name);
    let (database, policy) = match path.as_slice() {
        [database] if !database.is_empty() => (database.clone(), String::new()),
        [database, policy] if !database.is_empty() => (database.clone(), policy.clone()),
        _ => return Err("use <database>[.<retention policy>]".to_owned()),
    };
    let connection = &session.connection;
    let first_column = |statement: &str| -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        connection.query(statement, &mut |document| {
            let json: serde_json::Value = serde_json::from_str(document).map_err(|error| error.to_string())?;
            if let Some(error) = json["error"].as_str().or(json["results"][0]["error"].as_str()) {
                return Err(error.to_owned());
            }
            let rows = json["results"][0]["series"][0]["values"].as_array().into_iter().flatten();
            names.extend(rows.filter_map(|row| row[0].as_str().map(str::to_owned)));
            Ok(())
        })?;
        Ok(names)
    };
    if !first_column("SHOW DATABASES")?.contains(&database) {
        return Err(format!("Database {database} doesn't exist. Run SHOW DATABASES for a list of existing databases."));
    }
    if !policy.is_empty() {
        let quoted = database.replace('"', "\\\"");
        if !first_column(&format!("SHOW RETENTION POLICIES ON \"{quoted}\""))?.contains(&policy) {
            return Err(format!(
                "RETENTION POLICY {policy} doesn't exist. Run SHOW RETENTION POLICIES ON \"{database}\" for a list of \
                 existing retention polices."
            ));
        }
    }
    println!("Using database {database}");
    if !policy.is_empty() {
        println!("Using retention policy {policy}");
    }
    (session.connection.database, session.connection.retention_policy) = (database, policy);
    Ok(())
}

fn settings(session: &Session) -> String {
    let connection = &session.connection;
    let user = connection.user.as_ref().map_or("", |(user, _)| user.as_str());
    let rows = [
        ("Setting", "Value"),
        ("--------", "--------"),
        ("URL", &connection.url()),
        ("Username", user),
        ("Database", &connection.database),
        ("RetentionPolicy", &connection.retention_policy),
        ("Pretty", &session.is_pretty.to_string()),
        ("Format", session.format.name()),
        ("Precision", &connection.precision),
        ("Write Consistency", &connection.consistency),
        ("Chunked", &connection.is_chunked.to_string()),
        ("Chunk Size", &connection.chunk_size.to_string()),
    ];
    rows.map(|(name, value)| format!("{name:<18}{value}")).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert_of(line: &str) -> Insert {
        let Command::Insert(insert) = Command::parse(line) else { panic!("{line}") };
        insert
    }

    #[test]
    fn lines_are_understood() {
        assert_eq!(Command::parse("  "), Command::Nothing);
        assert_eq!(Command::parse("QUIT"), Command::Exit);
        assert_eq!(Command::parse("use \"a b\".rp;"), Command::Use("\"a b\".rp".to_owned()));
        assert_eq!(Command::parse("chunk size 5"), Command::ChunkSize("5".to_owned()));
        assert_eq!(Command::parse("select v from n"), Command::Query("select v from n".to_owned()));
        assert_eq!(Command::parse("show users"), Command::Query("show users".to_owned()));
    }

    #[test]
    fn inserts_name_their_target() {
        let plain = Insert { database: None, retention_policy: None, line: "n v=1".to_owned() };
        assert_eq!(insert_of("INSERT n v=1"), plain);
        let both = insert_of("insert into d.rp n,a=b v=1 5");
        assert_eq!((both.database.as_deref(), both.retention_policy.as_deref()), (Some("d"), Some("rp")));
        assert_eq!(both.line, "n,a=b v=1 5");
        let quoted = insert_of("insert into \"a b\".\"c.d\" n v=1");
        assert_eq!((quoted.database.as_deref(), quoted.retention_policy.as_deref()), (Some("a b"), Some("c.d")));
        assert_eq!(insert_of("insert into rp n v=1").retention_policy.as_deref(), Some("rp"));
    }
}
