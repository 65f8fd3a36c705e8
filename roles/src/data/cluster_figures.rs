//! What a node of a cluster counts beside a server without others.

use crate::{
    data::core::DataCore,
    links::LinkMetrics,
    pool::reader::{PoolReader, ReaderFigures},
};
use tidemill_http::metrics::TextWriter;
use tidemill_peer::PeerMetrics;

/// Of one core.
pub struct ClusterFigures {
    groups: u64,
    groups_led: u64,
    groups_leaderless: u64,
    links: LinkMetrics,
    reader: ReaderFigures,
    shipped_files: u64,
    shipped_bytes: u64,
    waiting_files: u64,
    waiting_bytes: u64,
    short: u64,
}

type Figure = (&'static str, &'static str, fn(&ClusterFigures) -> u64);

impl ClusterFigures {
    /// None without a cluster.
    pub fn of(core: &DataCore) -> Option<ClusterFigures> {
        let links = core.links.as_ref()?;
        let leaders: Vec<u64> = core.groups().map(|group| core.replicas.leader(group).0).collect();
        let own = core.replicas.placement().node.0;
        let count = |wanted: u64| leaders.iter().filter(|leader| **leader == wanted).count() as u64;
        Some(ClusterFigures {
            groups: leaders.len() as u64,
            groups_led: count(own),
            groups_leaderless: count(0),
            links: links.metrics(),
            reader: core.pool.reader.as_ref().map(PoolReader::figures).unwrap_or_default(),
            shipped_files: core.pool.shipping.files.get(),
            shipped_bytes: core.pool.shipping.bytes.get(),
            waiting_files: core.pool.shipping.waiting_files.get(),
            waiting_bytes: core.pool.shipping.waiting_bytes.get(),
            short: core.pool.shipping.short.get(),
        })
    }
}

/// The figures of all cores that have some.
pub fn write(writer: &mut TextWriter, cores: &[Option<&ClusterFigures>]) {
    for (kind, figures) in [("gauge", &GAUGES[..]), ("counter", &COUNTERS[..])] {
        for (name, help, value) in figures {
            let mut is_named = false;
            for (core, figures) in cores.iter().enumerate() {
                let Some(figures) = figures else { continue };
                if !is_named {
                    writer.family(name, kind, help);
                    is_named = true;
                }
                writer.sample(name, &[("core", &core.to_string())], value(figures) as f64);
            }
        }
    }
}

const GAUGES: [Figure; 7] = [
    ("tidemill_groups", "Replicas of partitions and metadata.", |c| c.groups),
    ("tidemill_groups_led", "Of these, those that this node leads.", |c| c.groups_led),
    ("tidemill_groups_leaderless", "Of these, those of which no leader is known.", |c| c.groups_leaderless),
    ("tidemill_peer_connections", "Connections to cores of other nodes.", |c| {
        of_peer(c, |peer| peer.connections as u64)
    }),
    ("tidemill_pool_waiting_files", "Files of led partitions that are due and not in the pool.", |c| c.waiting_files),
    ("tidemill_pool_waiting_bytes", "Bytes of these.", |c| c.waiting_bytes),
    ("tidemill_pool_short_partitions", "Led partitions whose files the pool does not take.", |c| c.short),
];

const COUNTERS: [Figure; 30] = [
    ("tidemill_pool_shipped_files_total", "Files that were handed over to the pool.", |c| c.shipped_files),
    ("tidemill_pool_shipped_bytes_total", "Bytes of these.", |c| c.shipped_bytes),
    ("tidemill_pool_reads_total", "Reads of blocks that are in the pool.", |c| c.reader.reads),
    ("tidemill_pool_read_bytes_total", "Bytes of these.", |c| c.reader.bytes),
    ("tidemill_pool_read_retries_total", "Questions to another copy.", |c| c.reader.retries),
    ("tidemill_pool_reads_ahead_total", "Reads whose bytes were on their way before.", |c| c.reader.ahead),
    ("tidemill_pool_read_failures_total", "Reads for which no copy was left.", |c| c.reader.failures),
    ("tidemill_raft_messages_sent_total", "Messages to other nodes but heartbeats.", |c| c.links.messages_sent),
    ("tidemill_raft_heartbeats_sent_total", "Heartbeats and answers to them.", |c| c.links.heartbeats_sent),
    ("tidemill_raft_messages_dropped_total", "For want of a connection or of room.", |c| c.links.messages_dropped),
    ("tidemill_raft_messages_received_total", "Messages of other nodes.", |c| c.links.messages_received),
    ("tidemill_peer_undecodable_total", "What came and could not be read.", |c| c.links.undecodable),
    ("tidemill_peer_misshapen_total", "What came of nodes with other partitions or members.", |c| c.links.misshapen),
    ("tidemill_peer_foreign_total", "What came in another node's name.", |c| c.links.foreign),
    ("tidemill_peer_calls_total", "Batches and changes passed to their leaders, and other questions.", |c| {
        c.links.calls
    }),
    ("tidemill_peer_calls_not_sent_total", "Of these, those that did not leave.", |c| c.links.calls_not_sent),
    ("tidemill_peer_calls_unknown_total", "Of these, those of whose fate nobody knows.", |c| c.links.calls_unknown),
    ("tidemill_peer_calls_answered_total", "Questions of other nodes that were answered.", |c| c.links.calls_answered),
    ("tidemill_peer_reads_total", "Parts of queries that other nodes were asked for.", |c| c.links.reads),
    ("tidemill_peer_reads_answered_total", "Parts of queries of other nodes.", |c| c.links.reads_answered),
    ("tidemill_peer_files_sent_total", "Files given to other nodes.", |c| c.links.files_sent),
    ("tidemill_peer_bytes_sent_total", "UDP payload to other nodes.", |c| of_peer(c, |peer| peer.bytes_sent)),
    ("tidemill_peer_bytes_received_total", "UDP payload of other nodes.", |c| of_peer(c, |peer| peer.bytes_received)),
    ("tidemill_peer_copied_bytes_total", "Payload that was copied on its way.", |c| {
        of_peer(c, |peer| peer.bytes_copied_out + peer.bytes_copied_in)
    }),
    ("tidemill_peer_file_bytes_sent_total", "Bytes of files to other nodes.", |c| {
        of_peer(c, |peer| peer.file_bytes_sent)
    }),
    ("tidemill_peer_file_bytes_received_total", "Bytes of files of other nodes.", |c| {
        of_peer(c, |peer| peer.file_bytes_received)
    }),
    ("tidemill_peer_file_copied_out_bytes_total", "Of what was sent of files, what was copied first.", |c| {
        of_peer(c, |peer| peer.file_bytes_copied_out)
    }),
    (
        "tidemill_peer_file_copied_in_bytes_total",
        "Bytes copied from the transport to where files are written from.",
        |c| of_peer(c, |peer| peer.file_bytes_copied_in),
    ),
    ("tidemill_peer_packets_lost_total", "Packets that were sent again.", |c| of_peer(c, |peer| peer.packets_lost)),
    ("tidemill_peer_connections_lost_total", "Connections that ended.", |c| of_peer(c, |peer| peer.connections_lost)),
];

fn of_peer(figures: &ClusterFigures, value: fn(&PeerMetrics) -> u64) -> u64 {
    figures.links.peer.as_ref().map_or(0, value)
}
