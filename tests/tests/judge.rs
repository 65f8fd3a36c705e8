//! Upstream's own server as judge: the same writes and statements to both, the same answers.

use crate::conformance::case_files;
use tidemill_perf::http::Client;
use tidemill_perf::random::Sequence;
use tidemill_tests::answers::{Numbers, body_difference};
use tidemill_tests::subject::{self, Judge};
use tidemill_tests::{case, play, random_statements};

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
                let body = step.expected.body.as_ref().and_then(|_| body_difference(&b.text(), &a.text(), TOLERANCE));
                if a.status != b.status || body.is_some() {
                    faults.push(format!("{}\n  status {} and {}; {body:?}", step.text, a.status, b.status));
                }
            }
        }
        subject::stop(server);
        assert!(faults.is_empty(), "{}: {} differences:\n{}", path.display(), faults.len(), faults.join("\n"));
    }
}

/// Both servers, with what was asked and what differed.
struct Pair {
    ours: Client,
    theirs: Client,
    asked: u64,
    /// Answers that hold rows.
    full: u64,
    faults: Vec<String>,
}

impl Pair {
    /// Asks both the same and books a difference.
    fn ask(&mut self, context: &str, statement: &str, parameters: &str) {
        self.asked += 1;
        let a = self.ours.query(statement, parameters).unwrap();
        let b = self.theirs.query(statement, parameters).unwrap();
        self.full += u64::from(b.text().contains("\"values\""));
        let body = body_difference(&b.text(), &a.text(), TOLERANCE);
        if a.status != b.status || body.is_some() {
            self.faults.push(format!("{context}: {statement}\n  status {} and {}; {body:?}", a.status, b.status));
        }
    }
}

#[test]
fn random_statements_get_the_same_answers() {
    let Some(Judge { server: judge, .. }) = &subject::judge() else { return };
    let home = subject::Home::new();
    let server = home.start();
    let (ours, theirs) = (subject::client(&server), subject::client(judge));
    let mut pair = Pair { ours, theirs, asked: 0, full: 0, faults: Vec::new() };
    for seed in first_seed()..first_seed() + SEEDS {
        let mut random = Sequence::new(seed);
        let unit_seconds = if seed % 2 == 0 { 3600 } else { 1 };
        let database = format!("random{seed}");
        let parameters = format!("db={database}&epoch=ms");
        let create = format!("CREATE DATABASE {database}");
        let batches: Vec<String> = (0..3).map(|_| random_statements::points(&mut random, 100, unit_seconds)).collect();
        for client in [&mut pair.ours, &mut pair.theirs] {
            subject::query(client, &create, "").unwrap();
            for lines in &batches {
                subject::write(client, &format!("db={database}"), lines).unwrap();
            }
        }
        for round in 0..3 {
            let context = format!("seed {seed}, after {round} deletes");
            for _ in 0..STATEMENTS / SEEDS / 3 {
                pair.ask(&context, &random_statements::select(&mut random, unit_seconds), &parameters);
            }
            for statement in random_statements::SHOWS {
                pair.ask(&context, statement, &parameters);
            }
            pair.ask(&context, &random_statements::delete(&mut random, unit_seconds), &parameters);
        }
    }
    subject::stop(server);
    assert!(
        pair.full * 2 > pair.asked,
        "only {} of {} answers hold rows: the test shows little",
        pair.full,
        pair.asked
    );
    let told = pair.faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(pair.faults.is_empty(), "{} of {} statements:\n{told}", pair.faults.len(), pair.asked);
}

/// `TIDEMILL_JUDGE_SEED` moves the differential test to other statements.
fn first_seed() -> u64 {
    std::env::var("TIDEMILL_JUDGE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}
