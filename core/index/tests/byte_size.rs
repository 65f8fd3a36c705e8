//! What the index says that it takes is what it takes.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use tidemill_index::SeriesIndex;

struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes a series, by the index's word, after comparing it with what was allocated.
fn bytes_per_series(name: &str, count: usize, key: impl Fn(usize) -> String) -> usize {
    let before = HELD.get();
    let mut index = SeriesIndex::default();
    for number in 0..count {
        index.insert_key(key(number).as_bytes());
        if number.is_power_of_two() && number >= 1 << 12 {
            compare(name, &index, before);
        }
    }
    compare(name, &index, before);
    for id in (0..count as u32).filter(|id| id % 3 != 0) {
        index.remove(tidemill_index::SeriesId(id));
    }
    compare(name, &index, before);
    for number in 0..count {
        index.insert_key(key(number).as_bytes());
    }
    compare(name, &index, before);
    index.byte_size() / count
}

fn compare(name: &str, index: &SeriesIndex, before: usize) {
    let (held, said) = (HELD.get().wrapping_sub(before), index.byte_size());
    let (least, most) = (said * 9 / 10, said * 11 / 10);
    assert!((least..=most).contains(&held), "{name}, {} series: {held} bytes, not {said}", index.series_count());
}

#[test]
fn the_figure_is_honest_for_keys_of_many_shapes() {
    let count = 60_000;
    let host = |number: usize| format!("m,dc=dc{},host=host_{number:07}", number % 10);
    let bytes = bytes_per_series("a host of its own", count, host);
    assert!(bytes < 100, "{bytes} bytes a series");
    bytes_per_series("groups of seven", count, |number| format!("m,host=h{},rack=r{}", number / 7, number % 7));
    bytes_per_series("interleaved groups", count, |number| format!("m,a=a{},b=b{}", number % 5_000, number / 5_000));
    bytes_per_series("no tags", 5_000, |number| format!("measurement_{number}"));
}
