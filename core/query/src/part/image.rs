//! A part's outputs as bytes, for a merge on another machine.
//!
//! Rows name their series by numbers of a table that all pieces of a group share: it is sent with the first of them.
//! Invariants: what was encoded is decoded to the same; whatever else the bytes are, they are refused, or give outputs
//! that a merge of the scan's plan can take. So outputs are checked against the plan before they are handed out.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

use super::output::{PartBody, PartOutput, RowPiece, SeriesTable, WindowPiece};
use crate::accumulator::carried_types;
use crate::plan::{LeafRef, ScanPlan, Work};
use rkyv::{Archive, Deserialize, Serialize, api::high::to_bytes_in, rancor::Error};
use std::sync::Arc;
use tidemill_column::Column;

/// Bytes that are no outputs of the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartImageError {
    #[error("the archive of a part's outputs is damaged")]
    Archive,
    #[error("the outputs of a part are of another scan")]
    Scan,
}

#[derive(Archive, Serialize, Deserialize)]
struct OutputImage {
    group: Arc<[String]>,
    body: BodyImage,
}

#[derive(Archive, Serialize, Deserialize)]
enum BodyImage {
    Rows {
        /// None: that of the rows before.
        table: Option<Arc<SeriesTable>>,
        times: Vec<i64>,
        series: Vec<u32>,
        columns: Vec<Column>,
    },
    Windows(WindowPiece),
}

/// Encodes the outputs of one part, in their order.
#[derive(Debug, Default)]
pub struct PartEncoder {
    table: Option<Arc<SeriesTable>>,
}

/// Decodes what a [`PartEncoder`] made, in the same order.
#[derive(Debug)]
pub struct PartDecoder {
    scan: Arc<ScanPlan>,
    table: Option<Arc<SeriesTable>>,
}

impl PartEncoder {
    /// The bytes of the next outputs.
    pub fn encode(&mut self, outputs: Vec<PartOutput>) -> Vec<u8> {
        let images: Vec<OutputImage> = outputs.into_iter().map(|output| self.image(output)).collect();
        #[expect(clippy::expect_used, reason = "own values: only an archive above 2 GiB fails, and memory goes first")]
        to_bytes_in::<_, Error>(&images, Vec::new()).expect("own values can be archived")
    }

    fn image(&mut self, output: PartOutput) -> OutputImage {
        let body = match output.body {
            PartBody::Windows(windows) => BodyImage::Windows(windows),
            PartBody::Rows(RowPiece { table, times, series, columns }) => {
                let is_known = self.table.as_ref().is_some_and(|known| Arc::ptr_eq(known, &table));
                let sent = (!is_known).then(|| table.clone());
                self.table = Some(table);
                BodyImage::Rows { table: sent, times, series, columns }
            }
        };
        OutputImage { group: output.group, body }
    }
}

impl PartDecoder {
    pub fn new(scan: Arc<ScanPlan>) -> PartDecoder {
        PartDecoder { scan, table: None }
    }

    /// The outputs that some bytes hold.
    ///
    /// # Errors
    /// They are none, or none of this scan.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Vec<PartOutput>, PartImageError> {
        let images = rkyv::from_bytes::<Vec<OutputImage>, Error>(bytes).map_err(|_| PartImageError::Archive)?;
        images.into_iter().map(|image| self.output(image)).collect()
    }

    fn output(&mut self, image: OutputImage) -> Result<PartOutput, PartImageError> {
        let shape = &self.scan.shape;
        if image.group.len() != shape.dimensions.len() {
            return Err(PartImageError::Scan);
        }
        let body = match (image.body, &shape.work) {
            (BodyImage::Rows { table, times, series, columns }, Work::Raw { leaves }) => {
                if let Some(table) = table.filter(|table| is_sound(table, leaves)).or_else(|| self.table.clone()) {
                    self.table = Some(table.clone());
                    let rows = RowPiece { table, times, series, columns };
                    rows.fits(&self.scan, leaves).then_some(PartBody::Rows(rows))
                } else {
                    None
                }
            }
            (BodyImage::Windows(windows), Work::Aggregate(aggregate)) => {
                let carried = carried_types(&aggregate.carried, &shape.columns);
                let count = windows.starts.len();
                let specs = &aggregate.accumulators;
                let fits = windows.accumulators.len() == specs.len()
                    && windows.present.len() == specs.len()
                    && windows.accumulators.iter().zip(specs).all(|(one, spec)| one.is_of(spec, &carried, count));
                fits.then_some(PartBody::Windows(windows))
            }
            _ => None,
        };
        body.map(|body| PartOutput { group: image.group, body }).ok_or(PartImageError::Scan)
    }
}

fn is_sound(table: &SeriesTable, leaves: &[LeafRef]) -> bool {
    let tags = leaves.iter().filter(|leaf| matches!(leaf, LeafRef::Tag(_))).count();
    table.tags.len() == table.keys.len() && table.tags.iter().all(|values| values.len() == tags)
}

impl RowPiece {
    fn fits(&self, scan: &ScanPlan, leaves: &[LeafRef]) -> bool {
        let columns = &scan.shape.columns;
        let types = leaves.iter().filter_map(|leaf| match leaf {
            LeafRef::Field(column) => Some(columns.get(*column).map(|column| column.field_type)),
            LeafRef::Tag(_) => None,
        });
        let types: Vec<_> = types.collect();
        let rows = self.times.len();
        self.series.len() == rows
            && self.series.iter().all(|series| (*series as usize) < self.table.keys.len())
            && self.columns.len() == types.len()
            && self.columns.iter().zip(types).all(|(column, of)| of.is_some_and(|of| column.is_sound(of, rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CompileOptions, PartDemand, PartExec, ScanSeries, SourceIndex, SourceSchema, compile};
    use proptest::prelude::*;
    use tidemill_column::{FieldType, Points, Value, Values};

    const STATEMENTS: [&str; 9] = [
        "SELECT * FROM m",
        "SELECT v, host FROM m GROUP BY region",
        "SELECT v FROM m ORDER BY time DESC",
        "SELECT s, b, u FROM m WHERE v > 1",
        "SELECT count(v), mean(v), sum(n), spread(v) FROM m WHERE time >= 0 AND time < 1000 GROUP BY time(10ns), host",
        "SELECT first(v), last(n), max(b), min(u) FROM m",
        "SELECT median(v), percentile(n, 90), stddev(v), mode(s) FROM m GROUP BY region",
        "SELECT top(v, host, 2) FROM m",
        "SELECT distinct(s) FROM m; SELECT count(distinct(v)) FROM m",
    ];

    fn scan_of(statement: &str) -> Arc<ScanPlan> {
        let statement = statement.split(';').next_back().unwrap();
        let tidemill_influxql::Statement::Select(select) = tidemill_influxql::parse_statement(statement).unwrap()
        else {
            panic!("{statement}")
        };
        let options =
            CompileOptions { now_ns: 10_000, default_database: Some("d".into()), ..CompileOptions::default() };
        let fields = [
            ("b", FieldType::Boolean),
            ("n", FieldType::Integer),
            ("s", FieldType::String),
            ("u", FieldType::Unsigned),
            ("v", FieldType::Float),
        ];
        let schema = SourceSchema {
            source: SourceIndex::Measurement(0),
            database: "d".into(),
            retention_policy: "r".into(),
            measurement: "m".into(),
            fields: fields.map(|(name, of)| (name.to_owned(), of)).into(),
            tag_keys: ["host".to_owned(), "region".to_owned()].into(),
        };
        compile(&select, &options).unwrap().plan(vec![schema]).unwrap().all_scans()[0].clone()
    }

    fn points(scan: &ScanPlan, from: i64, rows: usize) -> Points {
        let times: Vec<i64> = (0..rows as i64).map(|row| from + row * 7).collect();
        let column = |field_type: FieldType| {
            let mut column = Column::new(field_type);
            for time in &times {
                let value = match field_type {
                    FieldType::Float => Value::Float(*time as f64 / 3.0),
                    FieldType::Integer => Value::Integer(time % 5),
                    FieldType::Unsigned => Value::Unsigned(*time as u64),
                    FieldType::Boolean => Value::Boolean(time % 2 == 0),
                    FieldType::String => Value::String(format!("s{}", time % 3).into_bytes().into()),
                };
                if time % 4 == 3 { column.push_null() } else { column.push(&value) }
            }
            Some(column)
        };
        let columns = scan.fields().iter().map(|(_, of)| column(*of)).collect();
        Points { times, columns }
    }

    /// The outputs of a part with some series of some batches.
    fn outputs(scan: &Arc<ScanPlan>, series: usize, rows: usize) -> Vec<PartOutput> {
        let of = |number: usize| ScanSeries {
            key: format!("m,host=h{number},region=r{}", number % 2).into_bytes().into(),
            tags: vec![("host".into(), format!("h{number}")), ("region".into(), format!("r{}", number % 2))],
        };
        let mut part = PartExec::new(scan.clone(), (0..series).map(of).collect());
        let mut batches = vec![0; series];
        let mut outputs = Vec::new();
        loop {
            match part.poll() {
                PartDemand::Points(series) => {
                    let batch = &mut batches[series as usize];
                    *batch += 1;
                    let is_over = *batch > 2;
                    // Newest first where that is asked for.
                    let from = if scan.descending() { 2 - *batch } else { *batch } as i64 * 400 + i64::from(series);
                    part.supply(series, (!is_over).then(|| points(scan, from, rows)));
                }
                PartDemand::Emit(output) => outputs.push(output),
                PartDemand::Done => return outputs,
            }
        }
    }

    #[test]
    fn outputs_come_back_and_tables_travel_once() {
        for statement in STATEMENTS {
            let scan = scan_of(statement);
            let sent = outputs(&scan, 5, 20);
            assert!(!sent.is_empty(), "{statement}");
            let told: Vec<String> = sent.iter().map(|output| format!("{output:?}")).collect();
            let (mut encoder, mut decoder) = (PartEncoder::default(), PartDecoder::new(scan.clone()));
            let mut back = Vec::new();
            for output in sent {
                back.extend(decoder.decode(&encoder.encode(vec![output])).unwrap());
            }
            assert_eq!(back.iter().map(|output| format!("{output:?}")).collect::<Vec<_>>(), told, "{statement}");
        }
        let scan = scan_of("SELECT v FROM m");
        let sent = outputs(&scan, 600, 40);
        assert!(sent.len() > 1, "several pieces of one group");
        let mut encoder = PartEncoder::default();
        let sizes: Vec<usize> = sent.into_iter().map(|output| encoder.encode(vec![output]).len()).collect();
        assert!(sizes[0] > sizes[1] + 600 * 16, "{sizes:?}");
    }

    #[test]
    fn outputs_of_another_scan_are_refused() {
        for (one, other) in STATEMENTS.iter().flat_map(|one| STATEMENTS.iter().map(move |other| (one, other))) {
            let (sender, receiver) = (scan_of(one), scan_of(other));
            let bytes = PartEncoder::default().encode(outputs(&sender, 3, 5));
            let is_same = PartDecoder::new(receiver).decode(&bytes).is_ok();
            assert!(is_same || one != other, "{one}");
            // The order of time is not to be seen in a piece.
            let alike = |statement: &str| statement.contains("SELECT v FROM m");
            assert!(one == other || !is_same || alike(one) && alike(other), "{one} as {other}");
        }
    }

    #[test]
    fn rows_need_a_table() {
        let scan = scan_of("SELECT v FROM m");
        let mut encoder = PartEncoder::default();
        let mut all = outputs(&scan, 600, 40);
        let rest = all.split_off(1);
        encoder.encode(all);
        assert_eq!(PartDecoder::new(scan).decode(&encoder.encode(rest)).unwrap_err(), PartImageError::Scan);
    }

    #[test]
    fn what_lies_about_its_length_is_refused() {
        let scan = scan_of("SELECT v FROM m");
        let table = Arc::new(SeriesTable { keys: vec![b"m"[..].into()], tags: vec![Vec::new()] });
        let piece = |series: Vec<u32>, values: Vec<f64>| PartOutput {
            group: [].into(),
            body: PartBody::Rows(RowPiece {
                table: table.clone(),
                times: vec![1, 2],
                series,
                columns: vec![Column::dense(Values::Float(values))],
            }),
        };
        let decode = |output| PartDecoder::new(scan.clone()).decode(&PartEncoder::default().encode(vec![output]));
        assert!(decode(piece(vec![0, 0], vec![1.0, 2.0])).is_ok());
        for wrong in [
            piece(vec![0, 1], vec![1.0, 2.0]),
            piece(vec![0], vec![1.0, 2.0]),
            piece(vec![0, 0], vec![1.0]),
            piece(vec![0, 0], vec![]),
        ] {
            assert_eq!(decode(wrong).unwrap_err(), PartImageError::Scan);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_give_outputs_that_merge(
            statement in 0..STATEMENTS.len(),
            at in any::<prop::sample::Index>(),
            bit in 0..8u32,
            noise in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let scan = scan_of(STATEMENTS[statement]);
            let mut bytes = PartEncoder::default().encode(outputs(&scan, 3, 6));
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let _ = PartDecoder::new(scan.clone()).decode(&noise);
            if let Ok(outputs) = PartDecoder::new(scan.clone()).decode(&bytes) {
                // All of it can be looked at.
                outputs.iter().for_each(|output| drop((output.byte_size(), output.row_count(), format!("{output:?}"))));
            }
        }
    }
}
