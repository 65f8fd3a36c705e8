//! A parsed body cut into one image for each shard group and partition that it touches.
//!
//! Two stable counting sorts bring the rows into the order of the images: first by series, then by shard group and
//! partition. Bodies whose rows already lie series by series, or that touch one image only, skip the sort that they do
//! not need.

use tidemill_column::FieldType;

use crate::batch::{Parsed, Row};
use crate::image::{HEADER_BYTES, PartitionHeader, push_varint, varint_len};
use crate::partition_map::{PARTITIONS_MAX, PartitionMap};
use crate::series_table::Series;
use crate::text::Text;

/// Most shard groups that one body may fall into. Times the partitions they must be countable in 32 bits; hourly groups
/// over a century are fewer.
pub const SHARD_GROUPS_MAX: usize = 1 << 20;
const _: () = assert!(PARTITIONS_MAX as usize * SHARD_GROUPS_MAX <= 1 << 32);

/// A shard group that rows of the body may fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardGroupRange {
    pub id: u64,
    /// First instant, ns since the epoch.
    pub start: i64,
    /// First instant behind the group, ns since the epoch. A group that ends with time itself ends at `i64::MAX`.
    pub end: i64,
}

/// Where the rows of one body go.
#[derive(Clone, Copy, Debug)]
pub struct SplitPlan<'a> {
    pub database: u32,
    pub retention_policy: u32,
    /// Shard groups that cover the rows, ascending and without overlap.
    pub shard_groups: &'a [ShardGroupRange],
    pub partitions: PartitionMap,
    /// Zero: no identity yet, [`crate::Identity::stamp`] gives one.
    pub session: u64,
    pub sequence: u64,
}

/// A plan that does not fit the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    #[error("no shard group of the plan covers the time {time}")]
    TimeNotCovered { time: i64 },
    #[error("{count} shard groups for one body are more than {SHARD_GROUPS_MAX}")]
    ShardGroupCount { count: usize },
    #[error("shard groups of the plan overlap or are out of order at {start}")]
    ShardGroupOrder { start: i64 },
}

/// One part of a body: what [`crate::PartitionBatch::parse`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    pub shard_group: u64,
    pub partition: u32,
    pub row_count: u32,
    pub bytes: Vec<u8>,
}

/// Buffers of the split, reused from body to body.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Rows with the number of their bucket, in the order of the images.
    order: Vec<(u32, u32)>,
    sorted: Vec<(u32, u32)>,
    counts: Vec<u32>,
    /// For each schema of the body its number in the image being written.
    schema_numbers: Vec<u32>,
    /// Schemas of the image being written.
    used_schemas: Vec<u32>,
}

const UNUSED: u32 = u32::MAX;

impl Splitter {
    pub fn new() -> Splitter {
        Splitter::default()
    }

    /// The images of all rows for which `keep` holds; it is asked once for each row, with its index. They come in the
    /// order of shard groups, then partitions; shard groups and partitions without rows have none.
    ///
    /// # Errors
    /// If the plan does not cover a kept row, or is not well formed.
    pub fn split(
        &mut self,
        parsed: &Parsed<'_>,
        plan: &SplitPlan<'_>,
        keep: impl FnMut(usize, &Row) -> bool,
    ) -> Result<Vec<PartitionImage>, SplitError> {
        if plan.shard_groups.len() > SHARD_GROUPS_MAX {
            return Err(SplitError::ShardGroupCount { count: plan.shard_groups.len() });
        }
        for pair in plan.shard_groups.windows(2) {
            if pair[0].end > pair[1].start {
                return Err(SplitError::ShardGroupOrder { start: pair[1].start });
            }
        }
        self.assign(parsed, plan, keep)?;
        self.sort(parsed, plan);
        let mut images = Vec::new();
        let order = std::mem::take(&mut self.order);
        for rows in order.chunk_by(|a, b| a.0 == b.0) {
            images.push(self.image(parsed, plan, rows));
        }
        self.order = order;
        Ok(images)
    }

    /// Gives each kept row its bucket: shard group times partition.
    fn assign(
        &mut self,
        parsed: &Parsed<'_>,
        plan: &SplitPlan<'_>,
        mut keep: impl FnMut(usize, &Row) -> bool,
    ) -> Result<(), SplitError> {
        let series = parsed.batch.series.all();
        let partition_count = plan.partitions.count();
        let mut group = 0;
        self.order.clear();
        for (index, row) in parsed.rows().iter().enumerate() {
            if !keep(index, row) {
                continue;
            }
            let is_in = |range: &ShardGroupRange| range.start <= row.time && row.time < range.end;
            if !plan.shard_groups.get(group).is_some_and(is_in) {
                group = plan.shard_groups.partition_point(|range| range.end <= row.time);
                if !plan.shard_groups.get(group).is_some_and(is_in) {
                    return Err(SplitError::TimeNotCovered { time: row.time });
                }
            }
            let partition = plan.partitions.partition_of(series[row.series as usize].hash);
            self.order.push((group as u32 * partition_count + partition, index as u32));
        }
        Ok(())
    }

    /// Sorts by bucket, then series, then arrival.
    fn sort(&mut self, parsed: &Parsed<'_>, plan: &SplitPlan<'_>) {
        let rows = parsed.rows();
        let series_of = |entry: &(u32, u32)| rows[entry.1 as usize].series;
        if !self.order.is_sorted_by_key(series_of) {
            self.counting_sort(parsed.series_count(), series_of);
        }
        if !self.order.is_sorted_by_key(|entry| entry.0) {
            let buckets = plan.shard_groups.len() * plan.partitions.count() as usize;
            // A body that spans years may have more buckets than rows; counting in them would cost more than sorting.
            if buckets <= 1_024 + 4 * self.order.len() {
                self.counting_sort(buckets, |entry| entry.0);
            } else {
                self.order.sort_by_key(|entry| entry.0);
            }
        }
    }

    /// Stable; keys are below `bound`.
    fn counting_sort(&mut self, bound: usize, key: impl Fn(&(u32, u32)) -> u32) {
        self.counts.clear();
        self.counts.resize(bound + 1, 0);
        for entry in &self.order {
            self.counts[key(entry) as usize + 1] += 1;
        }
        for index in 1..self.counts.len() {
            self.counts[index] += self.counts[index - 1];
        }
        self.sorted.clear();
        self.sorted.resize(self.order.len(), (0, 0));
        for entry in &self.order {
            let place = &mut self.counts[key(entry) as usize];
            self.sorted[*place as usize] = *entry;
            *place += 1;
        }
        std::mem::swap(&mut self.order, &mut self.sorted);
    }

    /// The image of one bucket, whose sorted rows are `entries`.
    fn image(&mut self, parsed: &Parsed<'_>, plan: &SplitPlan<'_>, entries: &[(u32, u32)]) -> PartitionImage {
        let bucket = entries[0].0;
        let partition_count = plan.partitions.count();
        let range = plan.shard_groups[(bucket / partition_count) as usize];
        let partition = bucket % partition_count;
        let (header, size) = self.measure(parsed, entries);
        let header = PartitionHeader {
            database: plan.database,
            retention_policy: plan.retention_policy,
            shard_group: range.id,
            shard_group_start: range.start,
            shard_group_end: range.end,
            session: plan.session,
            sequence: plan.sequence,
            behind: 0,
            partition,
            partition_count,
            ..header
        };
        let mut bytes = Vec::with_capacity(size);
        header.write(&mut bytes);
        for schema in &self.used_schemas {
            push_schema(parsed, *schema, &mut bytes);
        }
        let rows = parsed.rows();
        let row_of = |entry: &(u32, u32)| &rows[entry.1 as usize];
        for of_series in entries.chunk_by(|a, b| row_of(a).series == row_of(b).series) {
            let series = &parsed.batch.series.all()[row_of(&of_series[0]).series as usize];
            let groups = of_series.chunk_by(|a, b| row_of(a).schema == row_of(b).schema);
            push_series(parsed, series, groups.clone().count() as u32, &mut bytes);
            for group in groups {
                let schema = row_of(&group[0]).schema;
                push_varint(self.schema_numbers[schema as usize], &mut bytes);
                push_group(parsed, schema, group, rows, &mut bytes);
            }
        }
        debug_assert!(bytes.len() <= size, "{} bytes in an image measured as {size}", bytes.len());
        PartitionImage { shard_group: range.id, partition, row_count: entries.len() as u32, bytes }
    }

    /// Counts what the image will hold, numbers its schemas, and gives its largest possible size.
    ///
    /// An image that is allocated once is copied by nobody before it is written to the log.
    fn measure(&mut self, parsed: &Parsed<'_>, entries: &[(u32, u32)]) -> (PartitionHeader, usize) {
        let rows = parsed.rows();
        self.schema_numbers.clear();
        self.schema_numbers.resize(parsed.schema_count(), UNUSED);
        self.used_schemas.clear();
        let mut header = PartitionHeader { time_min: i64::MAX, time_max: i64::MIN, ..PartitionHeader::default() };
        let mut size = HEADER_BYTES;
        let mut previous: Option<&Row> = None;
        for entry in entries {
            let row = &rows[entry.1 as usize];
            let same_series = previous.is_some_and(|previous| previous.series == row.series);
            if !same_series {
                header.series_count += 1;
                let series = &parsed.batch.series.all()[row.series as usize];
                // Hash; lengths of key and measurement; group count.
                size += 8 + 2 * varint_len(series.key.len() as u32) + 5 + series.key.len();
            }
            if !same_series || previous.is_some_and(|previous| previous.schema != row.schema) {
                header.group_count += 1;
                size += 10;
                if self.schema_numbers[row.schema as usize] == UNUSED {
                    self.schema_numbers[row.schema as usize] = self.used_schemas.len() as u32;
                    self.used_schemas.push(row.schema);
                    size += schema_len(parsed, row.schema);
                }
            }
            size += row_len(parsed, row);
            header.time_min = header.time_min.min(row.time);
            header.time_max = header.time_max.max(row.time);
            previous = Some(row);
        }
        header.row_count = entries.len() as u32;
        header.schema_count = self.used_schemas.len() as u32;
        (header, size)
    }
}

/// Largest size of a row with its time.
fn row_len(parsed: &Parsed<'_>, row: &Row) -> usize {
    let Some(schema) = parsed.batch.schemas.schema(row.schema) else { return 0 };
    let width = schema.field_count as usize;
    let mut len = 8 + 8 * width;
    if schema.has_string {
        let fields = parsed.batch.schemas.fields(schema);
        let values = &parsed.batch.values[row.values as usize..row.values as usize + width];
        let strings = fields.iter().zip(values).filter(|(field, _)| field.field_type == FieldType::String);
        len += strings.map(|(_, bits)| Text::from_bits(*bits).len()).sum::<usize>();
    }
    len
}

/// Largest size of a schema.
fn schema_len(parsed: &Parsed<'_>, number: u32) -> usize {
    let schema = parsed.schema(number);
    10 + schema.measurement().len() + schema.fields().map(|(name, _)| 6 + name.len()).sum::<usize>()
}

fn push_schema(parsed: &Parsed<'_>, number: u32, out: &mut Vec<u8>) {
    let schema = parsed.schema(number);
    let measurement = schema.measurement();
    push_varint(measurement.len() as u32, out);
    out.extend_from_slice(&measurement);
    push_varint(schema.field_count() as u32, out);
    for (name, field_type) in schema.fields() {
        out.push(field_type.code());
        push_varint(name.len() as u32, out);
        out.extend_from_slice(name);
    }
}

fn push_series(parsed: &Parsed<'_>, series: &Series, group_count: u32, out: &mut Vec<u8>) {
    let key = parsed.bytes(series.key);
    out.extend_from_slice(&series.hash.to_le_bytes());
    push_varint(key.len() as u32, out);
    out.extend_from_slice(key);
    push_varint(series.measurement_len, out);
    push_varint(group_count, out);
}

fn push_group(parsed: &Parsed<'_>, schema: u32, entries: &[(u32, u32)], rows: &[Row], out: &mut Vec<u8>) {
    push_varint(entries.len() as u32, out);
    let group_rows = || entries.iter().map(|entry| &rows[entry.1 as usize]);
    push_words(entries.len(), group_rows().map(|row| row.time as u64), out);
    let Some(schema) = parsed.batch.schemas.schema(schema) else { return };
    let values = &parsed.batch.values;
    for (column, field) in parsed.batch.schemas.fields(schema).iter().enumerate() {
        let slots = || group_rows().map(|row| values[row.values as usize + column]);
        match field.field_type {
            FieldType::Boolean => out.extend(slots().map(|bits| u8::from(bits != 0))),
            FieldType::String => {
                slots().for_each(|bits| out.extend_from_slice(&(Text::from_bits(bits).len() as u32).to_le_bytes()));
                slots().for_each(|bits| out.extend_from_slice(parsed.bytes(Text::from_bits(bits))));
            }
            FieldType::Float | FieldType::Integer | FieldType::Unsigned => push_words(entries.len(), slots(), out),
        }
    }
}

/// Appends `count` words, growing the image once.
#[inline]
fn push_words(count: usize, words: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + count * 8, 0);
    for (place, word) in out[start..].as_chunks_mut().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, ParseOptions, PartitionBatch, Precision};

    const ALL: [ShardGroupRange; 1] = [ShardGroupRange { id: 9, start: i64::MIN, end: i64::MAX }];

    fn plan(shard_groups: &[ShardGroupRange], partition_count: u32) -> SplitPlan<'_> {
        SplitPlan {
            database: 1,
            retention_policy: 2,
            shard_groups,
            partitions: PartitionMap::single(partition_count),
            session: 3,
            sequence: 4,
        }
    }

    fn split(body: &str, plan: &SplitPlan<'_>) -> Result<Vec<PartitionImage>, SplitError> {
        let mut batch = Batch::new(1);
        let options = ParseOptions { precision: Precision::Nanosecond, now_ns: 0, validate_keys: false };
        let parsed = batch.parse(body.as_bytes(), &options).unwrap();
        Splitter::new().split(&parsed, plan, |_, _| true)
    }

    #[test]
    fn no_row_is_lost_to_a_plan_that_does_not_fit() {
        let groups = |pairs: &[(i64, i64)]| -> Vec<ShardGroupRange> {
            pairs.iter().map(|(start, end)| ShardGroupRange { id: 1, start: *start, end: *end }).collect()
        };
        for (pairs, time) in [(&[][..], 5), (&[(0, 5)], 5), (&[(6, 9)], 5), (&[(0, 5), (6, 9)], 5)] {
            let result = split("m f=1 5", &plan(&groups(pairs), 1));
            assert_eq!(result, Err(SplitError::TimeNotCovered { time }), "{pairs:?}");
        }
        let overlap = split("m f=1 5", &plan(&groups(&[(0, 6), (5, 9)]), 1));
        assert_eq!(overlap, Err(SplitError::ShardGroupOrder { start: 5 }));
    }

    #[test]
    fn images_hold_the_series_of_their_partition() {
        let body: String = (0..200).map(|id| format!("m,id={id} f=1 {id}\n")).collect();
        for partition_count in [1, 2, 16, 4_096] {
            let images = split(&body, &plan(&ALL, partition_count)).unwrap();
            assert_eq!(images.iter().map(|image| image.row_count).sum::<u32>(), 200);
            for image in &images {
                let batch = PartitionBatch::parse(&image.bytes).unwrap();
                assert_eq!(PartitionBatch::header_of(&image.bytes).as_ref(), Some(batch.header()));
                for series in batch.series() {
                    let bits = partition_count.trailing_zeros();
                    let expected = if bits == 0 { 0 } else { series.hash >> (64 - bits) };
                    assert_eq!(u64::from(image.partition), expected);
                }
            }
        }
    }

    #[test]
    fn rows_of_a_series_keep_their_order_across_schemas() {
        let body = "m f=1 1\nn f=1 1\nm g=1 1\nm f=2 1\nn f=2 1";
        let images = split(body, &plan(&ALL, 1)).unwrap();
        let batch = PartitionBatch::parse(&images[0].bytes).unwrap();
        let groups: Vec<Vec<usize>> =
            batch.series().map(|series| series.groups().map(|group| group.schema_index).collect()).collect();
        assert_eq!(groups, [vec![0, 1, 0], vec![2]]);
        let values: Vec<f64> = batch
            .series()
            .flat_map(|series| series.groups().flat_map(|group| group.column(0).unwrap().floats().collect::<Vec<_>>()))
            .collect();
        assert_eq!(values, [1.0, 1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn a_body_without_points_has_no_images() {
        assert_eq!(split("# nothing\n\nbad", &plan(&[], 1)), Ok(vec![]));
    }
}
