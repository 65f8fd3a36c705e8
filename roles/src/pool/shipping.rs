//! The hand-over of a partition's sealed files to the pool, by its leader.

use crate::data::DataCore;
use std::rc::Rc;

/// Ships what the partitions of this core have, until the core stops.
pub async fn run(_: Rc<DataCore>) {}
