//! TLS on the HTTP port.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_perf::server::free_port;
use tidemill_tests::subject;

const PATIENCE: Duration = Duration::from_secs(30);
const HOST: &str = "localhost";

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A new certificate and its key, in one file as upstream likes it. Returns the certificate.
fn write_certificate(path: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
    let pem = made.cert.pem();
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{pem}{}", made.signing_key.serialize_pem())).unwrap();
    std::fs::rename(new, path).unwrap();
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn connect(port: u16, trusted: &CertificateDer<'static>) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut tls = StreamOwned::new(session, stream);
    tls.flush()?;
    Ok(tls)
}

/// The whole answer; the request asks for the connection's end.
fn ask(tls: &mut Tls, method: &str, target: &str, body: &[u8]) -> std::io::Result<String> {
    let length = body.len();
    write!(tls, "{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")?;
    tls.write_all(body)?;
    tls.flush()?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Tries until it works.
fn until<T>(what: &str, mut attempt: impl FnMut() -> std::io::Result<T>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Killed at the end of the test, however that comes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The shell, backup and restore trust an authority that they are told of, or whoever answers, and nobody else.
fn tools_speak_tls(binary: &Path, port: u16, certificate: &Path, folder: &Path) {
    let run = |arguments: &[&str], trusted: Option<&Path>| {
        let mut command = Command::new(binary);
        command.args(arguments).stdin(Stdio::null());
        match trusted {
            Some(path) => command.env("SSL_CERT_FILE", path),
            None => command.env_remove("SSL_CERT_FILE"),
        };
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let port_text = port.to_string();
    let count = ["-port", &port_text, "-database", "d", "-execute", "SELECT count(v) FROM n"];
    let shell = |way: &[&str], trusted| run(&[&["shell"], way, &count].concat(), trusted);
    for (way, trusted) in [
        (&["--ssl"][..], Some(certificate)),
        (&["-ssl", "-unsafeSsl"], None),
        (&["--host", "https://localhost"], Some(certificate)),
    ] {
        let (is_well, text) = shell(way, trusted);
        assert!(is_well && text.contains("20000"), "{way:?}: {text}");
    }
    let (is_well, text) = shell(&["--ssl"], None);
    assert!(!is_well && text.contains("Failed to connect"), "{text}");
    let url = format!("https://localhost:{port}");
    let backup = folder.join("backup").display().to_string();
    let (is_well, text) = run(&["backup", &backup, "--host", &url], Some(certificate));
    assert!(is_well, "{text}");
    let restore = ["restore", &backup, "--host", &url, "--unsafe-ssl", "--database", "d", "--new-database", "e"];
    let (is_well, text) = run(&restore, None);
    assert!(is_well && text.contains("20000 rows"), "{text}");
    assert!(!run(&["backup", &backup, "--host", &url], None).0);
}

#[test]
fn requests_go_over_tls_and_a_changed_certificate_is_used_without_a_restart() {
    if subject::skip_for_upstream("it reads its certificate at its start only") {
        return;
    }
    let home = subject::Home::new();
    let setup = home.setup();
    let certificate = home.path().join("server.pem");
    let first = write_certificate(&certificate);
    let config = home.path().join("t.toml");
    let text = format!("[http]\nhttps-enabled = true\nhttps-certificate = {:?}\n", certificate.display().to_string());
    std::fs::write(&config, text).unwrap();
    let port = free_port().unwrap();
    let log = std::fs::File::create(home.path().join("server.log")).unwrap();
    let mut command = Command::new(&setup.binary);
    command.args(["--cores", "2", "--memory-limit", "256m", "--http", &format!("127.0.0.1:{port}"), "--data"]);
    command.arg(&setup.data).arg("--config").arg(&config);
    let _running = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());

    let answer = until("ping", || ask(&mut connect(port, &first)?, "GET", "/ping", b""));
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let send = |method: &str, target: &str, body: &[u8]| {
        ask(&mut connect(port, &first).unwrap(), method, target, body).unwrap()
    };
    send("POST", "/query?q=CREATE%20DATABASE%20d", b"");
    // Many records each way.
    let points: String = (0..20_000).map(|n| format!("n,host=h{} v={n} {n}\n", n % 10)).collect();
    let written = send("POST", "/write?db=d", points.as_bytes());
    assert!(written.starts_with("HTTP/1.1 204 "), "{written}");
    let rows = send("GET", "/query?db=d&epoch=ns&chunked=true&q=SELECT%20v%20FROM%20n", b"");
    assert!(rows.contains("[19999,19999]") && rows.matches("[1").count() > 10_000, "{} bytes", rows.len());
    // Whoever speaks plainly gets nothing, and disturbs nobody.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));

    tools_speak_tls(&setup.binary, port, &certificate, home.path());

    let second = write_certificate(&certificate);
    let answer = until("the new certificate", || ask(&mut connect(port, &second)?, "GET", "/ping", b""));
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    // One that cannot be used changes nothing.
    std::fs::write(&certificate, "nonsense").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(ask(&mut connect(port, &second).unwrap(), "GET", "/ping", b"").unwrap().starts_with("HTTP/1.1 204 "));
}
