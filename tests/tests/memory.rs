//! The memory limit is a promise, and overload is said and not suffered.

use std::time::Duration;
use tidemill_perf::devices::DeviceSpec;
use tidemill_perf::load::{self, LoadControl, LoadOptions};
use tidemill_perf::memory::{self, MemoryOptions};
use tidemill_perf::verify::{self, Obligation};
use tidemill_perf::workload::{self, Workload};
use tidemill_tests::subject;

/// The small form of `perf memory`, which does the same with 1 GiB and ten million series.
#[test]
fn a_storm_of_series_queries_and_rows_stays_within_the_limit() {
    if subject::skip_for_upstream("upstream has no limit of its memory") {
        return;
    }
    let home = subject::Home::new();
    let options = MemoryOptions {
        setup: home.setup(),
        limit_bytes: 192 << 20,
        duration: Duration::from_secs(8),
        series: 300_000,
        // A core may hold 18 MiB of index: the series that fit are soon there.
        padding_bytes: 600,
        fill: Duration::from_secs(120),
        rows: 50_000,
        load_clients: 2,
        series_clients: 2,
        query_clients: 4,
        control_group: true,
    };
    let report = memory::run(&options).unwrap_or_else(|error| panic!("{error:#}"));
    if report.group.starts_with("no control group") {
        subject::skip(&format!("{}: the process was only watched", report.group));
    }
    assert!(report.faults.is_empty(), "{:#?}\n{:#?}", report.faults, report.answers);
    assert!(report.new_series > 0, "no new series was taken: the scenario shows nothing");
    assert!(report.new_series_refused > 0, "no series was refused: the scenario shows nothing\n{:#?}", report.answers);
}

#[test]
fn overload_slows_and_then_refuses_and_loses_nothing() {
    if subject::skip_for_upstream("it answers 500") {
        return;
    }
    let home = subject::Home::new();
    let mut setup = home.setup();
    // Each core may hold 6 MiB of rows, and each request brings half a MiB of them.
    setup.memory_limit = Some("64M".into());
    let server = subject::start(setup);
    let spec = DeviceSpec { devices: 64, files: 64, rows_per_device: 10_000, seed: 3 };
    let clients = 32;
    let plans =
        workload::render_all(&Workload::Devices { spec, order: Default::default() }, clients, 10_000, false).unwrap();
    load::create_database(&server.address(), "d", 1).unwrap();
    let options = LoadOptions::new(server.address(), "d", "ms");
    let (report, entries) = load::run(&plans, &options, &LoadControl::default()).unwrap();
    for text in report.failures.keys() {
        assert!(text.starts_with("503 ") && text.contains("retry later"), "{:#?}", report.failures);
    }
    assert!(report.rows_acknowledged > 0 && report.rows_unsent == 0);
    let mut client = subject::client(&server);
    let metrics = client.get("/metrics").unwrap().text();
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    let bridled = sum("tidemill_write_slowed_total") + sum("tidemill_write_refused_total");
    assert!(
        bridled + sum("tidemill_http_bodies_refused_total") > 0.0,
        "nothing was slowed: the scenario shows nothing"
    );
    // It goes on as before once the load is gone.
    subject::write(&mut client, "db=d", "m v=1 1").unwrap();
    subject::stop(server);
    // With more memory: a query of all rows has an eighth of it.
    let server = subject::start(home.setup());
    let owed = Obligation::from_log(&spec, Default::default(), clients, &entries).unwrap();
    let (_, verdict) = verify::obligations(&mut subject::client(&server), "d", spec, &owed).unwrap();
    assert!(verdict.is_right(), "{} differences: {:#?}", verdict.wrong, verdict.findings);
    subject::stop(server);
}
