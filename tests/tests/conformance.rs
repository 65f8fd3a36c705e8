//! The case files under `conformance/`, each on a fresh server.

use std::path::{Path, PathBuf};
use tidemill_perf::{http::Client, server::Kind};
use tidemill_tests::{case, play, subject};

/// Faults that are told in full.
const TOLD_MAX: usize = 20;

pub fn case_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance").join(name)
}

/// All case files, by name.
pub fn case_files() -> Vec<PathBuf> {
    let folder = case_file("");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

fn play_file(name: &str) {
    let home = subject::Home::new();
    let server = home.start();
    let mut client = subject::client(&server);
    play_at(name, &mut client);
    subject::stop(server);
}

/// Plays a case file at a fresh server, or at what stands before one.
pub fn play_at(name: &str, client: &mut Client) {
    let path = case_file(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases = case::parse(&text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let (mut steps, mut faults) = (0, Vec::new());
    for case in &cases {
        if subject::kind() == Kind::Influxd
            && let Some(reason) = &case.judge_differs
        {
            subject::skip(&format!("{}: {reason}", case.title));
            continue;
        }
        for step in &case.steps {
            steps += 1;
            if let Err(fault) = play::step(client, step) {
                faults.push(format!("[{}] {fault}", case.title));
            }
        }
    }
    let told = faults.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{name}: {} of {steps} steps are wrong:\n{told}", faults.len());
}

#[test]
fn every_case_file_is_played() {
    let names: Vec<String> =
        case_files().iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect();
    let played = [
        "arguments.txt",
        "cardinality.txt",
        "conditions.txt",
        "continuous_queries.txt",
        "databases.txt",
        "deletes.txt",
        "extensions.txt",
        "fills.txt",
        "formats.txt",
        "functions.txt",
        "grafana.txt",
        "grammar.txt",
        "http.txt",
        "into.txt",
        "line_protocol.txt",
        "nested.txt",
        "policies.txt",
        "requests.txt",
        "select.txt",
        "select_errors.txt",
        "selectors.txt",
        "show.txt",
        "subqueries.txt",
        "subscriptions.txt",
        "technical.txt",
        "telegraf.txt",
        "time_zones.txt",
        "transformations.txt",
        "typing.txt",
        "users.txt",
        "v2_write.txt",
    ];
    assert_eq!(names, played);
}

#[test]
fn continuous_queries() {
    play_file("continuous_queries.txt");
}

#[test]
fn databases_and_retention_policies() {
    play_file("databases.txt");
}

#[test]
fn deletes_and_drops() {
    play_file("deletes.txt");
}

#[test]
fn subscriptions() {
    play_file("subscriptions.txt");
}

#[test]
fn extensions() {
    play_file("extensions.txt");
}

#[test]
fn functions_over_rows_and_of_single_values() {
    play_file("functions.txt");
}

#[test]
fn http_parameters_and_answers() {
    play_file("http.txt");
}

#[test]
fn select_into() {
    play_file("into.txt");
}

#[test]
fn line_protocol() {
    play_file("line_protocol.txt");
}

#[test]
fn select() {
    play_file("select.txt");
}

#[test]
fn refused_statements() {
    play_file("select_errors.txt");
}

#[test]
fn show() {
    play_file("show.txt");
}

#[test]
fn subqueries() {
    play_file("subqueries.txt");
}

#[test]
fn time_zones() {
    play_file("time_zones.txt");
}

#[test]
fn arguments_of_functions() {
    play_file("arguments.txt");
}

#[test]
fn cardinalities_and_conditions_of_show() {
    play_file("cardinality.txt");
}

#[test]
fn conditions() {
    play_file("conditions.txt");
}

#[test]
fn fill_options() {
    play_file("fills.txt");
}

#[test]
fn forms_of_answers() {
    play_file("formats.txt");
}

#[test]
fn questions_of_grafana() {
    play_file("grafana.txt");
}

#[test]
fn lexer_and_grammar() {
    play_file("grammar.txt");
}

#[test]
fn columns_and_groups_of_subqueries() {
    play_file("nested.txt");
}

#[test]
fn several_retention_policies() {
    play_file("policies.txt");
}

#[test]
fn http_requests() {
    play_file("requests.txt");
}

#[test]
fn selected_points() {
    play_file("selectors.txt");
}

#[test]
fn technical_analysis() {
    play_file("technical.txt");
}

#[test]
fn a_stream_of_telegraf() {
    play_file("telegraf.txt");
}

#[test]
fn transformations() {
    play_file("transformations.txt");
}

#[test]
fn types() {
    play_file("typing.txt");
}

#[test]
fn users_and_grants() {
    play_file("users.txt");
}

#[test]
fn paths_of_version_2() {
    play_file("v2_write.txt");
}

/// What was flushed, replayed from the log or read back from files must answer as the memtable did.
#[test]
fn answers_are_the_same_after_a_stop_and_after_a_kill() {
    let home = subject::Home::new();
    let mut setup = home.setup();
    for (start, cores) in [2, 1, 2].into_iter().enumerate() {
        setup.cores = Some(cores);
        let server = subject::start(setup.clone());
        let mut client = subject::client(&server);
        let mut faults = Vec::new();
        for name in ["select.txt", "show.txt"] {
            let text = std::fs::read_to_string(case_file(name)).unwrap();
            for case in case::parse(&text).unwrap() {
                // The cases called data write; they are played at the first start only.
                if case.title == "data" && (start > 0 || name != "select.txt") {
                    continue;
                }
                faults.extend(case.steps.iter().filter_map(|step| play::step(&mut client, step).err()));
            }
        }
        let told = faults.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("\n");
        assert!(faults.is_empty(), "start {start} on {cores} cores: {} steps are wrong:\n{told}", faults.len());
        if start == 0 {
            subject::stop(server);
        } else {
            server.kill().unwrap();
        }
    }
}
