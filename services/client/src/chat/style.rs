//! How text looks: colours, local time, tables.
//!
//! Owns: the escape sequences that `chat` itself writes. Must not know replies or commands.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use antar_proto::escape::escape;

/// How to show things on this output.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    colour: bool,
    zone: TimeZone,
}

impl Style {
    /// In the system's time zone.
    pub(crate) fn new(colour: bool) -> Self {
        Self { colour, zone: TimeZone::system() }
    }

    /// Without colours and in UTC.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colour: false, zone: TimeZone::UTC }
    }

    /// For what can be overlooked.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// For who said something.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// For what went wrong.
    pub(crate) fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    /// For the prompt.
    pub(crate) fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `[14:03]` today, `[2026-01-31 14:03]` on another day, in local time. A time that is none is shown as it came.
    pub(crate) fn clock(&self, rfc3339: &str, now: Timestamp) -> String {
        let Ok(timestamp) = rfc3339.parse::<Timestamp>() else {
            return format!("[{}]", escape(rfc3339));
        };
        let (then, now) = (timestamp.to_zoned(self.zone.clone()), now.to_zoned(self.zone.clone()));
        let pattern = if then.date() == now.date() { "[%H:%M]" } else { "[%Y-%m-%d %H:%M]" };
        self.dim(&then.strftime(pattern).to_string())
    }

    /// Columns as wide as their widest cell. Cells are escaped.
    pub(crate) fn table(&self, header: &[String], rows: &[Vec<String>]) -> String {
        let escaped = |row: &[String]| row.iter().map(|cell| escape(cell).into_owned()).collect::<Vec<_>>();
        let header = escaped(header);
        let rows: Vec<_> = rows.iter().map(|row| escaped(row)).collect();
        let width = |at: usize| {
            let cells = rows.iter().chain([&header]).filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let line = |row: &[String]| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a String cannot fail.
                let _ = write!(line, "{cell:width$}  ");
            }
            line.trim_end().to_owned()
        };
        let mut lines = vec![self.dim(&line(&header))];
        lines.extend(rows.iter().map(|row| line(row)));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_today_is_short_and_another_has_its_day() {
        let style = Style::plain();
        let now: Timestamp = "2026-01-31T20:00:00Z".parse().unwrap();
        assert_eq!(style.clock("2026-01-31T14:03:59.123Z", now), "[14:03]");
        assert_eq!(style.clock("2026-01-30T14:03:59Z", now), "[2026-01-30 14:03]");
        assert_eq!(style.clock("yesterday\u{1b}", now), "[yesterday\\u{1b}]");
    }

    #[test]
    fn without_colours_there_is_no_escape_sequence() {
        let style = Style::plain();
        let shown = [style.dim("a"), style.bold("a"), style.red("a"), style.green("a")].concat();
        assert_eq!(shown, "aaaa");
        assert_eq!(Style::new(true).red("a"), "\u{1b}[31ma\u{1b}[0m");
    }

    #[test]
    fn a_table_lines_up_and_escapes_its_cells() {
        let text = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        let rows = [text(&["realm2", "up"]), text(&["r\u{1b}", ""])];
        assert_eq!(
            Style::plain().table(&text(&["realm", "state"]), &rows),
            "realm    state\nrealm2   up\nr\\u{1b}"
        );
    }
}
