//! Which data files hold a descriptor.
//!
//! Owns: [`OpenFiles`], one per core, and the [`Seat`] of each open data file. A store has as many files as time and
//! partitions ask for, more than a process may have descriptors; so a file that was opened and only read may lose its
//! descriptor and gets another one with its next read.
//!
//! Invariants: at most `max` files that may be closed hold a descriptor, by second chance (a file that was read since the
//! last look is passed over once); an operation in flight keeps its descriptor; a file that is about to lose its name
//! holds its descriptor from before that until it is dropped, since it could not be opened again; so does one that was
//! written, since the next descriptor would not tell of a failure before it.
//! Knows nothing of how files are opened: `ring_disk` does that.

use crate::disk_file::FileHandle;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
};

/// An open file's place, with a descriptor or without.
pub(crate) struct Seat {
    pub(crate) path: Rc<str>,
    handle: RefCell<Option<FileHandle>>,
    was_used: Cell<bool>,
    is_kept: Cell<bool>,
}

impl Seat {
    /// The descriptor, if it has one.
    pub(crate) fn handle(&self) -> Option<FileHandle> {
        self.was_used.set(true);
        self.handle.borrow().clone()
    }

    /// From now on it does not lose its descriptor.
    pub(crate) fn keep(&self) {
        self.is_kept.set(true);
    }

    /// The last owner takes the descriptor along.
    pub(crate) fn take(&self) -> Option<FileHandle> {
        self.handle.borrow_mut().take()
    }
}

/// The data files of a core.
pub(crate) struct OpenFiles {
    max: usize,
    /// Those that may lose their descriptor, in the order in which they are looked at; dropped ones among them.
    queue: RefCell<VecDeque<Weak<Seat>>>,
    /// By path: those that must not lose it when the name goes.
    named: RefCell<HashMap<Rc<str>, Vec<Weak<Seat>>>>,
}

impl OpenFiles {
    pub(crate) fn new(max: usize) -> OpenFiles {
        OpenFiles { max: max.max(1), queue: RefCell::default(), named: RefCell::default() }
    }

    /// A place for a file that keeps its descriptor.
    pub(crate) fn kept(path: &str, handle: FileHandle) -> Rc<Seat> {
        let handle = RefCell::new(Some(handle));
        Rc::new(Seat { path: path.into(), handle, was_used: Cell::new(true), is_kept: Cell::new(true) })
    }

    /// A place for a file that can be opened again by its name.
    pub(crate) fn add(&self, path: &str, handle: FileHandle) -> Rc<Seat> {
        let path: Rc<str> = path.into();
        let seat = Rc::new(Seat {
            path: path.clone(),
            handle: RefCell::default(),
            was_used: Cell::new(true),
            is_kept: Cell::new(false),
        });
        self.named.borrow_mut().entry(path).or_default().push(Rc::downgrade(&seat));
        self.give(&seat, handle);
        seat
    }

    /// Gives a place a descriptor, and takes it from another one if there are too many. The one that it has by then stays.
    pub(crate) fn give(&self, seat: &Rc<Seat>, handle: FileHandle) -> FileHandle {
        if let Some(earlier) = seat.handle() {
            return earlier;
        }
        *seat.handle.borrow_mut() = Some(handle.clone());
        seat.was_used.set(true);
        let mut queue = self.queue.borrow_mut();
        // Twice around: each is passed over once at the most.
        let mut looks = 2 * queue.len();
        while queue.len() >= self.max && looks > 0 {
            looks -= 1;
            let Some(oldest) = queue.pop_front() else { break };
            let Some(other) = oldest.upgrade() else { continue };
            if other.is_kept.get() {
                continue;
            }
            if other.was_used.replace(false) {
                queue.push_back(oldest);
            } else {
                other.take();
            }
        }
        if !seat.is_kept.get() {
            queue.push_back(Rc::downgrade(seat));
        }
        handle
    }

    /// Those with this name; from now on they keep their descriptors. The caller gives one to those that have none, before
    /// the name goes.
    pub(crate) fn keep(&self, path: &str) -> Vec<Rc<Seat>> {
        let named = self.named.borrow();
        let seats: Vec<Rc<Seat>> = named.get(path).into_iter().flatten().filter_map(Weak::upgrade).collect();
        seats.iter().for_each(|seat| seat.keep());
        seats
    }

    /// A place is given up.
    pub(crate) fn forget(&self, seat: &Rc<Seat>) {
        let mut named = self.named.borrow_mut();
        if let Some(seats) = named.get_mut(&seat.path) {
            seats.retain(|other| !std::ptr::eq(other.as_ptr(), Rc::as_ptr(seat)));
            if seats.is_empty() {
                named.remove(&seat.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn handle() -> FileHandle {
        FileHandle::Side(Rc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap())))
    }

    fn with_descriptors(seats: &[Rc<Seat>]) -> usize {
        seats.iter().filter(|seat| seat.handle.borrow().is_some()).count()
    }

    #[test]
    fn the_least_used_lose_their_descriptor() {
        let files = OpenFiles::new(3);
        let mut seats: Vec<Rc<Seat>> = (0..10).map(|number| files.add(&number.to_string(), handle())).collect();
        assert_eq!(with_descriptors(&seats), 3);
        // The one that is read all the time is passed over.
        let loved = files.give(&seats[0], handle());
        drop(loved);
        for number in 10..40 {
            assert!(seats[0].handle().is_some(), "before {number}");
            seats.push(files.add(&number.to_string(), handle()));
        }
        assert_eq!(with_descriptors(&seats), 3);
        assert!(seats[0].handle().is_some());
    }

    #[test]
    fn one_whose_name_goes_keeps_it_and_dropped_ones_leave_nothing_behind() {
        let files = OpenFiles::new(2);
        let seat = files.add("a", handle());
        let other = files.add("a", handle());
        files.add("b", handle());
        files.add("c", handle());
        assert_eq!(with_descriptors(&[seat.clone(), other.clone()]), 0);
        for kept in files.keep("a") {
            files.give(&kept, handle());
        }
        let crowd: Vec<Rc<Seat>> = (0..9).map(|number| files.add(&number.to_string(), handle())).collect();
        assert_eq!(with_descriptors(&[seat.clone(), other.clone()]), 2);
        assert_eq!(with_descriptors(&crowd), 2);
        for seat in crowd.iter().chain([&seat, &other]) {
            files.forget(seat);
        }
        assert!(!files.named.borrow().contains_key("a"));
        assert!(!files.named.borrow().contains_key("3"));
    }

    #[test]
    fn two_that_open_it_at_a_time_share_one() {
        let files = OpenFiles::new(1);
        let seat = files.add("a", handle());
        files.add("b", handle());
        assert!(seat.handle().is_none());
        let (FileHandle::Side(first), FileHandle::Side(second)) =
            (files.give(&seat, handle()), files.give(&seat, handle()))
        else {
            unreachable!()
        };
        assert!(Rc::ptr_eq(&first, &second));
    }
}
