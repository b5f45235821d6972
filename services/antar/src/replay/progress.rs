//! How far long work is, told on standard error if that is a terminal.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How many steps are counted before the line is drawn anew.
const EVERY: u64 = 1_024;

/// See the module.
pub(super) struct Progress {
    bar: ProgressBar,
    seen: u64,
}

impl Progress {
    /// Counts entries. `is_shown_elsewhere`: the same terminal shows them, which says enough.
    pub(super) fn of_entries(is_shown_elsewhere: bool) -> Self {
        let template = "{spinner} {human_pos} entries, {per_sec}, {elapsed}";
        Self::new(ProgressBar::no_length(), template, is_shown_elsewhere)
    }

    /// Counts the bytes of a file.
    pub(super) fn of_bytes(bytes: u64) -> Self {
        let template = "{spinner} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        Self::new(ProgressBar::new(bytes), template, false)
    }

    fn new(bar: ProgressBar, template: &str, is_hidden: bool) -> Self {
        if is_hidden || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, seen: 0 }
    }

    /// One more.
    pub(super) fn step(&mut self) {
        self.seen += 1;
        if self.seen.is_multiple_of(EVERY) {
            self.bar.set_position(self.seen);
        }
    }

    /// So far, of a file.
    pub(super) fn at(&mut self, bytes: u64) {
        self.seen += 1;
        if self.seen.is_multiple_of(EVERY) {
            self.bar.set_position(bytes);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
