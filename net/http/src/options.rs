//! Everything about the HTTP surface that an operator may set.

use std::time::Duration;

/// Limits and names. The defaults are upstream's where upstream has the option.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Sent as `X-Influxdb-Version` and by `/ping?verbose=1` and `/health`. Clients choose dialects by it: some parse
    /// three numbers and nothing else, and Chronograf takes every version that contains `-c` for a cluster product.
    pub version: String,
    /// Sent as `X-Influxdb-Build`.
    pub build: String,
    /// Realm of `WWW-Authenticate`.
    pub realm: String,
    /// Callers of `/ping`, `/status`, `/health` and `/metrics` must prove who they are.
    pub ping_auth: bool,
    /// Callers of `/debug/...` must prove that they may see the insides of the server.
    pub debug_auth: bool,
    /// `/debug/...` is there at all.
    pub serves_debug: bool,
    /// Added to every routed answer.
    pub headers: Vec<(String, String)>,
    /// Request line and headers together; more is answered with 431. At least 8192.
    pub head_bytes_max: usize,
    /// Header lines; more is answered with 431.
    pub header_count_max: usize,
    /// Request body as sent and after decompression, each; more is answered with 413. 0 is unlimited.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies that one core reads or works on; more are answered with 503 and `Retry-After`. 0 is
    /// unlimited; otherwise not below `body_bytes_max`, or the largest bodies never fit.
    pub bodies_bytes_max: usize,
    /// Query text (`q`) after percent decoding; more is answered with 413.
    pub query_text_bytes_max: usize,
    /// Connections of one core; more wait in the kernel's accept queue, and those that have been without a request for
    /// longest are closed to let them in. 0 is unlimited.
    pub connection_count_max: usize,
    /// Rows of an answer that is not chunked; 0 is unlimited.
    pub row_count_max: usize,
    /// Answers in formats that need their length up front (MessagePack, not chunked) are refused past this.
    pub unstreamed_answer_bytes_max: usize,
    /// From the first byte of a head (from the accept, for the first head) to its end.
    pub head_deadline: Duration,
    /// For a body, besides the time that `body_bytes_per_s_min` grants.
    pub body_deadline: Duration,
    /// A body may take `body_deadline` plus one second for so many bytes received.
    pub body_bytes_per_s_min: u32,
    /// How long a connection may stay without a request.
    pub idle_deadline: Duration,
    /// How long a client may leave an answer untaken, in total, besides the time that `write_bytes_per_s_min` grants.
    pub write_deadline: Duration,
    /// An answer may be blocked by its client for `write_deadline` plus one second for so many bytes taken.
    pub write_bytes_per_s_min: u32,
    /// How long running requests may take after a shutdown was asked for.
    pub shutdown_deadline: Duration,
    /// How often deadlines of connections are looked at: their resolution.
    pub sweep_interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            version: "1.8.10".to_owned(),
            build: "OSS".to_owned(),
            realm: "InfluxDB".to_owned(),
            ping_auth: false,
            debug_auth: false,
            serves_debug: true,
            headers: Vec::new(),
            // A GET carries its query in the request line; upstream's limit is 1 MiB.
            head_bytes_max: 1 << 20,
            header_count_max: 100,
            body_bytes_max: 25_000_000,
            bodies_bytes_max: 0,
            query_text_bytes_max: 1 << 20,
            connection_count_max: 0,
            row_count_max: 0,
            unstreamed_answer_bytes_max: 64 << 20,
            head_deadline: Duration::from_secs(30),
            body_deadline: Duration::from_secs(30),
            body_bytes_per_s_min: 10_000,
            idle_deadline: Duration::from_secs(300),
            write_deadline: Duration::from_secs(30),
            write_bytes_per_s_min: 10_000,
            shutdown_deadline: Duration::from_secs(10),
            sweep_interval: Duration::from_millis(250),
        }
    }
}

/// The smallest [`Options::head_bytes_max`] that the protocol engine can work with.
pub const HEAD_BYTES_MAX_FLOOR: usize = 8192;
