//! Archives: manifests, entries of partitions, and commands and snapshots of the metadata are refused or read, and what
//! was read comes back from its bytes. The first byte chooses an archive of real values, which the rest damages.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rkyv::rancor::Error;
use tidemill_column::FieldType;
use tidemill_meta::{DatabaseId, FieldDefinition, Meta, PolicyChange, PolicyId, PolicySpec, PoolPolicy, ShardGroupId};
use tidemill_store::{
    Command, CopyOrder, CopyRecord, Entry, FileRecord, Floats, GroupRecord, HandedFile, IndexRecord, Manifest,
    Measurements, PolicyRecord, Sessions, TagCondition, Tier, Tombstone,
};

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    let archives = ARCHIVES.get_or_init(archives);
    let (kind, archive) = &archives[usize::from(first) % archives.len()];
    read(*kind, rest);
    let mut damaged = archive.clone();
    for change in rest.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % damaged.len();
        damaged[at] = change[2];
    }
    let at = damaged.len() - rest.chunks_exact(3).remainder().len();
    read(*kind, &damaged[..at]);
});

#[derive(Clone, Copy)]
enum Kind {
    Manifest,
    Entry,
    Meta,
    MetaCommand,
}

static ARCHIVES: OnceLock<Vec<(Kind, Vec<u8>)>> = OnceLock::new();

fn read(kind: Kind, bytes: &[u8]) {
    match kind {
        Kind::Manifest => {
            let _ = Manifest::decode(bytes, "m");
            if let Ok(manifest) = Manifest::decode(&sealed(bytes), "m") {
                manifest.files.iter().for_each(|file| assert!(file.name().ends_with(".tsm")));
                let again = rkyv::to_bytes::<Error>(&manifest).unwrap();
                assert_eq!(Manifest::decode(&sealed(&again), "m").unwrap(), manifest);
            }
        }
        Kind::Entry => {
            let Ok(Entry::Command(command)) = Entry::parse(bytes) else { return };
            let again = command.encode();
            assert!(matches!(Entry::parse(&again), Ok(Entry::Command(again)) if again == command));
            if let Command::Delete { condition, .. } = command {
                let _ = condition.compile();
            }
        }
        Kind::Meta => {
            let Ok(meta) = Meta::decode(bytes) else { return };
            assert_eq!(Meta::decode(&meta.encode()).unwrap(), meta);
            for policy in meta.databases().iter().flat_map(|database| &database.policies) {
                policy.group_at(0);
                policy.groups_in(i64::MIN, i64::MAX).for_each(drop);
            }
        }
        Kind::MetaCommand => {
            let Ok(command) = tidemill_meta::Command::decode(bytes) else { return };
            assert_eq!(tidemill_meta::Command::decode(&command.encode()).unwrap(), command);
        }
    }
}

/// The body of a manifest behind the header that it wants.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"TMILLMAN\x04\0\0\0".to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn archives() -> Vec<(Kind, Vec<u8>)> {
    let mut meta = Meta::default();
    let mut archives = Vec::new();
    for command in meta_commands() {
        archives.push((Kind::MetaCommand, command.encode()));
        meta.apply(command).unwrap();
        archives.push((Kind::Meta, meta.encode()));
    }
    archives.extend(commands().iter().map(|command| (Kind::Entry, command.encode())));
    archives.push((Kind::Manifest, rkyv::to_bytes::<Error>(&manifest()).unwrap().into_vec()));
    for (kind, archive) in &archives {
        read(*kind, archive);
    }
    archives
}

fn meta_commands() -> Vec<tidemill_meta::Command> {
    use tidemill_meta::Command::*;
    let hour_ns = 3_600_000_000_000;
    let policy =
        PolicySpec { name: "p".into(), duration_ns: 48 * hour_ns, shard_group_duration_ns: hour_ns, replicas: 1 };
    let change = PolicyChange { duration_ns: Some(0), shard_group_duration_ns: None, replicas: Some(2), default: true };
    let pool = PoolPolicy { copies: Some(3), after_ns: Some(7), keeps_local: None };
    let fields = [
        FieldDefinition::new(b"f", FieldType::Float),
        FieldDefinition::new(b"a long name of a field", FieldType::String),
    ];
    vec![
        CreateDatabase { name: "d".into(), policy: None, autocreate_policy: true },
        CreatePolicy { database: "d".into(), policy, default: false },
        CreateShardGroups {
            database: DatabaseId(1),
            policy: PolicyId(1),
            times_ns: vec![0, 1, 1_700_000_000_000_000_000],
        },
        DefineFields { group: ShardGroupId(1), measurement: b"cpu".to_vec(), fields: fields.to_vec() },
        AlterPolicy { database: "d".into(), name: "p".into(), change },
        ForgetMeasurement { database: DatabaseId(1), measurement: b"mem".to_vec() },
        SetPoolPolicy { database: "d".into(), policy: "p".into(), pool },
    ]
}

fn commands() -> Vec<Command> {
    let equal = |key: &str| TagCondition::Equal { key: key.into(), value: b"a value of some length".to_vec() };
    let matches = TagCondition::Matches { key: b"dc".to_vec(), regex: "x|y".into() };
    let delete =
        |measurements, condition| Command::Delete { database: 1, measurements, condition, min_time: -5, max_time: 5 };
    let handed = vec![HandedFile { generation: 12, sequence: 1, hash: [7; 32] }];
    vec![
        Command::PLAIN_FLUSH,
        Command::Flush { floats: Floats::Alp },
        Command::Copy(order()),
        Command::HandOver { shard_group: 7, files: handed, keeps_local: true },
        Command::DropDatabase { database: 1, groups: vec![1, 2, 3] },
        delete(Measurements::Matching("^cpu".into()), TagCondition::All),
        delete(
            Measurements::Named(vec![b"cpu".to_vec(), b"a longer measurement".to_vec()]),
            TagCondition::And(vec![equal("host"), TagCondition::Or(vec![equal("rack"), matches])]),
        ),
    ]
}

fn order() -> CopyOrder {
    CopyOrder {
        shard_group: 7,
        ordered_through: 12,
        late_through: 3,
        sealed: vec![4, 9],
        with_deleted: true,
        floats: Floats::Alp,
        file_bytes_max: 1 << 20,
    }
}

fn manifest() -> Manifest {
    let tombstone = |field, condition| {
        let measurements = Measurements::Named(vec![b"cpu".to_vec(), b"mem".to_vec()]);
        Tombstone { index: 13, measurements, condition, field, min_time: 0, max_time: 1 }
    };
    let file = |sequence| FileRecord {
        database: 1,
        policy: 1,
        shard_group: 7,
        generation: 12,
        sequence,
        level: 2,
        late: sequence == 2,
        tier: [Tier::Local, Tier::Both, Tier::Pool][sequence as usize],
        hash: [7; 32],
        size: 4096,
        blocks_end: 70,
        directory_offset: 75,
        index_offset: 77,
        tail_crc: 5,
        min_time: -3,
        max_time: 9,
        points: 3,
        tombstones: vec![
            tombstone(Some(b"usage".to_vec()), TagCondition::All),
            tombstone(None, TagCondition::Or(vec![TagCondition::Matches { key: b"host".to_vec(), regex: "a".into() }])),
        ],
    };
    let mut sessions = Sessions::default();
    for session in 1..12 {
        sessions.note(session, session * 2, 0);
    }
    Manifest {
        flushed_index: 12,
        flushed_term: 2,
        files: vec![file(1), file(2)],
        sessions,
        groups: vec![GroupRecord { shard_group: 7, database: 1, policy: 1, newest: 9 }],
        policies: vec![PolicyRecord { database: 1, policy: 1, floor: -3 }],
        copies_index: 14,
        members: Vec::new(),
        copies: vec![CopyRecord { index: 14, order: order(), handed: vec![(file(1).handed(), Tier::Both)] }],
        index: Some(IndexRecord { generation: 1, size: 4096, crc: 9, is_behind: false }),
    }
}
