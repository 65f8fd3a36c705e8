//! Real clients: Debian's `influx` command, Python's `influxdb` and Node's `influx` packages.
//!
//! The packages are looked for in `TIDEMILL_CLIENTS` (`python/` a virtual environment, `node/` a folder with
//! `node_modules`), by default `target/clients`; `.ci/run` installs them. A client that is missing is skipped.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use tidemill_perf::server::Server;
use tidemill_tests::answers::{Numbers, difference};
use tidemill_tests::subject;

fn clients_folder() -> PathBuf {
    if let Ok(folder) = std::env::var("TIDEMILL_CLIENTS") {
        return folder.into();
    }
    let own = std::env::current_exe().unwrap();
    // target/<profile>/deps/main-<hash>
    own.ancestors().nth(3).unwrap().join("clients")
}

fn port(server: &Server) -> String {
    server.address().rsplit(':').next().unwrap_or_default().to_owned()
}

/// Runs a command that must succeed; its output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text.into_owned()
}

fn same(expected: &Value, found: &str) {
    let found: Value = serde_json::from_str(found).unwrap_or_else(|error| panic!("{error}: {found}"));
    if let Some(text) = difference(expected, &found, Numbers::Exact) {
        panic!("{text}\n{found:#}");
    }
}

#[test]
fn the_influx_command() {
    if !std::path::Path::new("/usr/bin/influx").exists() {
        return subject::skip("/usr/bin/influx is missing (apt-get install influxdb-client)");
    }
    let home = subject::Home::new();
    let server = home.start();
    let influx = |arguments: &[&str]| {
        run(Command::new("/usr/bin/influx").args(["-host", "127.0.0.1", "-port", &port(&server)]).args(arguments))
    };
    influx(&["-execute", "CREATE DATABASE shell"]);
    for line in ["INSERT cpu,host=a load=1.5,n=3i 1000000000", "INSERT cpu,host=b load=2.5,n=4i,s=\"x y\" 2000000000"] {
        influx(&["-database", "shell", "-execute", line]);
    }
    same(
        &json!({"results": [{"series": [{"name": "databases", "columns": ["name"], "values": [["shell"]]}]}]}),
        &influx(&["-format", "json", "-execute", "SHOW DATABASES"]),
    );
    same(
        &json!({"results": [{"series": [{
            "name": "cpu", "columns": ["time", "host", "load", "n", "s"],
            "values": [[1, "a", 1.5, 3, null], [2, "b", 2.5, 4, "x y"]],
        }]}]}),
        &influx(&["-database", "shell", "-precision", "s", "-format", "json", "-execute", "SELECT * FROM cpu"]),
    );
    let columns =
        influx(&["-database", "shell", "-format", "csv", "-execute", "SELECT sum(load) FROM cpu GROUP BY host"]);
    assert_eq!(columns, "name,tags,time,sum\ncpu,host=a,0,1.5\nname,tags,time,sum\ncpu,host=b,0,2.5\n");
    let table = influx(&["-database", "shell", "-precision", "rfc3339", "-execute", "SELECT load FROM cpu LIMIT 1"]);
    assert!(table.contains("1970-01-01T00:00:01Z 1.5"), "{table}");
    let import = home.path().join("import.txt");
    std::fs::write(
        &import,
        "# DDL\nCREATE DATABASE imported\n# DML\n# CONTEXT-DATABASE: imported\n# CONTEXT-RETENTION-POLICY: autogen\nm v=1 1\nm v=2 2\n",
    )
    .unwrap();
    influx(&["-import", "-path", &import.to_string_lossy()]);
    same(
        &json!({"results": [{"series": [{"name": "m", "columns": ["time", "count"], "values": [[0, 2]]}]}]}),
        &influx(&["-database", "imported", "-format", "json", "-execute", "SELECT count(v) FROM m"]),
    );
    subject::stop(server);
}

const PYTHON: &str = r#"
import json, sys
from influxdb import InfluxDBClient
c = InfluxDBClient('127.0.0.1', int(sys.argv[1]))
c.create_database('py')
c.switch_database('py')
ok = c.write_points([
    {'measurement': 'cpu', 'tags': {'host': 'a b', 'dc': 'x,y'}, 'time': 1000, 'fields': {'load': 1.5, 'n': 3, 's': 'q"w', 'up': True}},
    {'measurement': 'cpu', 'tags': {'host': 'c'}, 'time': 2000, 'fields': {'load': 2.25}},
], time_precision='ms')
rows = list(c.query('SELECT * FROM cpu', epoch='ms').get_points())
groups = [[dict(tags or {}), list(points)] for (name, tags), points in c.query('SELECT mean(load) FROM cpu GROUP BY host', epoch='ms').items()]
# The package asks for MessagePack, which it cannot read in chunks.
j = InfluxDBClient('127.0.0.1', int(sys.argv[1]), database='py', headers={'Accept': 'application/json'})
chunked = [p for part in j.query('SELECT load FROM cpu', epoch='ms', chunked=True, chunk_size=1) for p in part.get_points()]
bound = list(c.query('SELECT load FROM cpu WHERE host = $h', epoch='ms', bind_params={'h': 'c'}).get_points())
c.create_retention_policy('short', '1d', '1', 'py')
policies = [p['name'] for p in c.get_list_retention_policies('py')]
try:
    c.write_points([{'measurement': 'cpu', 'fields': {'load': 'text'}, 'time': 3000}], time_precision='ms')
    conflict = None
except Exception as error:
    conflict = error.code
measurements = c.get_list_measurements()
databases = c.get_list_database()
c.drop_measurement('cpu')
left = c.get_list_measurements()
c.drop_database('py')
print(json.dumps({'ok': ok, 'rows': rows, 'groups': groups, 'chunked': chunked, 'bound': bound, 'policies': policies,
    'conflict': conflict, 'measurements': measurements, 'databases': databases, 'left': left, 'ping': bool(c.ping())}))
"#;

#[test]
fn pythons_influxdb_package() {
    let python = clients_folder().join("python/bin/python");
    if !python.exists() {
        return subject::skip(&format!("{} is missing (.ci/run makes it)", python.display()));
    }
    let home = subject::Home::new();
    let server = home.start();
    let script = home.path().join("client.py");
    std::fs::write(&script, PYTHON).unwrap();
    let found = run(Command::new(python).arg(script).arg(port(&server)));
    same(
        &json!({
            "ok": true,
            "rows": [
                {"time": 1000, "dc": "x,y", "host": "a b", "load": 1.5, "n": 3, "s": "q\"w", "up": true},
                {"time": 2000, "dc": null, "host": "c", "load": 2.25, "n": null, "s": null, "up": null},
            ],
            "groups": [[{"host": "a b"}, [{"time": 0, "mean": 1.5}]], [{"host": "c"}, [{"time": 0, "mean": 2.25}]]],
            "chunked": [{"time": 1000, "load": 1.5}, {"time": 2000, "load": 2.25}],
            "bound": [{"time": 2000, "load": 2.25}],
            "policies": ["autogen", "short"],
            "conflict": 400,
            "measurements": [{"name": "cpu"}],
            "databases": [{"name": "py"}],
            "left": [],
            "ping": true,
        }),
        &found,
    );
    subject::stop(server);
}

const NODE: &str = r#"
const Influx = require('influx');
(async () => {
  const db = new Influx.InfluxDB({ host: '127.0.0.1', port: Number(process.argv[2]), database: 'js', schema: [
    { measurement: 'cpu', fields: { load: Influx.FieldType.FLOAT, n: Influx.FieldType.INTEGER, s: Influx.FieldType.STRING }, tags: ['host'] },
  ] });
  await db.createDatabase('js');
  await db.writePoints([
    { measurement: 'cpu', tags: { host: 'a b' }, fields: { load: 1.5, n: 3, s: 'q"w' }, timestamp: 1000 },
    { measurement: 'cpu', tags: { host: 'c' }, fields: { load: 2.25 }, timestamp: 2000 },
  ], { precision: 'ms' });
  const rows = (await db.query('select * from cpu')).map(r => ({ time: r.time.getTime(), host: r.host, load: r.load, n: r.n, s: r.s }));
  const groups = (await db.query('select mean(load) from cpu group by host')).groupRows.map(g => [g.tags, g.rows.map(r => r.mean)]);
  const out = { rows, groups, databases: await db.getDatabaseNames(), measurements: await db.getMeasurements(), series: await db.getSeries() };
  await db.dropDatabase('js');
  out.left = await db.getDatabaseNames();
  console.log(JSON.stringify(out));
})().catch(e => { console.error(e); process.exit(1); });
"#;

#[test]
fn nodes_influx_package() {
    let folder = clients_folder().join("node");
    if !folder.join("node_modules/influx").exists() {
        return subject::skip(&format!("{} has no influx package (.ci/run installs it)", folder.display()));
    }
    let home = subject::Home::new();
    let server = home.start();
    let script = home.path().join("client.js");
    std::fs::write(&script, NODE).unwrap();
    let modules = folder.join("node_modules");
    let found = run(Command::new("node").env("NODE_PATH", modules).arg(script).arg(port(&server)));
    same(
        &json!({
            "rows": [
                {"time": 1000, "host": "a b", "load": 1.5, "n": 3, "s": "q\"w"},
                {"time": 2000, "host": "c", "load": 2.25, "n": null, "s": null},
            ],
            "groups": [[{"host": "a b"}, [1.5]], [{"host": "c"}, [2.25]]],
            "databases": ["js"],
            "measurements": ["cpu"],
            "series": ["cpu,host=a\\ b", "cpu,host=c"],
            "left": [],
        }),
        &found,
    );
    subject::stop(server);
}
