//! A group on a perfect network with disks that finish when they are told to.

mod asynchronous_disk;
mod elections;
mod members;
mod pair;
mod reads;
mod single;
