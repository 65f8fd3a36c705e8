//! What a master counts.

use super::Master;
use tidemill_http::metrics::TextWriter;
use tidemill_pool::Counts;

/// How the pool stands by what this master has applied, and what it has done as the leader of its present term.
#[derive(Clone, Copy, Debug, Default)]
pub struct MasterFigures {
    leads: u64,
    files: u64,
    files_short: u64,
    files_excess: u64,
    files_garbage: u64,
    copies_under_way: u64,
    slaves: u64,
    slaves_lost: u64,
    counts: Counts,
}

type Figure = (&'static str, &'static str, fn(&MasterFigures) -> u64);

impl Master {
    pub fn figures(&self) -> MasterFigures {
        let (pool, lead) = (self.machine.pool(), self.lead.borrow());
        MasterFigures {
            leads: u64::from(lead.is_some()),
            files: pool.files().len() as u64,
            files_short: pool.short().len() as u64,
            files_excess: pool.excess().len() as u64,
            files_garbage: pool.garbage().len() as u64,
            copies_under_way: lead.as_ref().map_or(0, |lead| lead.leader.copying().count() as u64),
            slaves: pool.slaves().len() as u64,
            slaves_lost: pool.slaves().values().filter(|slave| slave.is_lost).count() as u64,
            counts: lead.as_ref().map(|lead| *lead.leader.counts()).unwrap_or_default(),
        }
    }
}

impl MasterFigures {
    pub fn write(&self, writer: &mut TextWriter) {
        // What a leader has done begins at nothing with each: these are no counters.
        for (name, help, value) in FIGURES {
            writer.family(name, "gauge", help);
            writer.sample(name, &[], value(self) as f64);
        }
    }
}

const FIGURES: [Figure; 15] = [
    ("tidemill_master_leads", "Whether this node leads the masters of the pool.", |f| f.leads),
    ("tidemill_master_files", "Files of the pool.", |f| f.files),
    ("tidemill_master_short_files", "Of these, those with fewer copies than are wanted.", |f| f.files_short),
    ("tidemill_master_excess_files", "Of these, those with more copies than are wanted.", |f| f.files_excess),
    ("tidemill_master_garbage_files", "Of these, those that nobody owns any more.", |f| f.files_garbage),
    ("tidemill_master_copies", "Copies that slaves make now, by order of this node.", |f| f.copies_under_way),
    ("tidemill_master_slaves", "Slaves of the pool.", |f| f.slaves),
    ("tidemill_master_lost_slaves", "Of these, those that say nothing.", |f| f.slaves_lost),
    ("tidemill_master_placed_files", "First copies made since this node leads.", |f| f.counts.placed_files),
    ("tidemill_master_placed_bytes", "Their bytes.", |f| f.counts.placed_bytes),
    ("tidemill_master_repaired_files", "Copies in the place of lost ones since this node leads.", |f| {
        f.counts.repaired_files
    }),
    ("tidemill_master_repaired_bytes", "Their bytes.", |f| f.counts.repaired_bytes),
    ("tidemill_master_failed_copies", "Copies that failed, since this node leads.", |f| f.counts.fetches_failed),
    ("tidemill_master_deleted_copies", "Copies that slaves have deleted since this node leads.", |f| {
        f.counts.deleted_files
    }),
    ("tidemill_master_slaves_lost", "Times that a slave was lost since this node leads.", |f| f.counts.slaves_lost),
];
