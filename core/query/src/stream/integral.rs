//! integral(): the area under the line through the points.

use super::{Emitted, StreamState, float};
use crate::window::Windows;
use tidemill_column::Value;

/// The area of the present window. Where a window ends between two points, the line is cut there.
pub(super) struct Integral {
    unit_ns: i64,
    windows: Windows,
    descending: bool,
    last: Option<(i64, f64)>,
    /// The first and the last instant of the window, and its area so far.
    window: Option<(i64, i64)>,
    area: f64,
    /// Of integers, upstream goes on from the cut in another way than of floats.
    is_integral: bool,
}

impl Integral {
    pub(super) fn new(unit_ns: i64, windows: Windows, descending: bool) -> Integral {
        Integral { unit_ns, windows, descending, last: None, window: None, area: 0.0, is_integral: false }
    }

    /// The window of a point: start, and the border that a later point crosses.
    fn window_of(&self, time: i64) -> (i64, i64) {
        let (start, last) = self.windows.bounds(time);
        if !self.windows.is_cut() {
            return (start, if self.descending { i64::MIN } else { i64::MAX });
        }
        (start, if self.descending { start } else { last.saturating_add(1) })
    }

    fn has_left(&self, time: i64, border: i64) -> bool {
        if self.descending { time < border } else { time >= border }
    }

    fn area_between(&self, from: (i64, f64), to: (i64, f64)) -> f64 {
        let elapsed = to.0.wrapping_sub(from.0).unsigned_abs() as f64 / self.unit_ns as f64;
        0.5 * (to.1 + from.1) * elapsed
    }
}

impl StreamState for Integral {
    fn push(&mut self, time: i64, value: Value, out: &mut Emitted) {
        self.is_integral = matches!(value, Value::Integer(_) | Value::Unsigned(_));
        let mut value = float(&value);
        let Some(mut last) = self.last else {
            self.last = Some((time, value));
            self.window = Some(self.window_of(time));
            return;
        };
        if last.0 == time {
            // The later of equal times takes the place of the former.
            self.last = Some((time, value));
            return;
        }
        let whole = value;
        if let Some((start, border)) = self.window
            && self.has_left(time, border)
        {
            if last.0 != border {
                let slope = (value - last.1) / time.wrapping_sub(last.0) as f64;
                let cut = (border, slope * border.wrapping_sub(last.0) as f64 + last.1);
                self.area += self.area_between(last, cut);
                if self.is_integral {
                    // The new point is taken to stand at the height of the cut, and the old one is only moved.
                    value = cut.1;
                    last = (border, last.1);
                } else {
                    last = cut;
                }
            }
            out.push((start, Value::Float(self.area)));
            self.area = 0.0;
            self.window = Some(self.window_of(time));
        }
        self.area += self.area_between(last, (time, value));
        self.last = Some((time, whole));
    }

    fn end(&mut self, out: &mut Emitted) {
        let (Some((start, _)), Some((time, _))) = (self.window, self.last) else { return };
        // A last point at the start of its window gives none, even if windows that were skipped left an area.
        if time != start || !self.windows.is_cut() {
            out.push((start, Value::Float(self.area)));
        }
    }
}
