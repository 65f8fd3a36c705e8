//! `/api/v1/prom/write` and `/api/v1/prom/read`: Prometheus' remote storage over line protocol and SELECT.
//!
//! A sample is a point of the measurement that its metric names, with all labels as tags, the metric's too, and one
//! field `value`. Bodies are snappy blocks of protobuf.
//! Invariant: a body is unpacked only if what it claims to hold is within the limit of bodies.
//! Knows nothing of how points are stored.

pub mod protobuf;
mod read;
mod write;

pub(crate) use read::read;
pub(crate) use write::write;

/// The label that names the metric.
const NAME_LABEL: &str = "__name__";
/// The field that holds a sample's value.
const VALUE_FIELD: &str = "value";

/// A snappy block, unpacked.
fn unpack(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, &'static str> {
    const CORRUPT: &str = "snappy: corrupt input";
    let length = snap::raw::decompress_len(packed).map_err(|_| CORRUPT)?;
    if bytes_max > 0 && length > bytes_max {
        return Err("snappy: decoded block is too large");
    }
    snap::raw::Decoder::new().decompress_vec(packed).map_err(|_| CORRUPT)
}
