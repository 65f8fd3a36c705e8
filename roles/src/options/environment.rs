//! Options from the environment: `TIDEMILL_<SECTION>_<KEY>`, and `INFLUXDB_<SECTION>_<KEY>` as upstream has them.
//!
//! Invariants: the environment wins over the file, and ours over upstream's; an empty value is none.
//! Knows nothing of the process: the variables are an argument.

use crate::options::upstream;
use anyhow::{Context, bail};
use toml::{Table, Value};

/// The prefixes, the one that wins last.
const PREFIXES: [&str; 2] = ["INFLUXDB", "TIDEMILL"];

/// Puts what the environment says into a file. `keys` are those that there are, with a value of their kind.
///
/// # Errors
/// A value that is none of its key's kind.
pub fn put_in(
    file: &mut Table,
    keys: &[(&str, Vec<(&str, Value)>)],
    variable: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<()> {
    let variable = |name: &str| variable(name).filter(|text| !text.is_empty());
    for prefix in PREFIXES {
        for (section, keys) in keys {
            for (key, kind) in keys {
                let name = name_of(prefix, section, key);
                if let Some(text) = variable(&name) {
                    set(file, section, key, value_of(&text, kind).context(name)?)?;
                }
            }
        }
        for (section, key) in upstream::keys() {
            if let Some(text) = variable(&name_of(prefix, section, key)) {
                let value = boolean(&text).map_or(Value::String(text), Value::Boolean);
                set(file, section, key, value)?;
            }
        }
        for listener in upstream::listeners().chain(["udp"]) {
            for name in [name_of(prefix, listener, "0_enabled"), name_of(prefix, listener, "enabled")] {
                if variable(&name).is_some_and(|text| boolean(&text) != Some(false)) {
                    bail!(
                        "{name} is not possible here: of all listeners there is UDP alone, and a file turns it on with [[udp]]"
                    );
                }
            }
        }
    }
    Ok(())
}

fn name_of(prefix: &str, section: &str, key: &str) -> String {
    let name = if section.is_empty() { format!("{prefix}_{key}") } else { format!("{prefix}_{section}_{key}") };
    name.replace('-', "_").to_uppercase()
}

fn set(file: &mut Table, section: &str, key: &str, value: Value) -> anyhow::Result<()> {
    let keys = match section {
        "" => file,
        section => {
            let entry = file.entry(section).or_insert_with(|| Value::Table(Table::new()));
            entry.as_table_mut().with_context(|| format!("{section} is no section of the file"))?
        }
    };
    keys.insert(key.to_owned(), value);
    Ok(())
}

/// A text as the kind of value that its key has.
fn value_of(text: &str, kind: &Value) -> anyhow::Result<Value> {
    Ok(match kind {
        Value::Boolean(_) => {
            let value = boolean(text);
            Value::Boolean(value.with_context(|| format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))?)
        }
        // Sizes may have a suffix; other numbers are refused with one when the file is read.
        Value::Integer(_) => text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer),
        Value::Array(_) => Value::Array(text.split(',').map(|part| Value::String(part.trim().to_owned())).collect()),
        _ => Value::String(text.to_owned()),
    })
}

/// The forms that upstream takes.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(file: &str, variables: &[(&str, &str)]) -> anyhow::Result<Table> {
        let mut table: Table = file.parse()?;
        let keys = [
            ("", vec![("cores", Value::Integer(1))]),
            ("http", vec![("auth-enabled", Value::Boolean(false)), ("max-row-limit", Value::Integer(0))]),
        ];
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        put_in(&mut table, &keys, &variable).map(|()| table)
    }

    #[test]
    fn the_environment_wins_over_the_file_and_ours_over_upstreams() {
        let table = put(
            "cores = 1\n[http]\nmax-row-limit = 5",
            &[
                ("INFLUXDB_HTTP_MAX_ROW_LIMIT", "6"),
                ("INFLUXDB_HTTP_AUTH_ENABLED", "t"),
                ("TIDEMILL_HTTP_AUTH_ENABLED", "0"),
                ("TIDEMILL_CORES", ""),
            ],
        )
        .unwrap();
        assert_eq!(table["http"]["max-row-limit"], Value::Integer(6));
        assert_eq!(table["http"]["auth-enabled"], Value::Boolean(false));
        assert_eq!(table["cores"], Value::Integer(1));
    }

    #[test]
    fn nonsense_is_refused_by_the_name_of_the_variable() {
        let error = put("", &[("TIDEMILL_HTTP_AUTH_ENABLED", "maybe")]).unwrap_err();
        assert!(format!("{error:#}").contains("TIDEMILL_HTTP_AUTH_ENABLED: strconv.ParseBool"), "{error:#}");
        let error = put("", &[("INFLUXDB_UDP_0_ENABLED", "true")]).unwrap_err();
        assert!(error.to_string().contains("INFLUXDB_UDP_0_ENABLED"));
    }

    #[test]
    fn keys_that_mean_nothing_here_are_judged_as_those_of_a_file() {
        let mut table = put("", &[("INFLUXDB_DATA_WAL_DIR", "/fast")]).unwrap();
        assert!(upstream::take_out(&mut table).unwrap_err().to_string().contains("data.wal-dir"));
    }
}
