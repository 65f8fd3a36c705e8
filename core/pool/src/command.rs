//! What may change the state of the pool, and how it does. Commands are entries of the masters' log.
//!
//! Which slave a copy goes to is decided before, by the leader ([`crate::Leader`]): here it is only looked at whether that
//! can still be. A command that does not fit the state any more changes nothing.
//! Invariants: a copy of an owned file is given up only where enough others stay; a file is forgotten only when nobody
//! owns it; what a partition says is not listened to behind a newer word of it.

use crate::{
    BadPoolBytes, FileId, Place,
    state::{File, Pool, Slave, Standing, put},
};
use rkyv::{Archive, Deserialize, Serialize, rancor::Error, util::AlignedVec};

/// First byte of a command in a log.
pub const COMMAND_PREFIX: u8 = 4;
/// Files that one command names at most: entries of a log are small.
pub const FILES_IN_COMMAND_MAX: usize = 4096;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Command {
    /// The slave is one of the pool, in this domain.
    Admit {
        slave: u64,
        domain: String,
    },
    SetStanding {
        slave: u64,
        standing: Standing,
    },
    /// The slave is none of the pool any more, and what it has is lost.
    Remove {
        slave: u64,
    },
    /// The slave says nothing.
    Lose {
        slave: u64,
    },
    /// It is there again. What it does not have any more is told by [`Command::Miss`].
    Regain {
        slave: u64,
    },
    /// The slave has not got these files.
    Miss {
        slave: u64,
        files: Vec<FileId>,
    },
    Place(Place),
    /// What has changed of what a partition has in the pool.
    Own {
        partition: u32,
        term: u64,
        index: u64,
        added: Vec<(FileId, u8)>,
        given_up: Vec<FileId>,
    },
    /// The file is to be copied to these slaves.
    Assign {
        file: FileId,
        slaves: Vec<u64>,
    },
    /// No more.
    Unassign {
        file: FileId,
        slave: u64,
    },
    /// The slave has these files for good; with their sizes.
    Hold {
        slave: u64,
        files: Vec<(FileId, u64)>,
    },
    /// The slave's copies are not needed.
    GiveUp {
        slave: u64,
        files: Vec<FileId>,
    },
    /// Files that nobody owns.
    Forget {
        files: Vec<FileId>,
    },
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// The partition has a leader of this newer term.
    Fenced {
        term: u64,
    },
    Refused(&'static str),
}

impl Command {
    /// As it stands in a log.
    pub fn encode(&self) -> Vec<u8> {
        let archive = rkyv::to_bytes::<Error>(self).expect("a command has no part that can fail to serialize");
        let mut bytes = Vec::with_capacity(1 + archive.len());
        bytes.push(COMMAND_PREFIX);
        bytes.extend_from_slice(&archive);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Command, BadPoolBytes> {
        let Some((&COMMAND_PREFIX, archive)) = bytes.split_first() else { return Err(BadPoolBytes) };
        let mut aligned = AlignedVec::<16>::with_capacity(archive.len());
        aligned.extend_from_slice(archive);
        rkyv::from_bytes::<Command, Error>(&aligned).map_err(|_| BadPoolBytes)
    }
}

impl Pool {
    /// Applies one command.
    pub fn apply(&mut self, command: Command) -> Applied {
        match command {
            Command::Admit { slave, domain } => self.admit(slave, domain),
            Command::SetStanding { slave, standing } => self.change(slave, |known| known.standing = standing),
            Command::Remove { slave } => self.remove(slave),
            Command::Lose { slave } => self.lose(slave),
            Command::Regain { slave } => self.change(slave, |known| known.is_lost = false),
            Command::Miss { slave, files } => self.miss(slave, &files),
            Command::Place(place) => self.place(place),
            Command::Own { partition, term, index, added, given_up } => {
                self.own(partition, term, index, &added, &given_up)
            }
            Command::Assign { file, slaves } => self.assign(&file, &slaves),
            Command::Unassign { file, slave } => self.unassign(&file, slave),
            Command::Hold { slave, files } => self.hold(slave, &files),
            Command::GiveUp { slave, files } => self.give_up(slave, &files),
            Command::Forget { files } => self.forget(&files),
        }
    }

    fn admit(&mut self, slave: u64, domain: String) -> Applied {
        let new = Slave { domain: domain.clone(), standing: Standing::Active, is_lost: false };
        self.slaves.entry(slave).or_insert(new).domain = domain;
        Applied::Done
    }

    fn change(&mut self, slave: u64, change: impl FnOnce(&mut Slave)) -> Applied {
        let Some(known) = self.slaves.get_mut(&slave) else { return Applied::Refused("no slave of the pool") };
        change(known);
        self.classify_all_of(slave);
        Applied::Done
    }

    fn remove(&mut self, slave: u64) -> Applied {
        if self.slaves.remove(&slave).is_none() {
            return Applied::Refused("no slave of the pool");
        }
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            self.edit(&id, |file| {
                file.durable.retain(|known| *known != slave);
                file.targets.retain(|known| *known != slave);
            });
        }
        Applied::Done
    }

    /// What was on its way to it goes elsewhere.
    fn lose(&mut self, slave: u64) -> Applied {
        let Some(known) = self.slaves.get_mut(&slave) else { return Applied::Refused("no slave of the pool") };
        known.is_lost = true;
        for id in self.under_way.iter().copied().collect::<Vec<_>>() {
            self.edit(&id, |file| file.targets.retain(|known| *known != slave));
        }
        self.classify_all_of(slave);
        Applied::Done
    }

    fn miss(&mut self, slave: u64, files: &[FileId]) -> Applied {
        for id in files {
            self.edit(id, |file| file.durable.retain(|known| *known != slave));
        }
        Applied::Done
    }

    fn place(&mut self, place: Place) -> Applied {
        if place.copies == 0 {
            return Applied::Refused("a file is to have a copy at least");
        }
        if let Err(fenced) = self.hear(place.partition, place.term, None) {
            return fenced;
        }
        let file = self.files.entry(place.file).or_insert_with(|| File::of(&place));
        if file.size != 0 && file.size != place.size {
            return Applied::Refused("the file is known with another size");
        }
        file.size = place.size;
        (file.min_time, file.max_time) = (place.min_time, place.max_time);
        file.own(place.partition, place.copies);
        file.sources = place.sources;
        self.classify(&place.file);
        Applied::Done
    }

    /// Notes what is heard of a partition, unless it is older than what was.
    fn hear(&mut self, partition: u32, term: u64, index: Option<u64>) -> Result<(), Applied> {
        let heard = self.partitions.entry(partition).or_default();
        if term < heard.term {
            return Err(Applied::Fenced { term: heard.term });
        }
        if index.is_some_and(|index| index < heard.index) {
            return Err(Applied::Refused("the partition has said something newer"));
        }
        heard.term = term;
        heard.index = index.unwrap_or(heard.index);
        Ok(())
    }

    fn own(&mut self, partition: u32, term: u64, index: u64, added: &[(FileId, u8)], given_up: &[FileId]) -> Applied {
        if let Err(refused) = self.hear(partition, term, Some(index)) {
            return refused;
        }
        for (id, copies) in added {
            let file = self.files.entry(*id).or_insert_with(|| File {
                size: 0,
                min_time: 0,
                max_time: 0,
                owners: Vec::new(),
                sources: Vec::new(),
                targets: Vec::new(),
                durable: Vec::new(),
                was_complete: false,
            });
            file.own(partition, (*copies).max(1));
            self.classify(id);
        }
        for id in given_up {
            self.edit(id, |file| file.owners.retain(|(owner, _)| *owner != partition));
        }
        Applied::Done
    }

    fn assign(&mut self, id: &FileId, slaves: &[u64]) -> Applied {
        for slave in slaves {
            let takes =
                self.slaves.get(slave).is_some_and(|slave| !slave.is_lost && slave.standing == Standing::Active);
            if takes {
                self.edit(id, |file| {
                    if !file.owners.is_empty() && !file.durable.contains(slave) {
                        put(&mut file.targets, *slave);
                    }
                });
            }
        }
        Applied::Done
    }

    fn unassign(&mut self, id: &FileId, slave: u64) -> Applied {
        self.edit(id, |file| file.targets.retain(|known| *known != slave));
        Applied::Done
    }

    fn hold(&mut self, slave: u64, files: &[(FileId, u64)]) -> Applied {
        if !self.slaves.contains_key(&slave) {
            return Applied::Refused("no slave of the pool");
        }
        for (id, size) in files {
            self.edit(id, |file| {
                if file.size == 0 {
                    file.size = *size;
                }
                // Other bytes cannot have this name.
                if file.size == *size {
                    put(&mut file.durable, slave);
                    file.targets.retain(|known| *known != slave);
                }
            });
        }
        Applied::Done
    }

    fn give_up(&mut self, slave: u64, files: &[FileId]) -> Applied {
        for id in files {
            let Some(file) = self.files.get(id) else { continue };
            let left = file.durable.iter().filter(|other| **other != slave && self.keeps(**other)).count();
            if left >= file.wanted() && !file.owners.is_empty() {
                self.edit(id, |file| file.durable.retain(|known| *known != slave));
            }
        }
        Applied::Done
    }

    fn forget(&mut self, files: &[FileId]) -> Applied {
        for id in files {
            if self.files.get(id).is_some_and(|file| file.owners.is_empty()) {
                self.files.remove(id);
                self.classify(id);
            }
        }
        Applied::Done
    }

    fn edit(&mut self, id: &FileId, change: impl FnOnce(&mut File)) {
        if let Some(file) = self.files.get_mut(id) {
            change(file);
            self.classify(id);
        }
    }
}
