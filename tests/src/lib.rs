//! Drives whole server processes over HTTP and holds the parts that the scenarios under `tests/` share.
//!
//! Owns: the subject under test and the judge as processes in folders of their own, the case-file format, the
//! comparison of JSON answers, the differential test and its random statements, small file systems that can be
//! filled, clusters and what befalls them, proxies.
//!
//! The subject is `tidemill` (`TIDEMILL_BIN`, or the binary beside the test binary). `TIDEMILL_SUBJECT=influxdb` puts
//! Debian's influxd in its place, which proves that a scenario asks for what upstream really does.
//!
//! Knows nothing of the server's crates.

pub mod answers;
pub mod case;
pub mod chaos;
pub mod cluster;
pub mod differential;
pub mod message_pack;
pub mod play;
pub mod proxy;
pub mod random_statements;
pub mod small_disk;
pub mod subject;
pub mod wires;
pub mod write_gap;
