//! Damage of the files of a real server: it is named before a wrong value reaches a client. Every single bit is flipped
//! in the tests of `core/log`, `core/store`, `core/index` and of the small files; here a few of each kind, through the
//! server's own start and scrub.

use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemill_perf::http::Client;
use tidemill_perf::server::{Server, Setup};
use tidemill_tests::subject;

/// Steps of 50 ms that anything may take.
const PATIENCE: usize = 600;

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn flip(path: &Path, byte: usize, bit: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 1 << bit;
    // In place: an open file must see it.
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&bytes[byte..=byte], byte as u64).unwrap();
    file.sync_all().unwrap();
}

fn metric(client: &mut Client, name: &str) -> f64 {
    let text = client.get("/metrics").unwrap().text();
    let values = text.lines().filter_map(|line| {
        let (place, value) = line.rsplit_once(' ')?;
        (place.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..PATIENCE {
        if is_there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not come");
}

fn setup(home: &subject::Home, config: &str) -> Setup {
    let path = home.path().join("config.toml");
    std::fs::write(&path, format!("[data]\npartitions = 1\n{config}")).unwrap();
    let mut setup = home.setup();
    setup.cores = Some(1);
    setup.arguments = vec!["--config".into(), path.display().to_string()];
    setup
}

fn lines(from: i64, to: i64) -> String {
    (from..to).map(|row| format!("m,host=h{} v={}.5 {row}\n", row % 3, row * 7 % 1000)).collect()
}

#[test]
fn the_scrub_tells_rot_and_its_progress() {
    if subject::skip_for_upstream("it has no scrub") {
        return;
    }
    let home = subject::Home::new();
    let server = subject::start(setup(&home, "scrub-rate = \"1m\"\nscrub-interval = \"1s\"\nl1-files-per-l2 = 1\n"));
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE d", "").unwrap();
    subject::write(&mut client, "db=d", &lines(0, 20_000)).unwrap();
    // A snapshot has everything in files, and is let go again.
    let taken = client.request("POST", "/snapshots", &[], b"").unwrap();
    assert_eq!(taken.status, 201, "{}", taken.text());
    wait_for("a sealed file", || metric(&mut client, "tidemill_files_l2") == 1.0);
    wait_for("a pass over it", || metric(&mut client, "tidemill_scrub_files_total") > 0.0);
    assert_eq!(metric(&mut client, "tidemill_scrub_findings_total"), 0.0);
    assert_eq!(metric(&mut client, "tidemill_scrub_rate_bytes"), f64::from(1 << 20));
    let is_sealed = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "tsm");
    let sealed = files_below(&server.setup().data.join("partitions")).into_iter().find(is_sealed).unwrap();
    let size = std::fs::metadata(&sealed).unwrap().len();
    assert_eq!(metric(&mut client, "tidemill_scrub_pass_bytes"), size as f64);

    // No query has read it since the flip, and none will.
    flip(&sealed, size as usize / 3, 3);
    wait_for("a finding", || metric(&mut client, "tidemill_scrub_findings_total") > 0.0);
    let log = std::fs::read_to_string(&server.setup().log).unwrap();
    let name = sealed.file_name().unwrap().display().to_string();
    let told = log.lines().find(|line| line.contains("the scrub found damage")).unwrap();
    assert!(told.contains(&name) && told.contains("offset"), "{told}");
    assert!(log.contains("the scrub has read all files again"), "{log}");
    // Not by the statistics of the block, which are whole.
    let answer = client.query("SELECT v FROM m", "db=d").unwrap().text();
    assert!(answer.contains("error") && answer.contains(&name), "{answer}");
    subject::stop(server);
}

/// What a start on the folder says: the sum of all values, or why there is none.
fn outcome(setup: &Setup) -> Result<String, String> {
    let server = Server::start(setup.clone()).map_err(|error| format!("{error:#}"))?;
    let mut client = subject::client(&server);
    let answer = client.query("SELECT count(v), sum(v) FROM m", "db=d").unwrap().text();
    drop(server);
    if answer.contains("error") { Err(answer) } else { Ok(answer) }
}

#[test]
fn a_server_on_damaged_files_names_them_or_answers_as_before() {
    if subject::skip_for_upstream("it starts on damaged files") {
        return;
    }
    let home = subject::Home::new();
    let mut setup = setup(&home, "");
    let server = subject::start(setup.clone());
    let mut client = subject::client(&server);
    subject::query(&mut client, "CREATE DATABASE d", "").unwrap();
    subject::write(&mut client, "db=d", &lines(0, 2_000)).unwrap();
    let taken = client.request("POST", "/snapshots", &[], b"").unwrap();
    assert_eq!(taken.status, 201, "{}", taken.text());
    subject::query(&mut client, "DELETE FROM m WHERE host = 'h1' AND time < 500", "db=d").unwrap();
    // These are only in the log.
    subject::write(&mut client, "db=d", &lines(2_000, 2_100)).unwrap();
    subject::write(&mut client, "db=d", &lines(2_100, 2_200)).unwrap();
    // Damage of the newest commit of a killed server cannot be told from a torn write: nothing that is asked for is in it.
    subject::write(&mut client, "db=d", "other v=1 1").unwrap();
    let expected = client.query("SELECT count(v), sum(v) FROM m", "db=d").unwrap().text();
    let pristine = home.path().join("pristine");
    let data = server.setup().data.clone();
    drop(server);
    std::fs::rename(&data, &pristine).unwrap();
    let _ = std::fs::remove_dir_all(pristine.join("snapshots"));

    let all: Vec<PathBuf> = files_below(&pristine)
        .into_iter()
        .map(|path| path.strip_prefix(&pristine).unwrap().to_owned())
        .filter(|path| std::fs::metadata(pristine.join(path)).unwrap().len() > 0)
        .collect();
    let kinds = ["identity", "manifest", ".tsm", "meta/snapshot", ".log", "index-"];
    for (number, kind) in kinds.into_iter().enumerate() {
        let Some(path) = all.iter().find(|path| path.to_string_lossy().contains(kind)) else {
            assert_eq!(kind, "meta/snapshot", "{all:?}");
            continue;
        };
        let mut bytes = std::fs::read(pristine.join(path)).unwrap();
        // Behind the last commit a log is zeros.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for place in [0, used / 2, used] {
            setup.data = home.path().join(format!("damaged-{number}-{place}"));
            copy_folder(&pristine, &setup.data);
            bytes[place] ^= 16;
            std::fs::write(setup.data.join(path), &bytes).unwrap();
            bytes[place] ^= 16;
            let name = path.file_name().unwrap().display().to_string();
            match outcome(&setup) {
                Ok(answer) => assert_eq!(answer, expected, "{} byte {place}", path.display()),
                Err(why) => assert!(why.contains(&name), "{} byte {place}: {why}", path.display()),
            }
            std::fs::remove_dir_all(&setup.data).unwrap();
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
