//! Stopping by signals, with real processes: this binary starts itself as the server.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command},
    thread,
    time::Duration,
};
use tidemill_reactor::{CoreContext, ReactorOptions, run};

fn main() {
    match env::var("TIDEMILL_TEST_SERVER") {
        Ok(mode) => serve(&mode),
        Err(_) => {
            one_signal_drains("TERM");
            one_signal_drains("INT");
            a_second_signal_ends_at_once("TERM", 143);
            a_second_signal_ends_at_once("INT", 130);
            a_killed_server_leaves_no_lock();
            println!("signals: all ok");
        }
    }
}

/// Serves until it is told to stop; says when it is up by a file, and whether it drained by another.
fn serve(mode: &str) {
    let folder = env::var("TIDEMILL_TEST_FOLDER").unwrap();
    let mut options = ReactorOptions::new(1, Path::new(&folder).join("data"));
    options.io_memory_bytes = 1 << 20;
    let drains = mode == "drain";
    let ended = run(options, move |context: CoreContext<()>| {
        let folder = folder.clone();
        async move {
            fs::write(Path::new(&folder).join("up"), "")?;
            context.shutdown.requested().await;
            fs::write(Path::new(&folder).join("asked"), "")?;
            if !drains {
                std::future::pending::<()>().await;
            }
            fs::write(Path::new(&folder).join("drained"), "")?;
            Ok(())
        }
    });
    std::process::exit(i32::from(ended.is_err()));
}

struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(mode: &str, folder: tempfile::TempDir) -> Server {
        let mut command = Command::new(env::current_exe().unwrap());
        command.env("TIDEMILL_TEST_SERVER", mode).env("TIDEMILL_TEST_FOLDER", folder.path());
        let server = Server { child: command.spawn().unwrap(), folder };
        server.wait_for("up");
        server
    }

    fn wait_for(&self, name: &str) {
        for _ in 0..3_000 {
            if self.folder.path().join(name).exists() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the server never said {name:?}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Exit code, or 128 and the signal that ended it.
    fn ended(&mut self) -> Option<i32> {
        for _ in 0..3_000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().unwrap();
        panic!("the server did not end");
    }
}

fn one_signal_drains(signal: &str) {
    let mut server = Server::start("drain", tempfile::tempdir().unwrap());
    server.signal(signal);
    assert_eq!(server.ended(), Some(0), "{signal}");
    assert!(server.folder.path().join("drained").exists());
}

fn a_second_signal_ends_at_once(signal: &str, code: i32) {
    let mut server = Server::start("hang", tempfile::tempdir().unwrap());
    server.signal(signal);
    server.wait_for("asked");
    server.signal(signal);
    assert_eq!(server.ended(), Some(code), "{signal}");
}

fn a_killed_server_leaves_no_lock() {
    let mut server = Server::start("drain", tempfile::tempdir().unwrap());
    server.signal("KILL");
    assert_eq!(server.ended(), None);
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
    fs::remove_file(folder.path().join("up")).unwrap();
    let mut server = Server::start("drain", folder);
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0));
}
