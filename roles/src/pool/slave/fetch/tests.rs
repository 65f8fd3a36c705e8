//! Files from sources that lie, stall and break, onto disks that fill up, fail and lose power.

use super::{
    super::files::{FILES_FOLDER, Files, PARTS_FOLDER, file_of_name},
    *,
};
use crate::replica::Inflow;
use std::rc::Rc;
use tidemill_disk::{
    DiskFile,
    sim::{Crash, Executor, Fault, Operation, Prng, SimDisk},
};

/// What a source does with the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Whole,
    /// Breaks off behind so many bytes of each part.
    Breaks(usize),
    /// Gives so many bytes in all.
    Dies(u64),
    /// Says nothing behind so many bytes, ever.
    Stalls(usize),
    /// This byte is another one.
    Lies(u64),
    /// The transport's checksum is wrong.
    WrongEnd,
    Absent,
}

struct FakeSource {
    content: Rc<Vec<u8>>,
    manner: Manner,
    asked: Cell<u64>,
    given_bytes: Cell<u64>,
}

#[derive(Clone, Default)]
struct Fakes(Rc<RefCell<BTreeMap<NodeId, Rc<FakeSource>>>>);

struct Flow {
    source: Rc<FakeSource>,
    part: FilePart,
    given: usize,
}

impl Sources for Fakes {
    fn open(&self, from: NodeId, group: GroupId, part: FilePart) -> LocalFuture<'_, Result<Box<dyn Inflow>, String>> {
        let source = self.0.borrow().get(&from).cloned();
        Box::pin(async move {
            let source = source.ok_or("no such node")?;
            let is_right = group == POOL_FILES && file_of_name(&part.name).is_some() || part.name.starts_with("g1/");
            assert!(is_right, "{group} {part:?}");
            source.asked.set(source.asked.get() + 1);
            if source.manner == Manner::Absent {
                return Err("it has no such file".to_owned());
            }
            Ok(Box::new(Flow { source, part, given: 0 }) as Box<dyn Inflow>)
        })
    }
}

impl Inflow for Flow {
    fn fill<'a>(&'a mut self, block: &'a mut [u8]) -> LocalFuture<'a, Result<usize, String>> {
        Box::pin(async move {
            let left = self.part.length as usize - self.given;
            let count = left.min(block.len());
            match self.source.manner {
                Manner::Breaks(after) if self.given + count > after => return Err("the connection was lost".into()),
                Manner::Dies(after) if self.source.given_bytes.get() + count as u64 > after => {
                    return Err("the connection was lost".into());
                }
                Manner::Stalls(after) if self.given + count > after => future::pending().await,
                Manner::WrongEnd if left == 0 => return Err("its checksum is wrong".into()),
                _ => {}
            }
            let from = self.part.offset as usize + self.given;
            block[..count].copy_from_slice(&self.source.content[from..from + count]);
            if let Manner::Lies(at) = self.source.manner
                && (from..from + count).contains(&(at as usize))
            {
                block[at as usize - from] ^= 1;
            }
            self.given += count;
            self.source.given_bytes.set(self.source.given_bytes.get() + count as u64);
            Ok(count)
        })
    }
}

struct Scene {
    fakes: Fakes,
    file: FileId,
    content: Rc<Vec<u8>>,
}

impl Scene {
    fn new(seed: u64, size: usize, manners: &[Manner]) -> Scene {
        let mut prng = Prng::new(seed);
        let mut content = Vec::with_capacity(size + 8);
        while content.len() < size {
            content.extend_from_slice(&prng.next_u64().to_le_bytes());
        }
        content.truncate(size);
        let content = Rc::new(content);
        let file = FileId(*blake3::hash(&content).as_bytes());
        let scene = Scene { fakes: Fakes::default(), file, content };
        (1..).zip(manners).for_each(|(node, manner)| scene.behaves(node, *manner));
        scene
    }

    fn behaves(&self, node: u64, manner: Manner) {
        let source =
            FakeSource { content: self.content.clone(), manner, asked: Cell::new(0), given_bytes: Cell::new(0) };
        self.fakes.0.borrow_mut().insert(NodeId(node), Rc::new(source));
    }

    fn given(&self, node: u64) -> u64 {
        self.fakes.0.borrow()[&NodeId(node)].given_bytes.get()
    }

    /// Odd nodes are slaves, even ones have the file in a partition.
    fn sources(&self) -> Vec<Source> {
        let source = |node: &NodeId| match node.0 % 2 {
            1 => Source::Slave(node.0),
            _ => Source::Data { node: node.0, partition: 7, name: "g1/0-0.tsm".into() },
        };
        self.fakes.0.borrow().keys().map(source).collect()
    }

    async fn fetch(&self, disk: &SimDisk) -> Result<(), FetchError> {
        let way = Way {
            sources: Box::new(self.fakes.clone()),
            own: NodeId(99),
            // As long as everything else that can go on takes.
            stall: Box::new(|| Box::pin(yields(3_000))),
            pause: Box::new(|| Box::pin(yields(3))),
        };
        let arrived = Cell::new(0);
        let size = self.content.len() as u64;
        let fetched = fetch(disk, (self.file, size), &self.sources(), &way, &arrived).await;
        assert!(arrived.get() <= size);
        if fetched.is_ok() {
            assert_eq!(arrived.get(), size);
        }
        fetched
    }

    fn path(&self) -> String {
        format!("{FILES_FOLDER}/{}", name_of(&self.file))
    }
}

async fn yields(count: u64) {
    for _ in 0..count {
        future::yield_now().await;
    }
}

fn run<T>(seed: u64, work: impl Future<Output = T>) -> T {
    Executor::new(seed).block_on(work)
}

async fn prepared(disk: &SimDisk) -> Files<SimDisk> {
    Files::open(disk.clone()).await.unwrap()
}

const MIB: usize = CHUNK_BYTES;

#[test]
fn files_of_all_sizes_come_from_any_number_of_sources() {
    for (seed, size) in [1, 4095, MIB - 1, MIB, MIB + 1, 18 * MIB + 77, 40 * MIB].into_iter().enumerate() {
        for sources in [1, 3, 6] {
            let scene = Scene::new(seed as u64, size, &vec![Manner::Whole; sources]);
            let disk = SimDisk::new(seed as u64);
            run(1, async {
                prepared(&disk).await;
                scene.fetch(&disk).await.unwrap();
            });
            assert!(disk.content(&scene.path()).as_ref() == Some(&*scene.content), "{size} from {sources}");
            assert_eq!(disk.paths().len(), 1, "nothing is left over: {:?}", disk.paths());
        }
    }
}

#[test]
fn many_sources_share_the_work() {
    let scene = Scene::new(1, 60 * MIB, &[Manner::Whole; 3]);
    let disk = SimDisk::new(1);
    run(1, async {
        prepared(&disk).await;
        scene.fetch(&disk).await.unwrap();
    });
    let given: Vec<u64> = (1..=3).map(|node| scene.given(node)).collect();
    assert_eq!(given.iter().sum::<u64>(), 60 * MIB as u64, "no chunk comes twice");
    assert!(given.iter().all(|bytes| *bytes > 0), "{given:?}");
}

#[test]
fn sources_that_break_stall_and_have_nothing_are_replaced() {
    let bad = [
        Manner::Dies(9 * MIB as u64),
        Manner::Breaks(0),
        Manner::Breaks(5 * MIB),
        Manner::Stalls(0),
        Manner::Stalls(3 * MIB + 9),
        Manner::WrongEnd,
        Manner::Absent,
    ];
    for manner in bad {
        let scene = Scene::new(3, 37 * MIB + 5, &[manner, Manner::Whole, manner]);
        let disk = SimDisk::new(1);
        run(1, async {
            prepared(&disk).await;
            scene.fetch(&disk).await.unwrap();
        });
        assert!(disk.content(&scene.path()).as_ref() == Some(&*scene.content), "{manner:?}");
    }
}

#[test]
fn without_a_whole_source_it_says_why_and_goes_on_later_where_it_was() {
    let scene = Scene::new(3, 40 * MIB + 5, &[Manner::Dies(17 * MIB as u64), Manner::Absent]);
    let disk = SimDisk::new(1);
    run(1, async {
        prepared(&disk).await;
        let failed = scene.fetch(&disk).await.unwrap_err().to_string();
        assert!(failed.contains("the connection was lost") && failed.contains("no such file"), "{failed}");
        assert!(disk.content(&scene.path()).is_none());
        let before = scene.given(1);
        assert!(before >= 7 * MIB as u64);
        scene.behaves(1, Manner::Whole);
        scene.fetch(&disk).await.unwrap();
        assert_eq!(before + scene.given(1), scene.content.len() as u64, "what was here is not fetched again");
    });
    assert!(disk.content(&scene.path()).as_ref() == Some(&*scene.content));
}

#[test]
fn a_source_with_other_bytes_is_found_out_wherever_they_are() {
    for at in [0, 5 * MIB as u64 + 3, 33 * MIB as u64 + 4] {
        for manners in [[Manner::Lies(at), Manner::Whole], [Manner::Whole, Manner::Lies(at)]] {
            let scene = Scene::new(4, 33 * MIB + 5, &manners);
            let disk = SimDisk::new(1);
            run(1, async {
                prepared(&disk).await;
                scene.fetch(&disk).await.unwrap();
            });
            assert!(disk.content(&scene.path()).as_ref() == Some(&*scene.content), "{manners:?}");
        }
    }
    let scene = Scene::new(4, 3 * MIB, &[Manner::Lies(9), Manner::Lies(8)]);
    let disk = SimDisk::new(1);
    run(1, async {
        prepared(&disk).await;
        let failed = scene.fetch(&disk).await.unwrap_err();
        assert!(matches!(failed, FetchError::Wrong(_)), "{failed}");
    });
    assert!(disk.paths().is_empty(), "nothing of it is kept: {:?}", disk.paths());
}

#[test]
fn a_part_that_rotted_or_lost_its_journal_is_no_harm() {
    for damage in 0..5 {
        let scene = Scene::new(5, 20 * MIB + 5, &[Manner::Dies(9 * MIB as u64)]);
        let disk = SimDisk::new(1);
        run(1, async {
            prepared(&disk).await;
            scene.fetch(&disk).await.unwrap_err();
            let part = format!("{PARTS_FOLDER}/{}", scene.file);
            let journal = format!("{part}.journal");
            match damage {
                0 => disk.flip_bit(&part, 3 * MIB + 8, 1),
                1 => disk.lose(&journal),
                2 => disk.lose(&part),
                3 => disk.flip_bit(&journal, 20, 1),
                _ => disk.flip_bit(&journal, 4096 + 50, 1),
            }
            scene.behaves(1, Manner::Whole);
            scene.fetch(&disk).await.unwrap();
        });
        assert!(disk.content(&scene.path()).as_ref() == Some(&*scene.content), "damage {damage}");
        assert_eq!(disk.paths().len(), 1);
    }
}

#[test]
fn a_full_disk_is_named_and_left_free() {
    let scene = Scene::new(6, 20 * MIB, &[Manner::Whole, Manner::Whole]);
    let disk = SimDisk::new(1);
    run(1, async {
        prepared(&disk).await;
        disk.set_capacity(Some(9 * MIB as u64));
        let failed = scene.fetch(&disk).await.unwrap_err();
        assert!(matches!(failed, FetchError::NoRoom(_)), "{failed}");
        assert_eq!(disk.used_bytes(), 0);
        disk.set_capacity(Some(21 * MIB as u64));
        scene.fetch(&disk).await.unwrap();
    });
    assert!(disk.content(&scene.path()).as_ref() == Some(&*scene.content));
}

/// What was called stored is there and whole, whenever the power fails; what was not goes on.
#[test]
fn no_crash_loses_what_was_stored_and_every_part_goes_on() {
    let scene = Scene::new(7, 3 * MIB + 100, &[Manner::Whole, Manner::Whole]);
    let mut operations = 0;
    for nth in 1.. {
        let disk = SimDisk::new(nth);
        let stored = run(nth, async {
            prepared(&disk).await;
            disk.crash_at(nth);
            scene.fetch(&disk).await.is_ok()
        });
        for crash in Crash::ALL {
            let after = disk.crash(crash, nth);
            run(nth, async {
                let files = prepared(&after).await;
                let is_there = files.size(&scene.file).is_some();
                assert!(is_there || !stored, "operation {nth}, {crash:?}: what was stored is gone");
                if is_there {
                    assert!(after.content(&scene.path()).as_ref() == Some(&*scene.content), "{nth} {crash:?}");
                } else {
                    scene.fetch(&after).await.unwrap();
                    assert!(after.content(&scene.path()).as_ref() == Some(&*scene.content), "{nth} {crash:?}");
                }
            });
        }
        operations = nth;
        if stored {
            break;
        }
    }
    assert!(operations > 15, "{operations}");
}

/// An error of the disk at any step is an error of the fetch, and the next one succeeds.
#[test]
fn every_error_of_the_disk_is_told_and_the_next_try_succeeds() {
    let scene = Scene::new(8, 2 * MIB + 100, &[Manner::Whole]);
    for operation in [
        Operation::Write,
        Operation::SyncData,
        Operation::Rename,
        Operation::SyncDir,
        Operation::Create,
        Operation::SetLen,
    ] {
        for nth in 1..=3 {
            let disk = SimDisk::new(nth);
            run(nth, async {
                let files = prepared(&disk).await;
                disk.fail_at(Some(operation), nth, Fault::Eio);
                if scene.fetch(&disk).await.is_err() {
                    // Renamed and not synced: a start finds it or not.
                    let files = Files::open(disk.clone()).await.unwrap_or(files);
                    if files.size(&scene.file).is_none() {
                        scene.fetch(&disk).await.unwrap();
                    }
                }
            });
            assert!(disk.content(&scene.path()).as_ref() == Some(&*scene.content), "{operation:?} {nth}");
        }
    }
}

#[test]
fn a_part_is_never_written_behind_its_file() {
    // The file's own length, not whole blocks.
    let scene = Scene::new(9, MIB + 3, &[Manner::Whole]);
    let disk = SimDisk::new(1);
    run(1, async {
        prepared(&disk).await;
        scene.fetch(&disk).await.unwrap();
        let file = disk.open(&scene.path(), tidemill_disk::Purpose::Data).await.unwrap();
        assert_eq!(file.len().await.unwrap(), MIB as u64 + 3);
    });
}
