//! How the full screen looks: from the state to cells, at any size.
//!
//! Owns: layout, colours, wrapping. Must not know the terminal: it draws on whatever frame it is given. All that it draws was
//! made harmless when it came in.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::chat::tui::state::{Pane, State};
use crate::chat::tui::talk::{Conversation, Entry, Mark};

/// Columns of the list of conversations.
const LIST_COLUMNS: u16 = 24;
/// On a narrower screen there is no list.
const LIST_FROM_COLUMNS: u16 = 60;
/// Colours of names: readable on dark and on light.
const NAME_COLOURS: [Color; 8] = [
    Color::Green,
    Color::Blue,
    Color::Magenta,
    Color::Cyan,
    Color::LightRed,
    Color::LightBlue,
    Color::LightMagenta,
    Color::Yellow,
];

/// How to show things.
#[derive(Debug)]
pub(crate) struct Look {
    colour: bool,
    zone: TimeZone,
    server: String,
}

impl Look {
    pub(crate) fn new(colour: bool, server: String) -> Self {
        let server = antar_proto::escape::escape(&server).into_owned();
        Self { colour, zone: TimeZone::system(), server }
    }

    fn coloured(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// The same name has the same colour everywhere and at all times.
    fn name(&self, name: &str) -> Style {
        // FNV-1a: any hash will do that is the same in every version.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let at = usize::try_from(hash % NAME_COLOURS.len() as u64).unwrap_or(0);
        self.coloured(NAME_COLOURS[at]).add_modifier(Modifier::BOLD)
    }

    fn day(&self, ts: Timestamp) -> Date {
        ts.to_zoned(self.zone.clone()).date()
    }
}

const DIM: Style = Style::new().add_modifier(Modifier::DIM);

/// Draws everything.
pub(crate) fn draw(state: &State, frame: &mut Frame<'_>, look: &Look) {
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [title, middle, status, input] = rows.areas(frame.area());
    frame.render_widget(Paragraph::new(title_line(state, look)), title);
    let list_columns = if middle.width >= LIST_FROM_COLUMNS { LIST_COLUMNS } else { 0 };
    let [list, pane] =
        Layout::horizontal([Constraint::Length(list_columns), Constraint::Min(0)]).areas(middle);
    frame.render_widget(Paragraph::new(list_lines(state, look, list)), list);
    frame.render_widget(Paragraph::new(pane_lines(state, look, pane)), pane);
    frame.render_widget(Paragraph::new(status_line(state, look)), status);
    draw_input(state, frame, input);
}

fn title_line(state: &State, look: &Look) -> Line<'static> {
    let talks = &state.talks;
    let elsewhere: usize = talks
        .all
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != talks.current)
        .map(|(_, talk)| talk.unread)
        .sum();
    let name = match &state.pane {
        Pane::Talk => talks.current().name.clone(),
        Pane::Text { title, .. } => title.clone(),
        Pane::Found { words, entries } => {
            format!("{} found of {}; Esc", entries.len(), antar_proto::escape::escape(words))
        }
    };
    let unread = if elsewhere > 0 { format!(" ({elsewhere} unread elsewhere)") } else { String::new() };
    let text = format!(" {name}{unread}  {} at {}", talks.me, look.server);
    Line::styled(text, Style::new().add_modifier(Modifier::REVERSED))
}

fn list_lines(state: &State, look: &Look, area: Rect) -> Vec<Line<'static>> {
    let talks = &state.talks;
    let height = usize::from(area.height);
    // The current one is always among those that are shown.
    let first = (talks.current + 1).saturating_sub(height);
    let columns = usize::from(area.width).saturating_sub(1);
    let line = |(at, talk): (usize, &Conversation)| {
        let number = if at < 9 { (at + 1).to_string() } else { " ".into() };
        let count = if talk.unread > 0 { format!(" {}", talk.unread) } else { String::new() };
        let name = clipped(&talk.name, columns.saturating_sub(2 + count.width()));
        let style = match (at == talks.current, talk.unread > 0) {
            (true, _) => Style::new().add_modifier(Modifier::REVERSED),
            (false, true) => look.name(&talk.name),
            (false, false) => Style::new(),
        };
        let counted = look.coloured(Color::Red).add_modifier(Modifier::BOLD);
        Line::from(vec![
            Span::styled(format!("{number} "), DIM),
            Span::styled(name, style),
            Span::styled(count, counted),
        ])
    };
    talks.all.iter().enumerate().skip(first).take(height).map(line).collect()
}

/// As much of a name as fits.
fn clipped(name: &str, columns: usize) -> String {
    if name.width() <= columns {
        return name.to_owned();
    }
    let mut shown = String::new();
    for c in name.chars() {
        if shown.width() + c.width().unwrap_or(0) + 1 > columns {
            break;
        }
        shown.push(c);
    }
    shown + "…"
}

fn pane_lines(state: &State, look: &Look, area: Rect) -> Vec<Line<'static>> {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    if width == 0 || height == 0 {
        return Vec::new();
    }
    match &state.pane {
        Pane::Talk => talk_lines(state.talks.current(), look, width, height),
        Pane::Text { lines, scroll, .. } => {
            let wrapped = lines.iter().skip(*scroll).flat_map(|line| wrap(line, width));
            wrapped.take(height).map(Line::from).collect()
        }
        Pane::Found { entries, .. } => {
            let mut lines = Vec::new();
            for (name, entry) in entries.iter().rev() {
                let mut shown = vec![Line::styled(format!("{name}, {}", look.day(entry.ts)), DIM)];
                shown.extend(entry_lines(entry, look, width));
                lines.splice(0..0, shown);
                if lines.len() >= height {
                    break;
                }
            }
            last(lines, height)
        }
    }
}

/// The end of a conversation, or what is scrolled to: day lines, the marker of what was unread, entries.
fn talk_lines(talk: &Conversation, look: &Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let end = talk.entries.len().saturating_sub(talk.scroll);
    let mut blocks: Vec<Vec<Line<'static>>> = Vec::new();
    let mut rows = 0;
    for at in (0..end).rev() {
        let entry = &talk.entries[at];
        let mut block = Vec::new();
        let day = look.day(entry.ts);
        let before = at.checked_sub(1).map(|before| look.day(talk.entries[before].ts));
        if before != Some(day) {
            block.push(ruled(&day.to_string(), width, DIM));
        }
        if talk.marker == Some(at) {
            block.push(ruled("unread", width, look.coloured(Color::Red)));
        }
        block.extend(entry_lines(entry, look, width));
        rows += block.len();
        blocks.push(block);
        if rows >= height {
            break;
        }
    }
    let mut lines = last(blocks.into_iter().rev().flatten().collect(), height);
    if talk.scroll > 0
        && let Some(line) = lines.last_mut()
    {
        *line = ruled(&format!("{} more below", talk.scroll), width, DIM);
    }
    lines
}

fn last(mut lines: Vec<Line<'static>>, height: usize) -> Vec<Line<'static>> {
    lines.drain(..lines.len().saturating_sub(height));
    lines
}

/// `── text ───────`
fn ruled(text: &str, width: usize, style: Style) -> Line<'static> {
    let head = format!("── {text} ");
    let rest = width.saturating_sub(head.width());
    Line::styled(head + &"─".repeat(rest), style)
}

/// `14:03 henderson: halo ✓`, wrapped beside the name.
fn entry_lines(entry: &Entry, look: &Look, width: usize) -> Vec<Line<'static>> {
    let clock = entry.ts.to_zoned(look.zone.clone()).strftime("%H:%M ").to_string();
    if entry.from.is_empty() {
        let lines = wrap(&entry.text, width.saturating_sub(clock.width()).max(1));
        return lines.into_iter().map(|line| Line::styled(format!("{:6}{line}", ""), DIM)).collect();
    }
    let (tick, style) = match &entry.mark {
        None => (String::new(), DIM),
        Some(Mark::Waiting) => (" …".into(), DIM),
        Some(Mark::Stored) => (" ✓".into(), DIM),
        Some(Mark::Delivered) => (" ✓✓".into(), DIM),
        Some(Mark::Read) => (" ✓✓".into(), look.coloured(Color::Blue)),
        Some(Mark::Failed(why)) => (format!(" ✗ {why}"), look.coloured(Color::Red)),
    };
    let head = clock.width() + entry.from.width() + 2;
    // On a very narrow screen the text begins below the name.
    let indent = if head * 2 <= width { head } else { 0 };
    let text = format!("{}{}{tick}", " ".repeat(head - indent), entry.text);
    let mut lines = Vec::new();
    let wrapped = wrap(&text, width.saturating_sub(indent).max(1));
    let tick_at = wrapped.len().saturating_sub(1);
    for (at, line) in wrapped.into_iter().enumerate() {
        let mut spans = Vec::new();
        let mut line = line;
        if at == 0 {
            spans.push(Span::styled(clock.clone(), DIM));
            spans.push(Span::styled(format!("{}: ", entry.from), look.name(&entry.from)));
            if indent == 0 {
                // The name stands where the spaces in front of the text were.
                line = line.strip_prefix(&" ".repeat(head)).map_or(String::new(), str::to_owned);
            }
        } else {
            spans.push(Span::raw(" ".repeat(indent)));
        }
        match line.strip_suffix(&tick).filter(|_| at == tick_at && !tick.is_empty()) {
            Some(said) => {
                spans.push(Span::raw(said.to_owned()));
                spans.push(Span::styled(tick.clone(), style));
            }
            None => spans.push(Span::raw(line)),
        }
        lines.push(Line::from(spans));
    }
    lines
}

/// Lines of at most `width` columns, broken at spaces where there are some, and never within what is seen as one character.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut columns) = (Vec::new(), String::new(), 0);
    // Where the last space ends, behind which the line may be broken.
    let mut space: Option<usize> = None;
    for seen in text.graphemes(true) {
        let wide = seen.width();
        if columns + wide > width && !line.is_empty() {
            if seen == " " {
                lines.push(std::mem::take(&mut line));
                (columns, space) = (0, None);
                continue;
            }
            let rest = match space {
                Some(at) => line.split_off(at),
                None => String::new(),
            };
            lines.push(line.trim_end_matches(' ').to_owned());
            columns = rest.width();
            (line, space) = (rest, None);
        }
        line.push_str(seen);
        columns += wide;
        if seen == " " && !line.trim_start_matches(' ').is_empty() {
            space = Some(line.len());
        }
    }
    lines.push(line);
    lines
}

fn status_line(state: &State, look: &Look) -> Line<'static> {
    let waiting = match state.unsent() {
        0 => String::new(),
        count => format!(", {count} waiting to be sent"),
    };
    match &state.lost {
        Some(why) => {
            let why = antar_proto::escape::escape(why);
            let text = format!("not connected: {why}; connecting again{waiting}");
            Line::styled(text, look.coloured(Color::Red).add_modifier(Modifier::BOLD))
        }
        None => Line::styled(format!("connected{waiting}  /help"), DIM),
    }
}

fn draw_input(state: &State, frame: &mut Frame<'_>, area: Rect) {
    const PROMPT: &str = "> ";
    let columns = usize::from(area.width).saturating_sub(PROMPT.width());
    let (text, cursor) = state.editor.window(columns);
    frame.render_widget(Paragraph::new(format!("{PROMPT}{text}")), area);
    if area.width > 0 && area.height > 0 {
        let at = u16::try_from(PROMPT.width() + cursor).unwrap_or(u16::MAX).min(area.width - 1);
        frame.set_cursor_position(Position::new(area.x + at, area.y));
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
