//! `inspect export --upstream`: a folder that InfluxDB 1.x serves.
//!
//! One TSM file a shard (more where upstream would begin another), all partitions merged in the order of keys, all
//! blocks encoded as upstream reads them; `meta.db` with databases, policies and shard groups. Upstream rebuilds its
//! series file and `fields.idx` from the keys. Eight bytes a series are held for the order.

use super::{
    export::Selection,
    stopped::{SeriesReader, Stopped},
};
use anyhow::{Context, bail};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    rc::Rc,
};
use tidemill_column::{Column, Values};
use tidemill_meta::{Database, RetentionPolicy, ShardGroup};
use tidemill_store::SeriesId;
use tidemill_tsm::{
    BLOCK_POINTS_DEFAULT, block,
    file::{FILE_BYTES_THRESHOLD, FileWriter, WriteError},
    key,
    meta_db::{self, MetaData},
    statistics::BlockStatistics,
};

/// Writes everything that is selected below `folder`, which must be new or empty.
pub async fn write(stopped: &Stopped, selection: &Selection<'_>, folder: &Path) -> anyhow::Result<()> {
    let context = || folder.display().to_string();
    fs::create_dir_all(folder).with_context(context)?;
    if fs::read_dir(folder).with_context(context)?.next().is_some() {
        bail!("{} is not empty", folder.display());
    }
    let mut data = MetaData::default();
    for database in selection.databases(stopped) {
        let mut known = meta_db::Database {
            name: database.name.clone(),
            default_policy: database.default_policy.clone(),
            ..meta_db::Database::default()
        };
        for policy in selection.policies(database) {
            known.policies.push(described(policy));
            for group in &policy.groups {
                eprintln!("{}.{}: shard {}", database.name, policy.name, group.id.0);
                write_shard(stopped, selection, database, policy, group, folder).await?;
            }
        }
        data.databases.push(known);
    }
    let mut bytes = Vec::new();
    meta_db::write(&data, 1, &mut bytes);
    fs::create_dir_all(folder.join("meta"))?;
    fs::write(folder.join("meta/meta.db"), bytes).with_context(context)
}

fn described(policy: &RetentionPolicy) -> meta_db::RetentionPolicy {
    let groups = policy.groups.iter().map(|group| meta_db::ShardGroup {
        id: group.id.0,
        start_ns: group.start_ns,
        end_ns: group.end_ns,
        deleted_at_ns: 0,
        shards: vec![group.id.0],
    });
    meta_db::RetentionPolicy {
        name: policy.name.clone(),
        duration_ns: policy.duration_ns,
        shard_group_duration_ns: policy.shard_group_duration_ns,
        replicas: policy.replicas,
        groups: groups.collect(),
        subscriptions: Vec::new(),
    }
}

async fn write_shard(
    stopped: &Stopped,
    selection: &Selection<'_>,
    database: &Database,
    policy: &RetentionPolicy,
    group: &ShardGroup,
    folder: &Path,
) -> anyhow::Result<()> {
    let within = |kind: &str| -> PathBuf {
        [kind, &database.name, &policy.name, &group.id.0.to_string()]
            .iter()
            .fold(folder.into(), |path, part| path.join(part))
    };
    for kind in ["data", "wal"] {
        fs::create_dir_all(within(kind)).with_context(|| within(kind).display().to_string())?;
    }
    let (start, end) = selection.range();
    let range = (start.max(group.start_ns), end.min(group.end_ns.saturating_sub(1)));
    let readers: Vec<SeriesReader> = (0..stopped.partitions.len())
        .map(|partition| SeriesReader::new(stopped, partition, database.id.0, &[group.id.0]))
        .collect();
    let mut order: Vec<(u32, SeriesId)> = Vec::new();
    for (partition, reader) in readers.iter().enumerate() {
        order.extend(reader.series().into_iter().map(|series| (partition as u32, series)));
    }
    order.sort_by(|a, b| {
        readers[a.0 as usize].with_key(a.1, |a| {
            readers[b.0 as usize].with_key(b.1, |b| a.iter().chain(key::SEPARATOR).cmp(b.iter().chain(key::SEPARATOR)))
        })
    });
    let mut shard = Shard { folder: within("data"), sequence: 0, open: None };
    for (partition, series) in order {
        let reader = &readers[partition as usize];
        let Some((series_key, fields)) = reader.known(series) else { continue };
        for field in fields.iter() {
            let mut key_bytes = Vec::new();
            key::join(&series_key, &field.name, &mut key_bytes)?;
            let mut pending = Pending { times: Vec::new(), values: None };
            let name = key_bytes.escape_ascii().to_string();
            let mut cursor = reader.cursor(series, &Rc::from([field.clone()]), range);
            while let Some(points) = cursor.next().await.with_context(|| name.clone())? {
                let Some(Some(column)) = points.columns.first() else { continue };
                pending.take(&points.times, column).with_context(|| name.clone())?;
                while pending.times.len() >= BLOCK_POINTS_DEFAULT {
                    shard.push(&key_bytes, &mut pending)?;
                }
            }
            while !pending.times.is_empty() {
                shard.push(&key_bytes, &mut pending)?;
            }
        }
    }
    shard.finish()
}

/// Points of one key that are in no block yet.
struct Pending {
    times: Vec<i64>,
    values: Option<Values>,
}

impl Pending {
    fn take(&mut self, times: &[i64], column: &Column) -> anyhow::Result<()> {
        let field_type = column.values.field_type();
        let values = self.values.get_or_insert_with(|| Values::new(field_type));
        if values.field_type() != field_type {
            bail!("holds {} and {field_type} values in one shard; upstream has no place for both", values.field_type());
        }
        for (row, time) in times.iter().enumerate().filter(|(row, _)| column.is_valid(*row)) {
            self.times.push(*time);
            values.push_from(&column.values, row);
        }
        Ok(())
    }
}

/// The files of one shard.
struct Shard {
    folder: PathBuf,
    sequence: u32,
    open: Option<Open>,
}

struct Open {
    writer: FileWriter,
    file: BufWriter<File>,
    buf: Vec<u8>,
}

impl Shard {
    /// Writes the first points as a block.
    fn push(&mut self, key: &[u8], pending: &mut Pending) -> anyhow::Result<()> {
        let Some(values) = &pending.values else { return Ok(()) };
        let count = pending.times.len().min(BLOCK_POINTS_DEFAULT);
        let (field_type, min, max) = (values.field_type(), pending.times[0], pending.times[count - 1]);
        let mut bytes = Vec::new();
        block::encode(&pending.times, values, 0..count, &mut bytes).with_context(|| key.escape_ascii().to_string())?;
        let statistics = BlockStatistics::of(&pending.times, values, 0..count);
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => self.begin()?,
            };
            let pushed = open.writer.push_block(key, field_type, min, max, &bytes, Some(&statistics), &mut open.buf);
            match pushed {
                Ok(()) => break,
                // Only a file that holds something is full.
                Err(WriteError::Index(_)) if !open.writer.is_empty() => self.finish()?,
                Err(error) => return Err(error).with_context(|| key.escape_ascii().to_string()),
            }
        }
        let rest = pending.times.split_off(count);
        let mut later = Values::new(field_type);
        later.extend_from(values, count..values.len());
        (pending.times, pending.values) = (rest, Some(later));
        if let Some(open) = &mut self.open {
            open.file.write_all(&open.buf)?;
            open.buf.clear();
            if open.writer.byte_count() >= FILE_BYTES_THRESHOLD {
                self.finish()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> anyhow::Result<&mut Open> {
        self.sequence += 1;
        let path = self.folder.join(format!("000000001-{:09}.tsm", self.sequence));
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let mut buf = Vec::new();
        let writer = FileWriter::begin(&mut buf);
        Ok(self.open.insert(Open { writer, file: BufWriter::with_capacity(1 << 20, file), buf }))
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let Some(Open { writer, mut file, mut buf }) = self.open.take() else { return Ok(()) };
        writer.finish(&mut buf);
        file.write_all(&buf)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(())
    }
}
