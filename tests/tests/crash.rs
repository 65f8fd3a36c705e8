//! Kill cycles, clean stops, restarts with another number of cores.

use tidemill_perf::crash::{self, CrashOptions};
use tidemill_perf::devices::DeviceSpec;
use tidemill_perf::emission::SendOrder;
use tidemill_perf::load::{self, LoadControl, LoadOptions};
use tidemill_perf::oracle::Oracle;
use tidemill_perf::server::Server;
use tidemill_perf::verify::{self, Grouping, Obligation};
use tidemill_perf::workload::{self, Workload};
use tidemill_tests::subject;

/// `TIDEMILL_CRASH_CYCLES` makes it a campaign; `TIDEMILL_CRASH_SEED` another one.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_killed_server_keeps_every_acknowledged_row() {
    let home = subject::Home::new();
    let seed = number("TIDEMILL_CRASH_SEED", 1);
    let options = CrashOptions {
        cores: vec![1, 2],
        cycles_per_database: 5,
        verbose: true,
        ..CrashOptions::new(home.setup(), number("TIDEMILL_CRASH_CYCLES", 10), seed)
    };
    let report = crash::run(&options).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{report:?}");
    assert!(report.rows_acknowledged > 0, "nothing was written: the scenario shows nothing");
}

/// Loads the set out of order and with duplicates into database `d`.
fn load(server: &Server, spec: DeviceSpec) {
    let order = SendOrder { interleave: 5, late_part: 0.1, lag_ms_max: 3_600_000, duplicate_part: 0.01 };
    let plans = workload::render_all(&Workload::Devices { spec, order }, 4, 1000, false).unwrap();
    load::create_database(&server.address(), "d", 1).unwrap();
    let options = LoadOptions { retry: true, ..LoadOptions::new(server.address(), "d", "ms") };
    let (report, _) = load::run(&plans, &options, &LoadControl::default()).unwrap();
    let lost = report.rows_rejected + report.rows_unknown + report.rows_unsent;
    assert_eq!(lost, 0, "{:?}", report.failures);
}

/// Every figure and every row is as it was sent.
fn verify_all(server: &Server, spec: DeviceSpec) {
    let oracle = Oracle::compute(spec, 2);
    let mut client = subject::client(server);
    for grouping in Grouping::ALL {
        let verdict = verify::figures(&mut client, "d", grouping, &oracle).unwrap();
        assert!(verdict.is_right(), "{grouping:?}: {} differences: {:#?}", verdict.wrong, verdict.findings);
    }
    let mut owed = Obligation::none(&spec);
    owed.add(tidemill_perf::acknowledgement::Outcome::Acknowledged, 0..spec.rows());
    let (_, verdict) = verify::obligations(&mut client, "d", spec, &owed).unwrap();
    assert!(verdict.is_right(), "{} differences: {:#?}", verdict.wrong, verdict.findings);
}

#[test]
fn stops_and_other_numbers_of_cores_keep_everything() {
    let home = subject::Home::new();
    let spec = DeviceSpec { devices: 40, files: 40, rows_per_device: 5000, seed: 11 };
    let mut setup = home.setup();
    setup.cores = Some(2);
    let server = subject::start(setup.clone());
    load(&server, spec);
    verify_all(&server, spec);
    subject::stop(server);
    for cores in [1, 2, 1] {
        setup.cores = Some(cores);
        let server = subject::start(setup.clone());
        verify_all(&server, spec);
        subject::stop(server);
    }
    // Once more without a clean stop: nothing but what is on disk counts.
    let server = subject::start(setup.clone());
    server.kill().unwrap();
    setup.cores = Some(2);
    let server = subject::start(setup);
    verify_all(&server, spec);
    subject::stop(server);
}

#[test]
fn a_stop_under_load_acknowledges_nothing_that_it_does_not_keep() {
    let home = subject::Home::new();
    let spec = DeviceSpec { devices: 40, files: 40, rows_per_device: 5000, seed: 12 };
    let workload = Workload::Devices { spec, order: SendOrder::default() };
    let plans = workload::render_all(&workload, 4, 200, false).unwrap();
    let server = home.start();
    load::create_database(&server.address(), "d", 1).unwrap();
    let options = LoadOptions { rate: Some(100_000.0), ..LoadOptions::new(server.address(), "d", "ms") };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let control = LoadControl { stop: Some(&stop), ..LoadControl::default() };
    let entries = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load::run(&plans, &options, &control).unwrap().1);
        std::thread::sleep(std::time::Duration::from_millis(500));
        subject::stop(server);
        stop.store(true, std::sync::atomic::Ordering::Release);
        loading.join().unwrap()
    });
    let owed = Obligation::from_log(&spec, SendOrder::default(), 4, &entries).unwrap();
    assert!(owed.must.count() > 0, "nothing was acknowledged: the scenario shows nothing");
    let server = home.start();
    let (_, verdict) = verify::obligations(&mut subject::client(&server), "d", spec, &owed).unwrap();
    assert!(verdict.is_right(), "{} differences: {:#?}", verdict.wrong, verdict.findings);
    subject::stop(server);
}

/// The check itself is checked: rows that are missing, changed, added or unsent must not pass.
#[test]
fn the_row_check_sees_every_planted_fault() {
    let home = subject::Home::new();
    let server = home.start();
    let spec = DeviceSpec { devices: 4, files: 4, rows_per_device: 50, seed: 13 };
    load(&server, spec);
    let mut client = subject::client(&server);
    let sent = |rows: std::ops::Range<u64>| {
        let mut owed = Obligation::none(&spec);
        owed.add(tidemill_perf::acknowledgement::Outcome::Acknowledged, rows);
        owed
    };
    let faults = |client: &mut tidemill_perf::http::Client, owed: &Obligation| {
        let (_, verdict) = verify::obligations(client, "d", spec, owed).unwrap();
        (verdict.wrong, verdict.findings.join("; "))
    };
    assert_eq!(faults(&mut client, &sent(0..200)).0, 0);
    let (wrong, text) = faults(&mut client, &sent(0..199));
    assert!(wrong == 1 && text.contains("never sent"), "{wrong}: {text}");
    let row = spec.device(2).row(7);
    let device = "devices,devgroup=2,devid=2,devname=dev_2";
    let changed = format!("{device} temperature={}i {}", row.integer + 1, row.time_ms);
    subject::write(&mut client, "db=d&precision=ms", &changed).unwrap();
    let (wrong, text) = faults(&mut client, &sent(0..200));
    assert!(wrong > 0 && text.contains("temperature is not"), "{wrong}: {text}");
    let delete = format!("DELETE FROM devices WHERE devid = '2' AND time = {}ms", row.time_ms);
    subject::query(&mut client, &delete, "db=d").unwrap();
    let (wrong, text) = faults(&mut client, &sent(0..200));
    assert!(wrong == 1 && text.contains("lost: device 2 row 7"), "{wrong}: {text}");
    let oracle = Oracle::compute(spec, 1);
    for grouping in Grouping::ALL {
        let verdict = verify::figures(&mut client, "d", grouping, &oracle).unwrap();
        assert!(!verdict.is_right(), "{grouping:?} does not see a lost row");
    }
    let strange = format!("{device} temperature=1i,humidity=1 {}", row.time_ms + 1);
    subject::write(&mut client, "db=d&precision=ms", &strange).unwrap();
    let (wrong, text) = faults(&mut client, &sent(0..200));
    assert!(wrong == 2 && text.contains("no row has that time"), "{wrong}: {text}");
    subject::stop(server);
}
