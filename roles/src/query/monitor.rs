//! SHOW STATS and SHOW DIAGNOSTICS.

use crate::{
    data::statistics::{Statistic, statistics},
    query::{
        StatementError,
        answer_table::{TableColumn, number, table},
        pieces::Answer,
        sources::Session,
    },
};
use std::collections::BTreeMap;
use tidemill_influxql::{GoDurationText, TimestampText};
use tidemill_query::ResultSeries;
use toml::Value;

/// SHOW STATS: a table of one row for each statistic.
pub(super) async fn statistics_of(session: &Session, module: Option<&str>) -> Result<Answer, StatementError> {
    let (all, figures) = statistics(&session.core).await?;
    if module == Some("indexes") {
        let bytes = figures.iter().map(|core| core.store.index_bytes as u64).sum();
        return Ok(Answer::of(vec![number("indexes", "memoryBytes", bytes)]));
    }
    let shown = all.iter().filter(|statistic| module.is_none_or(|module| module == statistic.name));
    Ok(Answer::of(shown.map(table_of).collect()))
}

fn table_of(statistic: &Statistic) -> ResultSeries {
    let columns = statistic.values.iter().map(|(name, value)| (*name, TableColumn::Integers(vec![*value as i64])));
    let mut series = table(statistic.name, columns.collect());
    series.tags = statistic.tags.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    series
}

/// SHOW DIAGNOSTICS: a table of one row for each module, by name.
pub(super) fn diagnostics(session: &Session, module: Option<&str>) -> Result<Answer, StatementError> {
    let mut modules: BTreeMap<String, Vec<(&'static str, TableColumn)>> = BTreeMap::new();
    modules.insert("build".into(), build(session));
    modules.insert("network".into(), vec![("hostname", one(&host_name()))]);
    modules.insert("runtime".into(), runtime(session));
    modules.insert("system".into(), system(session));
    for (section, keys) in session.core.options.effective() {
        let name = match section {
            "" => "config".to_owned(),
            "http" => "config-httpd".to_owned(),
            "continuous_queries" => "config-cqs".to_owned(),
            section => format!("config-{section}"),
        };
        modules.insert(name, keys.into_iter().filter_map(|(key, value)| Some((key, column(value)?))).collect());
    }
    let shown = modules.into_iter().filter(|(name, _)| module.is_none_or(|module| module == name));
    Ok(Answer::of(shown.map(|(name, columns)| table(&name, columns)).collect()))
}

fn build(session: &Session) -> Vec<(&'static str, TableColumn)> {
    // The version that clients see; which program it is stands beside it.
    vec![
        ("Branch", one("tidemill")),
        ("Build Time", one("")),
        ("Commit", one(env!("CARGO_PKG_VERSION"))),
        ("Version", one(&session.core.options.http.version)),
    ]
}

fn runtime(session: &Session) -> Vec<(&'static str, TableColumn)> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    vec![
        ("GOARCH", one(architecture)),
        ("GOMAXPROCS", TableColumn::Integers(vec![session.core.context().cores as i64])),
        ("GOOS", one(std::env::consts::OS)),
        ("version", one(concat!("rust", env!("CARGO_PKG_RUST_VERSION")))),
    ]
}

fn system(session: &Session) -> Vec<(&'static str, TableColumn)> {
    let now_ns = session.core.context().clock.now_ns();
    let started_ns = session.core.started_ns;
    vec![
        ("PID", TableColumn::Integers(vec![i64::from(std::process::id())])),
        ("currentTime", one(&TimestampText(now_ns).to_string())),
        ("started", one(&TimestampText(started_ns).to_string())),
        ("uptime", one(&GoDurationText(now_ns - started_ns).to_string())),
    ]
}

pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn one(text: &str) -> TableColumn {
    TableColumn::Texts(vec![text.to_owned()])
}

/// A value of the configuration; tables are left out.
fn column(value: Value) -> Option<TableColumn> {
    Some(match value {
        Value::Boolean(value) => TableColumn::Booleans(vec![value]),
        Value::Integer(value) => TableColumn::Integers(vec![value]),
        Value::String(text) => one(&text),
        Value::Table(_) => return None,
        other => one(&other.to_string()),
    })
}
