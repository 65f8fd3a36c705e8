//! The reference data set: devices with a humidity and a temperature, one row a second.
//!
//! Owns the numbers of the set, its CSV form and its line protocol form. A row is a pure function of
//! (seed, device, row number).
//!
//! Does not know in which order rows are sent (`emission`) nor who checks them (`oracle`).

use crate::random::{below, draw, normal_pair};
use serde::{Deserialize, Serialize};
use std::io::Write;

/// Distance of two rows of a device.
pub const STEP_MS: i64 = 1000;
/// Time of the first row of every device: 2019-07-16T04:01:40Z.
pub const START_MS: i64 = 1_563_249_700_000;
/// Devices are dealt to this many groups by `deviceId % GROUPS`.
pub const GROUPS: u64 = 100;
/// Temperatures are kept in units of 1/SCALE: four decimals, so that sums are exact.
pub const SCALE: i64 = 10_000;

const HUMIDITY_RADIUS: i64 = 35;
const TEMPERATURE_RADIUS: f64 = 17.0;
/// The centres of a device are drawn far away from the counters of its rows.
const CENTRE_COUNTER: u64 = 1 << 60;

/// Which data set: everything else follows from these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub devices: u64,
    pub files: u64,
    pub rows_per_device: u64,
    pub seed: u64,
}

/// One row. The CSV calls the integer humidity and the float temperature; line protocol has the names swapped, as the
/// reference writer does, and the queries rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub time_ms: i64,
    /// CSV column `humidity`, line protocol field `temperature`.
    pub integer: i64,
    /// CSV column `temperature`, line protocol field `humidity`, in units of 1/SCALE.
    pub scaled: i64,
    /// The float is a zero that carries a minus sign (`-0.0000`).
    pub negative_zero: bool,
}

impl Row {
    /// The float as every correct parser reads it: both operands are exact, so the quotient is the nearest double.
    pub fn float(&self) -> f64 {
        if self.negative_zero { -0.0 } else { self.scaled as f64 / SCALE as f64 }
    }
}

/// One device of a set, with its centres drawn.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// 1..=devices.
    pub id: u64,
    seed: u64,
    humidity_centre: i64,
    temperature_centre: i64,
}

impl DeviceSpec {
    /// The reference set cut to about `rows` rows: 10 000 rows a device, every device in a file of its own so that any
    /// number of clients gets equal shares.
    pub fn with_rows(rows: u64, seed: u64) -> Self {
        let rows_per_device = rows.clamp(1, 10_000);
        let devices = (rows / rows_per_device).max(1);
        Self { devices, files: devices, rows_per_device, seed }
    }

    /// Says why the numbers cannot be used.
    pub fn validate(&self) -> Result<(), String> {
        if self.devices == 0 || self.files == 0 || self.rows_per_device == 0 {
            return Err("devices, files and rows per device must be at least 1".into());
        }
        if self.rows_per_device >= CENTRE_COUNTER / 4 {
            return Err(format!("{} rows per device are too many", self.rows_per_device));
        }
        if !self.devices.is_multiple_of(self.files) {
            return Err(format!(
                "{} devices cannot be dealt evenly to {} files: the number of devices must be a multiple of the number of files",
                self.devices, self.files
            ));
        }
        Ok(())
    }

    pub fn rows(&self) -> u64 {
        self.devices * self.rows_per_device
    }

    pub fn device(&self, id: u64) -> Device {
        let humidity = below(draw(self.seed, id, CENTRE_COUNTER), 100) as i64;
        let temperature_centre = below(draw(self.seed, id, CENTRE_COUNTER + 1), 22) as i64;
        let humidity_centre = if humidity < HUMIDITY_RADIUS {
            HUMIDITY_RADIUS
        } else if humidity + HUMIDITY_RADIUS > 100 {
            100 - HUMIDITY_RADIUS
        } else {
            humidity
        };
        Device { id, seed: self.seed, humidity_centre, temperature_centre }
    }

    /// Ids of the devices in file `file`.
    pub fn devices_of_file(&self, file: u64) -> std::ops::Range<u64> {
        let per_file = self.devices / self.files;
        1 + file * per_file..1 + (file + 1) * per_file
    }

    /// Files of client `client` of `clients`: an equal share, the first `files % clients` clients one more.
    pub fn files_of_client(&self, client: u64, clients: u64) -> std::ops::Range<u64> {
        let (share, more) = (self.files / clients, self.files % clients);
        let start = client * share + client.min(more);
        start..start + share + u64::from(client < more)
    }

    /// Ids of the devices of client `client` of `clients`.
    pub fn devices_of_client(&self, client: u64, clients: u64) -> std::ops::Range<u64> {
        let files = self.files_of_client(client, clients);
        let per_file = self.devices / self.files;
        1 + files.start * per_file..1 + files.end * per_file
    }

    /// Number of a row in the whole set, 0-based, in file order.
    pub fn row_number(&self, device: u64, row: u64) -> u64 {
        (device - 1) * self.rows_per_device + row
    }

    /// Row number within its device of a row at `time_ms`, or None when no row has that time.
    pub fn row_at(&self, time_ms: i64) -> Option<u64> {
        let offset = time_ms.checked_sub(START_MS)?;
        if offset < 0 || offset % STEP_MS != 0 {
            return None;
        }
        let row = (offset / STEP_MS) as u64;
        (row < self.rows_per_device).then_some(row)
    }

    /// First instant after the last row.
    pub fn end_ms(&self) -> i64 {
        START_MS + self.rows_per_device as i64 * STEP_MS
    }

    /// Writes one file of the set as CSV: `deviceId devname devgroup timestamp humidity temperature`.
    pub fn write_csv(
        &self,
        file: u64,
        mut out: impl Write,
        mut each: impl FnMut(&Device, &Row),
    ) -> std::io::Result<()> {
        let mut text = Vec::with_capacity(1 << 16);
        for id in self.devices_of_file(file) {
            let device = self.device(id);
            for number in 0..self.rows_per_device {
                let row = device.row(number);
                device.push_csv(&row, &mut text);
                each(&device, &row);
                if text.len() > (1 << 16) - 256 {
                    out.write_all(&text)?;
                    text.clear();
                }
            }
        }
        out.write_all(&text)?;
        out.flush()
    }
}

impl Device {
    pub fn group(&self) -> u64 {
        self.id % GROUPS
    }

    pub fn row(&self, number: u64) -> Row {
        let (first, second) =
            normal_pair(draw(self.seed, self.id, 2 * number), draw(self.seed, self.id, 2 * number + 1));
        let (g, h) = (first.clamp(-3.0, 3.0), second.clamp(-3.0, 3.0));
        let integer = (HUMIDITY_RADIUS as f64 / 3.0 * g + self.humidity_centre as f64).trunc() as i64;
        let float = TEMPERATURE_RADIUS / 3.0 * h + self.temperature_centre as f64;
        let scaled = (float * SCALE as f64).round_ties_even();
        Row {
            time_ms: START_MS + number as i64 * STEP_MS,
            integer,
            scaled: scaled as i64,
            negative_zero: scaled == 0.0 && scaled.is_sign_negative(),
        }
    }

    /// `1 dev_1 1 1563249700000 47 16.1116\n`
    pub fn push_csv(&self, row: &Row, out: &mut Vec<u8>) {
        push_integer(self.id as i64, out);
        out.extend_from_slice(b" dev_");
        push_integer(self.id as i64, out);
        out.push(b' ');
        push_integer(self.group() as i64, out);
        out.push(b' ');
        push_integer(row.time_ms, out);
        out.push(b' ');
        push_integer(row.integer, out);
        out.push(b' ');
        push_scaled(row, out);
        out.push(b'\n');
    }

    /// `devices,devgroup=1,devid=1,devname=dev_1 humidity=16.1116,temperature=47i 1563249700000\n`
    pub fn push_line(&self, row: &Row, out: &mut Vec<u8>) {
        out.extend_from_slice(b"devices,devgroup=");
        push_integer(self.group() as i64, out);
        out.extend_from_slice(b",devid=");
        push_integer(self.id as i64, out);
        out.extend_from_slice(b",devname=dev_");
        push_integer(self.id as i64, out);
        out.extend_from_slice(b" humidity=");
        push_scaled(row, out);
        out.extend_from_slice(b",temperature=");
        push_integer(row.integer, out);
        out.extend_from_slice(b"i ");
        push_integer(row.time_ms, out);
        out.push(b'\n');
    }
}

/// Turns one CSV line (without its newline) into one line of line protocol; None when it has not six columns.
pub fn csv_to_line(csv: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut columns = csv.split(|byte| *byte == b' ');
    let mut next = || columns.next().filter(|column| !column.is_empty());
    let (id, name, group) = (next()?, next()?, next()?);
    let (time, humidity, temperature) = (next()?, next()?, next()?);
    let pieces: [(&[u8], &[u8]); 6] = [
        (b"devices,devgroup=", group),
        (b",devid=", id),
        (b",devname=", name),
        (b" humidity=", temperature),
        (b",temperature=", humidity),
        (b"i ", time),
    ];
    for (label, value) in pieces {
        out.extend_from_slice(label);
        out.extend_from_slice(value);
    }
    out.push(b'\n');
    Some(())
}

/// Decimal digits of an integer.
pub fn push_integer(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_scaled(row: &Row, out: &mut Vec<u8>) {
    let magnitude = row.scaled.unsigned_abs();
    if row.scaled < 0 || row.negative_zero {
        out.push(b'-');
    }
    push_integer((magnitude / SCALE as u64) as i64, out);
    let fraction = magnitude % SCALE as u64;
    out.push(b'.');
    for divisor in [1000, 100, 10, 1] {
        out.push(b'0' + (fraction / divisor % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: DeviceSpec = DeviceSpec { devices: 200, files: 50, rows_per_device: 300, seed: 42 };

    #[test]
    fn values_stay_within_the_radius_of_a_clamped_centre() {
        for id in 1..=SPEC.devices {
            let device = SPEC.device(id);
            assert!((35..=65).contains(&device.humidity_centre));
            assert!((0..=21).contains(&device.temperature_centre));
            for number in 0..SPEC.rows_per_device {
                let row = device.row(number);
                assert!((0..=100).contains(&row.integer), "{row:?}");
                assert!((-17 * SCALE..=38 * SCALE).contains(&row.scaled), "{row:?}");
            }
        }
    }

    #[test]
    fn eight_clients_share_fifty_files_as_the_reference_writer_does() {
        let shares: Vec<u64> = (0..8).map(|client| SPEC.files_of_client(client, 8)).map(|r| r.end - r.start).collect();
        assert_eq!(shares, [7, 7, 6, 6, 6, 6, 6, 6]);
        let mut next = 1;
        for client in 0..8 {
            let devices = SPEC.devices_of_client(client, 8);
            assert_eq!(devices.start, next);
            next = devices.end;
        }
        assert_eq!(next, SPEC.devices + 1);
    }

    #[test]
    fn a_csv_row_becomes_the_same_line_as_the_row_itself() {
        for file in [0, 7, 49] {
            let mut csv = Vec::new();
            let mut direct = Vec::new();
            SPEC.write_csv(file, &mut csv, |device, row| device.push_line(row, &mut direct)).unwrap();
            let mut converted = Vec::new();
            for line in csv.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                csv_to_line(line, &mut converted).unwrap();
            }
            assert_eq!(String::from_utf8(converted).unwrap(), String::from_utf8(direct).unwrap());
        }
    }

    #[test]
    fn the_float_prints_as_it_parses() {
        let device = SPEC.device(1);
        for (scaled, negative_zero, text) in
            [(161_116, false, "16.1116"), (-5, false, "-0.0005"), (0, true, "-0.0000"), (-170_000, false, "-17.0000")]
        {
            let row = Row { time_ms: START_MS, integer: 47, scaled, negative_zero };
            let mut line = Vec::new();
            device.push_line(&row, &mut line);
            let line = String::from_utf8(line).unwrap();
            assert_eq!(
                line,
                format!("devices,devgroup=1,devid=1,devname=dev_1 humidity={text},temperature=47i 1563249700000\n")
            );
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), row.float().to_bits());
        }
    }

    #[test]
    fn uneven_files_are_refused_by_name() {
        let spec = DeviceSpec { files: 7, ..SPEC };
        assert!(spec.validate().unwrap_err().contains("200 devices cannot be dealt evenly to 7 files"));
    }

    #[test]
    fn a_time_leads_back_to_its_row() {
        assert_eq!(SPEC.row_at(START_MS), Some(0));
        assert_eq!(SPEC.row_at(START_MS + 299_000), Some(299));
        for wrong in [START_MS - 1000, START_MS + 1, START_MS + 300_000, i64::MIN] {
            assert_eq!(SPEC.row_at(wrong), None);
        }
    }
}
