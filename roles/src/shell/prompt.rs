//! Lines of a terminal: history, completion, passwords.
//!
//! Invariant: a line that mentions a password is not kept.

use rustyline::{
    Context, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::{FileHistory, History, SearchDirection},
    validate::Validator,
};
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

/// Words that are completed.
const WORDS: [&str; 62] = [
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BY",
    "CARDINALITY",
    "CREATE",
    "CONTINUOUS",
    "DATABASE",
    "DATABASES",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DIAGNOSTICS",
    "DISTINCT",
    "DROP",
    "DURATION",
    "END",
    "EVERY",
    "EXACT",
    "EXPLAIN",
    "FIELD",
    "FOR",
    "FROM",
    "GRANT",
    "GRANTS",
    "GROUP",
    "GROUPS",
    "INTO",
    "KEY",
    "KEYS",
    "KILL",
    "LIMIT",
    "MEASUREMENT",
    "MEASUREMENTS",
    "NAME",
    "OFFSET",
    "ORDER",
    "PASSWORD",
    "POLICIES",
    "POLICY",
    "PRIVILEGES",
    "QUERIES",
    "QUERY",
    "REPLICATION",
    "RESAMPLE",
    "RETENTION",
    "REVOKE",
    "SELECT",
    "SERIES",
    "SHARD",
    "SHARDS",
    "SHOW",
    "SLIMIT",
    "STATS",
    "USERS",
    "VALUES",
    "WHERE",
    "WITH",
];

const PROMPT: &str = "> ";

struct Words;

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(candidates(line, position))
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

/// Where the word at the position begins, and what it may become.
fn candidates(line: &str, position: usize) -> (usize, Vec<String>) {
    let before = line.get(..position).unwrap_or(line);
    let start = before.rfind(|c: char| !c.is_ascii_alphabetic()).map_or(0, |at| at + 1);
    let begun = before.get(start..).unwrap_or_default().to_ascii_uppercase();
    if begun.is_empty() {
        return (start, Vec::new());
    }
    (start, WORDS.iter().filter(|word| word.starts_with(&begun)).map(|word| (*word).to_owned()).collect())
}

fn history_path() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".influx_history"))
}

/// Whether a line may be kept.
fn may_keep(line: &str) -> bool {
    !line.to_ascii_lowercase().contains("password") && !line.trim().is_empty()
}

/// Hands over line after line until `act` says that it is enough, or the input ends.
pub fn read_lines(mut act: impl FnMut(&str) -> bool) {
    let editor: rustyline::Result<Editor<Words, FileHistory>> = Editor::new();
    let Ok(mut editor) = editor else { return eprintln!("ERR: the terminal cannot be read") };
    editor.set_helper(Some(Words));
    let path = history_path();
    if let Some(path) = &path {
        // There is none at the first start.
        let _ = editor.load_history(path);
    }
    loop {
        match editor.readline(PROMPT) {
            Ok(line) => {
                if may_keep(&line) {
                    let _ = editor.add_history_entry(&line);
                    // At once: `history` reads it, and a shell that is killed has kept it.
                    if let Some(Err(error)) = path.as_ref().map(|path| editor.save_history(path)) {
                        eprintln!("the history is not kept: {error}");
                    }
                }
                if !act(&line) {
                    return;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(_) => return,
        }
    }
}

/// The lines that were kept.
pub fn history() -> String {
    let mut kept = FileHistory::new();
    if let Some(path) = history_path() {
        let _ = kept.load(&path);
    }
    let line = |at: usize| kept.get(at, SearchDirection::Forward).ok().flatten().map(|found| found.entry.into_owned());
    (0..kept.len()).filter_map(line).map(|line| line + "\n").collect()
}

/// Asks for user and password.
pub fn credentials() -> io::Result<(String, String)> {
    let user = ask("username: ")?;
    Ok((user, password()?))
}

/// Asks for a password without showing it.
pub fn password() -> io::Result<String> {
    let shown = set_echo(false);
    let password = ask("password: ");
    if shown {
        set_echo(true);
        println!();
    }
    password
}

fn ask(prompt: &str) -> io::Result<String> {
    print!("{prompt}");
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Whether that worked: the input may be no terminal.
fn set_echo(is_on: bool) -> bool {
    // SAFETY: the structure is filled by the first call before it is read.
    unsafe {
        let mut state: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(libc::STDIN_FILENO, &mut state) != 0 {
            return false;
        }
        if is_on {
            state.c_lflag |= libc::ECHO;
        } else {
            state.c_lflag &= !libc::ECHO;
        }
        libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &state) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed_in_any_case() {
        assert_eq!(candidates("sho", 3), (0, vec!["SHOW".to_owned()]));
        assert_eq!(candidates("SHOW DATAB", 10).1, ["DATABASE", "DATABASES"]);
        assert_eq!(candidates("SHOW ", 5), (5, Vec::new()));
        assert_eq!(candidates("select mean(v) fr", 17), (15, vec!["FROM".to_owned()]));
    }

    #[test]
    fn passwords_are_not_kept() {
        assert!(!may_keep("CREATE USER a WITH PassWord 'x'") && !may_keep("  ") && may_keep("SHOW USERS"));
    }
}
