//! Upstream's own server as judge: the same writes and statements to both, the same answers.

use crate::conformance::case_files;
use tidemill_tests::answers::{Numbers, body_difference};
use tidemill_tests::case::{self, Mode};
use tidemill_tests::differential::Pair;
use tidemill_tests::play;
use tidemill_tests::subject::{self, Judge};

/// The order in which floats are added is free: that moves the last digits of means and deviations.
const TOLERANCE: Numbers = Numbers::Within(1e-12);

/// Statements of the differential test, over all its seeds.
const STATEMENTS: u64 = 600;
const SEEDS: u64 = 6;

#[test]
fn the_judge_agrees_with_every_case_file() {
    for path in case_files() {
        let Some(Judge { server: judge, .. }) = &subject::judge() else { return };
        let home = subject::Home::new();
        let server = home.start();
        let (mut ours, mut theirs) = (subject::client(&server), subject::client(judge));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut faults = Vec::new();
        for case in case::parse(&text).unwrap() {
            for step in &case.steps {
                let (a, b) = (play::send(&mut ours, &step.request), play::send(&mut theirs, &step.request));
                let (a, b) = (a.unwrap(), b.unwrap());
                if case.judge_differs.is_some() {
                    continue;
                }
                let mode = step.expected.mode;
                let body = match (play::shown(mode, &b), play::shown(mode, &a)) {
                    _ if mode == Mode::Any => None,
                    (Ok(b), Ok(a)) => body_difference(&b, &a, TOLERANCE),
                    (_, fault) => fault.err(),
                };
                if a.status != b.status || body.is_some() {
                    faults.push(format!("{}\n  status {} and {}; {body:?}", step.text, a.status, b.status));
                }
            }
        }
        subject::stop(server);
        assert!(faults.is_empty(), "{}: {} differences:\n{}", path.display(), faults.len(), faults.join("\n"));
    }
}

#[test]
fn random_statements_get_the_same_answers() {
    let Some(Judge { server: judge, .. }) = &subject::judge() else { return };
    let home = subject::Home::new();
    let server = home.start();
    let mut pair = Pair::new(subject::client(&server), subject::client(judge));
    for seed in first_seed()..first_seed() + SEEDS {
        pair.run_seed(seed, STATEMENTS / SEEDS, false).unwrap();
    }
    subject::stop(server);
    assert!(
        pair.full * 2 > pair.asked,
        "only {} of {} answers hold rows: the test shows little",
        pair.full,
        pair.asked
    );
    let told = pair
        .faults
        .iter()
        .take(20)
        .map(|fault| format!("seed {}: {}\n  {}", fault.seed, fault.statement, fault.difference));
    let told: Vec<String> = told.collect();
    assert!(pair.faults.is_empty(), "{} of {} statements:\n{}", pair.faults.len(), pair.asked, told.join("\n"));
}

/// `TIDEMILL_JUDGE_SEED` moves the differential test to other statements.
fn first_seed() -> u64 {
    std::env::var("TIDEMILL_JUDGE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}
