//! What is noted of a fleet by second: memory of each process, and how the pool is.

use super::fleet::Fleet;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);

/// How the pool is, as its masters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    pub files: u64,
    pub bytes: u64,
    /// Files with fewer durable copies than are wanted, and the copies that they lack.
    pub short: u64,
    pub missing_copies: u64,
    /// Partitions whose files the pool does not take.
    pub refused: u64,
}

impl PoolState {
    /// What `/cluster/pool` says.
    pub fn read(status: &Value) -> Option<PoolState> {
        let files = &status["files"];
        let number = |name: &str| files[name].as_u64();
        Some(PoolState {
            files: number("total")?,
            bytes: number("bytes")?,
            short: number("short")?,
            missing_copies: number("missing_copies")?,
            refused: status["waiting"].as_array().map_or(0, |waiting| waiting.len() as u64),
        })
    }

    pub fn is_whole(&self) -> bool {
        self.short == 0
    }
}

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub at: Duration,
    /// Resident bytes of all processes.
    pub resident_bytes: u64,
    /// None: no node said.
    pub pool: Option<PoolState>,
}

/// Something that was done.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: Duration,
    pub what: String,
}

/// Everything that was noted, in the order of time.
#[derive(Debug)]
pub struct Watch {
    begin: Instant,
    moments: Mutex<Vec<Moment>>,
    events: Mutex<Vec<Event>>,
    is_over: AtomicBool,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            begin: Instant::now(),
            moments: Mutex::default(),
            events: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }
}

impl Watch {
    /// Looks once a second until [`Watch::end`].
    pub fn run(&self, fleet: &Fleet) {
        while !self.is_over.load(Ordering::Acquire) {
            let (at, resident_bytes) = (self.begin.elapsed(), fleet.note_memory());
            let moment = Moment { at, resident_bytes, pool: fleet.pool_state() };
            self.moments.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(moment);
            std::thread::sleep(EVERY);
        }
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Says it, and keeps it for the page.
    pub fn note(&self, what: impl Into<String>) {
        let event = Event { at: self.begin.elapsed(), what: what.into() };
        println!("{:>7.1} s  {}", event.at.as_secs_f64(), event.what);
        self.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(event);
    }

    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub fn moments(&self) -> Vec<Moment> {
        self.moments.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub fn to_json(&self) -> Value {
        let moment = |moment: &Moment| {
            let pool = moment.pool.map(|pool| {
                json!({
                    "files": pool.files,
                    "bytes": pool.bytes,
                    "short": pool.short,
                    "missing_copies": pool.missing_copies,
                })
            });
            json!({ "second": moment.at.as_secs_f64(), "resident_bytes": moment.resident_bytes, "pool": pool })
        };
        let event = |event: &Event| json!({ "second": event.at.as_secs_f64(), "what": event.what });
        json!({
            "moments": self.moments().iter().map(moment).collect::<Vec<_>>(),
            "events": self.events().iter().map(event).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_pool_is_read_or_it_is_none() {
        let status = json!({
            "files": { "total": 7, "bytes": 900, "short": 2, "missing_copies": 3, "copying": 1 },
            "waiting": [{ "partition": 3, "why": "no room" }],
        });
        let state = PoolState::read(&status).unwrap();
        assert_eq!(state, PoolState { files: 7, bytes: 900, short: 2, missing_copies: 3, refused: 1 });
        assert!(!state.is_whole());
        assert_eq!(PoolState::read(&json!({ "files": {} })), None);
    }
}
