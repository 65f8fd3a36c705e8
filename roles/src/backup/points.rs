//! `tidemill restore --host`: the points of a backup into a running server.
//!
//! Invariants: nothing is written before every file of the backup was read and found whole; points go in through the
//! server's own `/write`, with their values and types exact, so that whatever else it is doing goes on. Writing a point
//! twice changes nothing, so a restore that was cut off is started again.
//! Memory: what one block a field takes, and one body.

use super::{restore::verify, server::Server};
use crate::http_agent::Trust;
use crate::inspect::{
    export::push_lines,
    stopped::{SeriesReader, Stopped},
};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tidemill_influxql::QuotedIdent;
use tidemill_meta::{Database, Meta, RetentionPolicy};

/// What to restore, and where to.
#[derive(Clone, Debug, Default)]
pub struct PointsOptions {
    pub source: PathBuf,
    /// Of the server, such as `http://127.0.0.1:8086`.
    pub url: String,
    /// Where the server asks who calls; an admin, to make databases.
    pub user: Option<(String, String)>,
    /// Whom it trusts where the URL says `https`.
    pub trust: Trust,
    /// Only this database; all if there is none.
    pub database: Option<String>,
    /// What it is called in the server, if not the same.
    pub new_database: Option<String>,
    /// Only this retention policy of the database.
    pub retention: Option<String>,
    /// What it is called in the server, if not the same.
    pub new_retention: Option<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointsRestored {
    pub files: usize,
    pub series: u64,
    /// Rows that were sent: points of one series and time are one.
    pub rows: u64,
    /// Of these, rows older than the server's retention policy keeps.
    pub too_old: u64,
    /// Bodies of which the server refused a part, for what was told.
    pub refusals: u64,
    /// Values that line protocol has no text for.
    pub inexpressible: u64,
}

/// Small enough for the memory that a server may give to one request, large enough that a commit is a small part of it.
const BODY_BYTES: usize = 512 << 10;
/// How long a server may refuse or be away before the restore gives up.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_secs(1);
/// Refusals that are told one by one.
const TOLD_MAX: u64 = 20;

/// A retention policy of the backup and its place in the server.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    database: &'a Database,
    policy: &'a RetentionPolicy,
    into_database: &'a str,
    into_policy: &'a str,
}

/// Writes the points of a backup into a running server.
///
/// # Errors
/// If a file of the backup is not what its list says, if there is no such database, or if the server refuses.
pub fn restore_points(options: &PointsOptions) -> anyhow::Result<PointsRestored> {
    let contents = verify(&options.source)?;
    futures_lite::future::block_on(async {
        let stopped = Stopped::open(&options.source).await?;
        let parts = parts(options, &stopped.meta)?;
        let server = Server::new(&options.url, options.user.as_ref(), &options.trust)?;
        for database in stopped.meta.databases() {
            let of_database: Vec<Part> = parts.iter().filter(|part| part.database.id == database.id).copied().collect();
            prepare(&server, &of_database)?;
        }
        let mut restored = PointsRestored { files: contents.entries.len(), ..PointsRestored::default() };
        for part in &parts {
            write_part(&stopped, &server, part, &mut restored).await?;
        }
        Ok(restored)
    })
}

fn parts<'a>(options: &'a PointsOptions, meta: &'a Meta) -> anyhow::Result<Vec<Part<'a>>> {
    if let Some(name) = &options.database
        && meta.database(name).is_none()
    {
        let names: Vec<&str> = meta.databases().iter().map(|known| known.name.as_str()).collect();
        bail!("the backup has no database {name}; it has {}", names.join(", "));
    }
    let mut parts = Vec::new();
    for database in meta.databases() {
        if options.database.as_ref().is_some_and(|only| *only != database.name) {
            continue;
        }
        if let Some(name) = &options.retention
            && database.policy(Some(name)).is_none()
        {
            let names: Vec<&str> = database.policies.iter().map(|known| known.name.as_str()).collect();
            bail!(
                "database {} of the backup has no retention policy {name}; it has {}",
                database.name,
                names.join(", ")
            );
        }
        for policy in &database.policies {
            if options.retention.as_ref().is_some_and(|only| *only != policy.name) {
                continue;
            }
            let into_database = options.new_database.as_ref().unwrap_or(&database.name);
            let into_policy = options.new_retention.as_ref().unwrap_or(&policy.name);
            parts.push(Part { database, policy, into_database, into_policy });
        }
    }
    Ok(parts)
}

/// Makes the database and the retention policies that the server does not have. Those that it has stay as they are.
fn prepare(server: &Server, parts: &[Part<'_>]) -> anyhow::Result<()> {
    let is_default = |part: &&Part<'_>| part.policy.name == part.database.default_policy;
    let Some(first) = parts.iter().find(is_default).or(parts.first()) else { return Ok(()) };
    let database = QuotedIdent(first.into_database);
    let span = |ns: i64| if ns == 0 { "INF".to_owned() } else { format!("{ns}ns") };
    let terms = |part: &Part<'_>| {
        let RetentionPolicy { duration_ns, shard_group_duration_ns, .. } = part.policy;
        format!("DURATION {} REPLICATION 1 SHARD DURATION {}", span(*duration_ns), span(*shard_group_duration_ns))
    };
    if !first_column(&server.query("SHOW DATABASES")?).iter().any(|name| name == first.into_database) {
        server.query(&format!(
            "CREATE DATABASE {database} WITH {} NAME {}",
            terms(first),
            QuotedIdent(first.into_policy)
        ))?;
    }
    let known = first_column(&server.query(&format!("SHOW RETENTION POLICIES ON {database}"))?);
    for part in parts.iter().filter(|part| !known.iter().any(|name| name == part.into_policy)) {
        let policy = QuotedIdent(part.into_policy);
        server.query(&format!("CREATE RETENTION POLICY {policy} ON {database} {}", terms(part)))?;
    }
    Ok(())
}

/// Texts of the first column of an answer.
fn first_column(answer: &serde_json::Value) -> Vec<String> {
    let rows = answer["results"][0]["series"][0]["values"].as_array();
    rows.into_iter().flatten().filter_map(|row| Some(row[0].as_str()?.to_owned())).collect()
}

async fn write_part(
    stopped: &Stopped,
    server: &Server,
    part: &Part<'_>,
    restored: &mut PointsRestored,
) -> anyhow::Result<()> {
    let groups: Vec<u64> = part.policy.groups.iter().map(|group| group.id.0).collect();
    let readers: Vec<SeriesReader> = (0..stopped.partitions.len())
        .map(|partition| SeriesReader::new(stopped, partition, part.database.id.0, &groups))
        .collect();
    let bar = bar(readers.iter().map(|reader| reader.series().len() as u64).sum(), part);
    let mut upload = Upload { server, part, body: Vec::new(), rows: 0, restored, bar };
    for reader in &readers {
        for series in reader.series() {
            let Some((key, fields)) = reader.known(series) else { continue };
            let mut cursor = reader.cursor(series, &fields, (i64::MIN, i64::MAX));
            let mut rows = 0;
            while let Some(points) = cursor.next().await? {
                let pushed = push_lines(&key, &fields, &points, &mut upload.body);
                upload.rows += pushed.rows;
                rows += pushed.rows;
                upload.restored.inexpressible += pushed.inexpressible;
                if upload.body.len() >= BODY_BYTES {
                    upload.send()?;
                }
            }
            upload.restored.series += u64::from(rows > 0);
            upload.bar.inc(1);
        }
    }
    upload.send()?;
    upload.bar.finish_and_clear();
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
fn bar(series: u64, part: &Part<'_>) -> ProgressBar {
    let bar = ProgressBar::new(series);
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{wide_bar}] {pos}/{len} series {msg} {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(format!("{}.{}", part.into_database, part.into_policy));
    bar
}

/// Lines on their way.
struct Upload<'a> {
    server: &'a Server,
    part: &'a Part<'a>,
    body: Vec<u8>,
    /// In the body.
    rows: u64,
    restored: &'a mut PointsRestored,
    bar: ProgressBar,
}

impl Upload<'_> {
    /// Writes what was gathered, as often as it takes: a body whose answer was lost is written once more.
    fn send(&mut self) -> anyhow::Result<()> {
        if self.body.is_empty() {
            return Ok(());
        }
        let Part { into_database, into_policy, .. } = *self.part;
        let begun = Instant::now();
        loop {
            let (why, pause) = match self.server.write(into_database, into_policy, &self.body) {
                Ok(answer) if answer.status == 204 => break,
                Ok(answer) if answer.status == 400 && answer.text.starts_with("partial write: ") => {
                    self.note(&answer.text);
                    break;
                }
                Ok(answer) if matches!(answer.status, 429 | 503 | 507) => {
                    let pause = answer.retry_after_s.map_or(PAUSE, Duration::from_secs);
                    (anyhow::anyhow!("{} {}", answer.status, answer.text.trim()), pause)
                }
                Ok(answer) => bail!("{into_database}.{into_policy}: {} {}", answer.status, answer.text.trim()),
                Err(error) => (error.into(), PAUSE),
            };
            if begun.elapsed() + pause > PATIENCE {
                return Err(why).with_context(|| format!("{into_database}.{into_policy}: start the restore again"));
            }
            std::thread::sleep(pause);
        }
        self.restored.rows += self.rows;
        self.rows = 0;
        self.body.clear();
        self.bar.set_message(format!("{} rows", self.restored.rows));
        Ok(())
    }

    fn note(&mut self, text: &str) {
        if let Some(count) = beyond_retention(text) {
            self.restored.too_old += count;
            return;
        }
        self.restored.refusals += 1;
        if self.restored.refusals <= TOLD_MAX {
            let Part { into_database, into_policy, .. } = *self.part;
            self.bar.suspend(|| eprintln!("{into_database}.{into_policy}: {text}"));
        }
    }
}

/// How many rows a partial write left out for their age alone.
fn beyond_retention(text: &str) -> Option<u64> {
    text.strip_prefix("partial write: points beyond retention policy dropped=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_meta::{Command, PolicySpec};

    fn meta() -> Meta {
        let mut meta = Meta::default();
        let policy = |name: &str| PolicySpec {
            name: name.into(),
            duration_ns: 0,
            shard_group_duration_ns: 3_600_000_000_000,
            replicas: 1,
        };
        for name in ["d", "e"] {
            let create =
                Command::CreateDatabase { name: name.into(), policy: Some(policy("p")), autocreate_policy: false };
            meta.apply(create).unwrap();
        }
        meta.apply(Command::CreatePolicy { database: "d".into(), policy: policy("q"), default: false }).unwrap();
        meta
    }

    #[test]
    fn what_is_restored_and_where_to() {
        let meta = meta();
        let places = |options: PointsOptions| -> Vec<String> {
            let found = parts(&options, &meta).unwrap();
            found.iter().map(|part| format!("{}.{}", part.into_database, part.into_policy)).collect()
        };
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(places(PointsOptions::default()), ["d.p", "d.q", "e.p"]);
        let renamed = PointsOptions { database: name("d"), new_database: name("x"), ..PointsOptions::default() };
        assert_eq!(places(renamed.clone()), ["x.p", "x.q"]);
        let one = PointsOptions { retention: name("q"), new_retention: name("r"), ..renamed };
        assert_eq!(places(one.clone()), ["x.r"]);
        for wrong in
            [PointsOptions { database: name("no"), ..one.clone() }, PointsOptions { retention: name("no"), ..one }]
        {
            assert!(parts(&wrong, &meta).unwrap_err().to_string().contains("it has"));
        }
    }

    #[test]
    fn rows_that_are_too_old_are_no_refusal() {
        assert_eq!(beyond_retention("partial write: points beyond retention policy dropped=17"), Some(17));
        assert_eq!(beyond_retention("partial write: field type conflict: x dropped=1"), None);
    }
}
