//! `inspect import`: a data and log folder of InfluxDB 1.x into a data folder of Tidemill.
//!
//! Runs the server without its door: points enter through the same write path as those of a client, so that they are
//! dealt to partitions, typed, logged and flushed as any other. Done shards are noted in the folder, so that an import
//! that was interrupted goes on where it was; importing a shard twice changes nothing.

use super::{
    Damaged, Output,
    table::size_text,
    tsm_source::Damage,
    upstream_shard::{Shard, Sink},
};
use crate::{
    data::DataCore,
    options::{CommandLine, Options},
    server,
};
use anyhow::{Context, bail};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tidemill_http::{Consistency, WriteOutcome, WriteRequest, WriteTarget};
use tidemill_line::Precision;
use tidemill_meta::{Command as MetaCommand, PolicyChange, PolicySpec};
use tidemill_tsm::meta_db::{self, MetaData};
use xxhash_rust::xxh3::xxh3_64;

/// Names the shards that are in, inside the data folder.
const DONE_FILE: &str = "imported-shards";
/// Between two lines of progress where no bar can be drawn.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
const BAR_CELLS: u64 = 30;
/// Upstream's own measurements, which upstream's restore leaves out, too.
const INTERNAL: &str = "_internal";
/// How often a body is offered again while the server has no room for it: ten minutes.
const TRIES_MAX: u32 = 600;

/// Takes over the data and log folders of a stopped InfluxDB 1.x
///
/// Into a new data folder, or one of a stopped server. Files that are damaged are named with the bytes that cannot be
/// read; everything else is imported, and the import ends with a failure. It may be started again.
#[derive(clap::Args, Clone, Debug)]
pub struct Import {
    /// Upstream's data folder (`/var/lib/influxdb/data`)
    upstream_data: PathBuf,
    /// Upstream's folder of write-ahead logs (`/var/lib/influxdb/wal`)
    upstream_wal: PathBuf,
    /// Upstream's metadata, for retention policies and shard groups; without it the folders' names are used
    #[arg(long, value_name = "FILE")]
    meta: Option<PathBuf>,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Tidemill's data folder; made if it is not there [default: ./tidemill-data]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Cores to run [default: all]
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// Memory that the import may use, with suffix k, m or g [default: half of the machine's]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Tidemill's configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Import {
    pub fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        let meta = self.meta.as_deref().map(read_meta).transpose()?;
        let shards = self.shards(meta.as_ref())?;
        let line = CommandLine {
            data_dir: self.into.clone(),
            cores: self.cores,
            memory_limit: self.memory_limit.clone(),
            config: self.config.clone(),
            ..CommandLine::default()
        };
        let options = Options::read(&line)?;
        let done = options.data_dir.join(DONE_FILE);
        let result: Arc<Mutex<Option<anyhow::Result<Totals>>>> = Arc::default();
        let answer = result.clone();
        let work = move |core: Rc<DataCore>| {
            let (meta, shards, done, answer) = (meta.clone(), shards.clone(), done.clone(), answer.clone());
            let work = async move {
                let imported = import(core, meta, &shards, &done).await;
                *answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(imported);
            };
            Box::pin(work) as std::pin::Pin<Box<dyn Future<Output = ()>>>
        };
        server::run_work(options, Arc::new(work))?;
        let imported = result.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let totals = imported.context("the import was stopped; start it again to go on")??;
        let Totals { shards, skipped, rows, damages, bytes } = totals;
        let read = size_text(bytes);
        out.line(format_args!("{rows} rows of {shards} shards, {read} read; {skipped} shards were there already"))?;
        match damages {
            0 => Ok(()),
            _ => Err(Damaged(format!("{damages} damages: what they name is missing")).into()),
        }
    }

    fn shards(&self, meta: Option<&MetaData>) -> anyhow::Result<Vec<Shard>> {
        let mut shards = Shard::find(&self.upstream_data, &self.upstream_wal)?;
        shards.retain(|shard| match &self.database {
            Some(only) => shard.database == *only,
            None => shard.database != INTERNAL,
        });
        if let Some(meta) = meta {
            let groups = meta.databases.iter().flat_map(|known| &known.policies).flat_map(|policy| &policy.groups);
            let alive: BTreeSet<u64> =
                groups.filter(|group| !group.is_deleted()).flat_map(|group| group.shards.iter().copied()).collect();
            shards.retain(|shard| {
                let is_alive = alive.contains(&shard.id);
                if !is_alive {
                    let Shard { database, policy, id, .. } = shard;
                    eprintln!("{database}.{policy}: shard {id} is left out: meta.db says that it is dropped");
                }
                is_alive
            });
            for database in &meta.databases {
                if !database.continuous_queries.is_empty() {
                    eprintln!(
                        "{}: continuous queries are not taken over: {:?}",
                        database.name, database.continuous_queries
                    );
                }
                for policy in database.policies.iter().filter(|policy| !policy.subscriptions.is_empty()) {
                    eprintln!(
                        "{}.{}: subscriptions are not taken over: {:?}",
                        database.name, policy.name, policy.subscriptions
                    );
                }
            }
            if !meta.users.is_empty() {
                eprintln!("users are not taken over: {:?}", meta.users);
            }
        }
        Ok(shards)
    }
}

fn read_meta(path: &Path) -> anyhow::Result<MetaData> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    meta_db::read(&bytes).with_context(|| path.display().to_string())
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    shards: u64,
    skipped: u64,
    rows: u64,
    damages: u64,
    bytes: u64,
}

async fn import(core: Rc<DataCore>, meta: Option<MetaData>, shards: &[Shard], done: &Path) -> anyhow::Result<Totals> {
    let mut totals = Totals::default();
    let policies = define(&core, meta.as_ref(), shards).await?;
    let known = fs::read_to_string(done).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().collect();
    let mut progress = Progress::new(shards.iter().map(Shard::byte_size).sum());
    for shard in shards {
        let line = done_line(shard);
        if known.contains(line.as_str()) {
            totals.skipped += 1;
            progress.skip(shard.byte_size());
            continue;
        }
        progress.name = format!("{}.{} shard {}", shard.database, shard.policy, shard.id);
        let mut writer = Writer { core: core.clone(), shard, progress: &mut progress, damages: 0 };
        let tally = shard.read(&mut writer).await?;
        let refused = writer.damages;
        totals.shards += 1;
        totals.rows += tally.rows;
        totals.damages += tally.damages + refused;
        // Every row is durable by now. A shard with damages is read again next time: the file may have been mended.
        if tally.damages + refused == 0 {
            let mut file = OpenOptions::new().append(true).create(true).open(done)?;
            writeln!(file, "{line}")?;
            file.sync_all()?;
        }
    }
    for (database, name, duration_ns) in policies {
        let change = PolicyChange { duration_ns: Some(duration_ns), ..PolicyChange::default() };
        core.change_meta(MetaCommand::AlterPolicy { database, name, change }).await?;
    }
    totals.bytes = progress.read;
    progress.end();
    Ok(totals)
}

/// Databases and policies as upstream has them. Policies keep everything while the import runs; what is returned is to
/// be set at its end.
async fn define(
    core: &Rc<DataCore>,
    meta: Option<&MetaData>,
    shards: &[Shard],
) -> anyhow::Result<Vec<(String, String, i64)>> {
    let wanted: BTreeSet<&str> = shards.iter().map(|shard| shard.database.as_str()).collect();
    let mut databases: Vec<meta_db::Database> = Vec::new();
    match meta {
        Some(meta) => {
            databases.extend(meta.databases.iter().filter(|known| wanted.contains(known.name.as_str())).cloned())
        }
        None => {
            for shard in shards {
                let known = match databases.iter_mut().position(|known| known.name == shard.database) {
                    Some(known) => &mut databases[known],
                    None => databases.push_mut(meta_db::Database {
                        name: shard.database.clone(),
                        default_policy: shard.policy.clone(),
                        ..meta_db::Database::default()
                    }),
                };
                if !known.policies.iter().any(|policy| policy.name == shard.policy) {
                    let name = shard.policy.clone();
                    known.policies.push(meta_db::RetentionPolicy { name, replicas: 1, ..Default::default() });
                }
                // Upstream makes it, and calls it so, unless it is told otherwise.
                if shard.policy == "autogen" {
                    known.default_policy.clone_from(&shard.policy);
                }
            }
        }
    }
    let mut finally = Vec::new();
    for database in databases {
        let name = database.name.clone();
        let create = MetaCommand::CreateDatabase { name: name.clone(), policy: None, autocreate_policy: false };
        core.change_meta(create).await.with_context(|| name.clone())?;
        for policy in &database.policies {
            let is_known = core.meta().database(&name).is_some_and(|known| known.policy(Some(&policy.name)).is_some());
            if is_known {
                let change = PolicyChange { duration_ns: Some(0), ..PolicyChange::default() };
                let alter = MetaCommand::AlterPolicy { database: name.clone(), name: policy.name.clone(), change };
                core.change_meta(alter).await?;
            } else {
                let spec = PolicySpec {
                    name: policy.name.clone(),
                    duration_ns: 0,
                    shard_group_duration_ns: policy.shard_group_duration_ns,
                    replicas: policy.replicas.max(1),
                };
                let default = policy.name == database.default_policy;
                let create = MetaCommand::CreatePolicy { database: name.clone(), policy: spec, default };
                core.change_meta(create).await.with_context(|| format!("{name}.{}", policy.name))?;
            }
            if policy.duration_ns != 0 {
                finally.push((name.clone(), policy.name.clone(), policy.duration_ns));
            }
        }
    }
    Ok(finally)
}

/// A shard and what its files were when it was imported.
fn done_line(shard: &Shard) -> String {
    let mut text = String::new();
    for path in shard.tsm_files.iter().chain(&shard.segments) {
        let tombstones = fs::metadata(path.with_extension("tombstone")).map(|known| known.len()).unwrap_or(0);
        let bytes = fs::metadata(path).map(|known| known.len()).unwrap_or(0);
        text += &format!("{} {bytes} {tombstones}\n", path.file_name().unwrap_or_default().display());
    }
    let Shard { database, policy, id, .. } = shard;
    format!("{database}/{policy}/{id} {:016x}", xxh3_64(text.as_bytes()))
}

/// Writes lines as a client would.
struct Writer<'a> {
    core: Rc<DataCore>,
    shard: &'a Shard,
    progress: &'a mut Progress,
    damages: u64,
}

impl Sink for Writer<'_> {
    async fn take(&mut self, lines: Vec<u8>, bytes_read: u64) -> anyhow::Result<()> {
        self.progress.advance(bytes_read);
        if lines.is_empty() {
            return Ok(());
        }
        if self.core.context().shutdown.is_requested() {
            bail!("stopped; start the import again to go on");
        }
        let target = WriteTarget {
            database: self.shard.database.clone(),
            retention_policy: Some(self.shard.policy.clone()),
            precision: Precision::Nanosecond,
            unsigned: true,
            claim: None,
            session: None,
            consistency: Consistency::default(),
            caller: tidemill_http::Caller::default(),
        };
        for _ in 0..TRIES_MAX {
            match self.core.write(WriteRequest { target: target.clone(), body: lines.clone() }).await {
                WriteOutcome::Written | WriteOutcome::WrittenInSession(_) => return Ok(()),
                // Files are written meanwhile, which makes room.
                WriteOutcome::Overloaded { .. } => self.core.context().sleep(Duration::from_secs(1)).await,
                WriteOutcome::PartialWrite(why) => {
                    let Shard { database, policy, id, .. } = self.shard;
                    self.progress.above(&format!("{database}.{policy} shard {id}: {why}"));
                    self.damages += 1;
                    return Ok(());
                }
                other => bail!("{}: {other:?}", self.progress.name),
            }
        }
        bail!("{}: the server has no room for more", self.progress.name)
    }

    fn tell(&mut self, damage: &Damage) {
        self.progress.above(&damage.to_string());
    }
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    total: u64,
    read: u64,
    name: String,
    is_terminal: bool,
    started: Instant,
    shown: Instant,
}

impl Progress {
    fn new(total: u64) -> Progress {
        let (started, is_terminal) = (Instant::now(), std::io::stderr().is_terminal());
        Progress { total, read: 0, name: String::new(), is_terminal, started, shown: started }
    }

    fn skip(&mut self, bytes: u64) {
        self.total = self.total.saturating_sub(bytes);
    }

    fn advance(&mut self, bytes: u64) {
        self.read += bytes;
        let pause = if self.is_terminal { PROGRESS_EVERY / 50 } else { PROGRESS_EVERY };
        if self.shown.elapsed() >= pause {
            self.show();
        }
    }

    fn show(&mut self) {
        self.shown = Instant::now();
        let total = self.total.max(self.read).max(1);
        let (percent, cells) = (self.read * 100 / total, (self.read * BAR_CELLS / total) as usize);
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let speed = size_text((self.read as f64 / seconds) as u64);
        let bar = format!("{}{}", "#".repeat(cells), ".".repeat(BAR_CELLS as usize - cells));
        let (read, whole) = (size_text(self.read), size_text(total));
        if self.is_terminal {
            eprint!("\r\x1b[K[{bar}] {percent} %  {read} of {whole}, {speed}/s  {}", self.name);
        } else {
            eprintln!("{percent} %, {read} of {whole}, {speed}/s, {}", self.name);
        }
    }

    /// Says something that stays above the bar.
    fn above(&mut self, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{text}");
    }

    fn end(&mut self) {
        if self.is_terminal {
            self.show();
            eprintln!();
        }
    }
}
