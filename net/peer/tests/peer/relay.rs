//! A UDP relay that does to datagrams what bad networks do. Uses std alone, so that other test crates can take the file
//! as it is (`#[path]`).
//!
//! Each caller gets a socket of its own towards the target, as behind a NAT. What was decided for a datagram follows from
//! the seed and the order of arrival.

#![allow(dead_code)]

use std::collections::{BTreeMap, BinaryHeap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What happens to a datagram; parts are of 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    pub drop: f64,
    pub duplicate: f64,
    /// One bit of it is flipped.
    pub corrupt: f64,
    /// Its end is cut off.
    pub truncate: f64,
    /// It waits for up to `jitter` more than others.
    pub reorder: f64,
    pub delay: Duration,
    pub jitter: Duration,
    /// It is sent again after this many others: an old one.
    pub replay: f64,
    /// Nothing passes towards the target, or back.
    pub is_cut_forward: bool,
    pub is_cut_back: bool,
    /// Longer ones are lost.
    pub bytes_max: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub passed: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub truncated: u64,
    pub reordered: u64,
    pub replayed: u64,
}

struct Shared {
    faults: Mutex<Faults>,
    counters: Mutex<Counters>,
    is_stopping: AtomicBool,
    is_rebinding: AtomicBool,
}

/// A relay in a thread of its own; dropping it ends it.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub fn start(target: SocketAddr, faults: Faults, seed: u64) -> Relay {
        Relay::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), target, faults, seed)
    }

    /// As [`Relay::start`], with an address that its callers know already.
    pub fn start_at(front: SocketAddr, target: SocketAddr, faults: Faults, seed: u64) -> Relay {
        let front = UdpSocket::bind(front).unwrap();
        front.set_nonblocking(true).unwrap();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            faults: Mutex::new(faults),
            counters: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            is_rebinding: AtomicBool::new(false),
        });
        let worker = Worker {
            front,
            target,
            callers: BTreeMap::new(),
            waiting: BinaryHeap::new(),
            old: Vec::new(),
            number: 0,
            random: seed,
            shared: shared.clone(),
        };
        let thread = std::thread::spawn(move || worker.run());
        Relay { address, shared, thread: Some(thread) }
    }

    /// Where to send what the target is to get.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap() = faults;
    }

    pub fn counters(&self) -> Counters {
        self.shared.counters.lock().unwrap().clone()
    }

    /// All callers appear from new ports from now on, as when a NAT forgets.
    pub fn rebind(&self) {
        self.shared.is_rebinding.store(true, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, None | Some(Ok(()))), "the relay died");
    }
}

struct Waiting {
    at: Instant,
    number: u64,
    caller: SocketAddr,
    is_forward: bool,
    bytes: Vec<u8>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.number == other.number
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

struct Worker {
    front: UdpSocket,
    target: SocketAddr,
    callers: BTreeMap<SocketAddr, UdpSocket>,
    waiting: BinaryHeap<Waiting>,
    /// Some that have passed, to be sent again.
    old: Vec<(SocketAddr, bool, Vec<u8>)>,
    number: u64,
    random: u64,
    shared: Arc<Shared>,
}

const OLD_MAX: usize = 256;
const IDLE_SHORT: Duration = Duration::from_micros(100);
const IDLE_LONG: Duration = Duration::from_millis(1);
const IDLE_ROUNDS_SHORT: u32 = 10;

impl Worker {
    fn run(mut self) {
        let mut buffer = vec![0; 1 << 16];
        let mut idle_rounds = 0u32;
        while !self.shared.is_stopping.load(Ordering::Relaxed) {
            let mut is_busy = false;
            if self.shared.is_rebinding.swap(false, Ordering::Relaxed) {
                for socket in self.callers.values_mut() {
                    *socket = back_socket();
                }
            }
            for _ in 0..64 {
                let Ok((length, caller)) = self.front.recv_from(&mut buffer) else { break };
                self.callers.entry(caller).or_insert_with(back_socket);
                self.take(caller, true, &buffer[..length]);
                is_busy = true;
            }
            let callers: Vec<SocketAddr> = self.callers.keys().copied().collect();
            for caller in callers {
                for _ in 0..64 {
                    let Ok((length, _)) = self.callers[&caller].recv_from(&mut buffer) else { break };
                    self.take(caller, false, &buffer[..length]);
                    is_busy = true;
                }
            }
            let now = Instant::now();
            while self.waiting.peek().is_some_and(|waiting| waiting.at <= now) {
                let Some(Waiting { caller, is_forward, bytes, .. }) = self.waiting.pop() else { break };
                self.pass(caller, is_forward, &bytes);
            }
            // Short while there is something to relay, long when nobody speaks: there may be many relays.
            idle_rounds = if is_busy { 0 } else { idle_rounds + 1 };
            if !is_busy {
                std::thread::sleep(if idle_rounds < IDLE_ROUNDS_SHORT { IDLE_SHORT } else { IDLE_LONG });
            }
        }
    }

    fn take(&mut self, caller: SocketAddr, is_forward: bool, bytes: &[u8]) {
        let faults = self.shared.faults.lock().unwrap().clone();
        let shared = self.shared.clone();
        let mut counters = shared.counters.lock().unwrap();
        let is_cut = if is_forward { faults.is_cut_forward } else { faults.is_cut_back };
        let is_long = faults.bytes_max.is_some_and(|max| bytes.len() > max);
        if is_cut || is_long || self.chance(faults.drop) {
            counters.dropped += 1;
            return;
        }
        let mut copies = vec![bytes.to_vec()];
        if self.chance(faults.duplicate) {
            counters.duplicated += 1;
            copies.push(bytes.to_vec());
        }
        for mut bytes in copies {
            if self.chance(faults.corrupt) && !bytes.is_empty() {
                counters.corrupted += 1;
                let bit = self.below(bytes.len() as u64 * 8);
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
            if self.chance(faults.truncate) && !bytes.is_empty() {
                counters.truncated += 1;
                let length = self.below(bytes.len() as u64);
                bytes.truncate(length as usize);
            }
            let mut delay = faults.delay;
            if self.chance(faults.reorder) {
                counters.reordered += 1;
                delay += faults.jitter.mul_f64(self.below(1000) as f64 / 1000.0);
            }
            if delay.is_zero() {
                self.pass(caller, is_forward, &bytes);
            } else {
                self.number += 1;
                let at = Instant::now() + delay;
                self.waiting.push(Waiting { at, number: self.number, caller, is_forward, bytes });
            }
            counters.passed += 1;
        }
        if faults.replay > 0.0 {
            if self.old.len() < OLD_MAX {
                self.old.push((caller, is_forward, bytes.to_vec()));
            } else if self.chance(0.1) {
                let at = self.below(OLD_MAX as u64) as usize;
                self.old[at] = (caller, is_forward, bytes.to_vec());
            }
            if self.chance(faults.replay) {
                counters.replayed += 1;
                let at = self.below(self.old.len() as u64) as usize;
                let (caller, is_forward, bytes) = self.old[at].clone();
                self.pass(caller, is_forward, &bytes);
            }
        }
    }

    fn pass(&self, caller: SocketAddr, is_forward: bool, bytes: &[u8]) {
        // What the kernel does not take is lost, as on any network.
        let _ = match (is_forward, self.callers.get(&caller)) {
            (true, Some(socket)) => socket.send_to(bytes, self.target),
            (false, _) => self.front.send_to(bytes, caller),
            (true, None) => return,
        };
    }

    fn chance(&mut self, part: f64) -> bool {
        part > 0.0 && (self.below(1 << 32) as f64) < part * (1u64 << 32) as f64
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

fn back_socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}
