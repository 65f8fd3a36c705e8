//! Images of partition batches: any bytes are refused or can be read to their end. An image of a body is damaged by the
//! input too, because libFuzzer would need long to find the header by itself.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tidemill_line::{Batch, ParseOptions, PartitionBatch, PartitionMap, Precision, ShardGroupRange, SplitPlan, Splitter};

const BODY: &[u8] = b"m,a=b f=1,i=2i,s=\"x\",t=t 1\nm,a=c f=1,i=2i,s=\"yy\",t=f 1\nm,a=b f=2 2\ncpu g=3i 3\ncpu g=4i 4";

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut image = IMAGE.get_or_init(image).clone();
    for change in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % image.len();
        image[at] = change[2];
    }
    image.extend_from_slice(data.chunks_exact(3).remainder());
    read(&image);
});

static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();

fn read(bytes: &[u8]) {
    let Ok(batch) = PartitionBatch::parse(bytes) else { return };
    let mut rows = 0;
    for group in batch.series().flat_map(|series| series.groups()) {
        rows += group.times().len();
        for (_, column) in group.columns() {
            let count = column.floats().count()
                + column.integers().count()
                + column.unsigneds().count()
                + column.booleans().count()
                + column.strings().count();
            assert_eq!(count, group.row_count);
        }
    }
    assert_eq!(rows, batch.header().row_count as usize);
    assert!(batch.schemas().all(|schema| schema.fields().count() == schema.field_count));
}

fn image() -> Vec<u8> {
    let mut batch = Batch::new(1);
    let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
    let parsed = batch.parse(BODY, &options).unwrap();
    let shard_groups = [ShardGroupRange { id: 1, start: 0, end: 10 }];
    let plan = SplitPlan {
        database: 1,
        retention_policy: 1,
        shard_groups: &shard_groups,
        partitions: PartitionMap::single(1),
        session: 1,
        sequence: 1,
    };
    Splitter::new().split(&parsed, &plan, |_, _| true).unwrap().remove(0).bytes
}
