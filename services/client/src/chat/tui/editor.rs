//! The line being typed: its text, the cursor, what was typed before, and completion.
//!
//! Owns: editing. Must not know what the line means, or how it is drawn.

use std::collections::VecDeque;

use antar_proto::escape::is_unsafe;
use unicode_width::UnicodeWidthChar;

/// Longest line; what is typed or pasted beyond it is left out.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Lines that can be called back.
const HISTORY_MAX: usize = 200;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Editor {
    text: String,
    /// In bytes, at a character.
    cursor: usize,
    history: VecDeque<String>,
    /// Which line of the history is shown, from the newest, and what was typed before.
    recalled: Option<(usize, String)>,
    cycle: Option<Cycle>,
}

/// What the Tab key goes round.
#[derive(Debug)]
struct Cycle {
    start: usize,
    candidates: Vec<String>,
    at: usize,
}

impl Editor {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Puts another text in its place and returns the one that was there: a draft.
    pub(crate) fn swap(&mut self, text: String) -> String {
        self.forget();
        self.cursor = text.len();
        std::mem::replace(&mut self.text, text)
    }

    /// Takes the line, and keeps it to be called back.
    pub(crate) fn take(&mut self) -> String {
        let line = self.swap(String::new());
        if !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.push_front(line.clone());
            self.history.truncate(HISTORY_MAX);
        }
        line
    }

    fn forget(&mut self) {
        self.recalled = None;
        self.cycle = None;
    }

    /// Types text at the cursor. Line ends become spaces, and what a terminal would obey is left out.
    pub(crate) fn insert(&mut self, text: &str) {
        self.forget();
        for c in text.chars() {
            let c = if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c };
            if !is_unsafe(c) && self.text.len() + c.len_utf8() <= LINE_BYTES_MAX {
                self.text.insert(self.cursor, c);
                self.cursor += c.len_utf8();
            }
        }
    }

    fn before(&self) -> usize {
        self.text[..self.cursor].char_indices().next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        self.text[self.cursor..].chars().next().map_or(self.cursor, |c| self.cursor + c.len_utf8())
    }

    fn remove(&mut self, from: usize, to: usize) {
        self.forget();
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }

    pub(crate) fn backspace(&mut self) {
        self.remove(self.before(), self.cursor);
    }

    pub(crate) fn delete(&mut self) {
        self.remove(self.cursor, self.after());
    }

    /// Up to the start of the line.
    pub(crate) fn cut_start(&mut self) {
        self.remove(0, self.cursor);
    }

    /// Up to its end.
    pub(crate) fn cut_end(&mut self) {
        self.remove(self.cursor, self.text.len());
    }

    /// The word before the cursor.
    pub(crate) fn cut_word(&mut self) {
        let head = self.text[..self.cursor].trim_end();
        let from = head.rfind(' ').map_or(0, |at| at + 1);
        self.remove(from, self.cursor);
    }

    pub(crate) fn left(&mut self) {
        self.forget();
        self.cursor = self.before();
    }

    pub(crate) fn right(&mut self) {
        self.forget();
        self.cursor = self.after();
    }

    pub(crate) fn home(&mut self) {
        self.forget();
        self.cursor = 0;
    }

    pub(crate) fn end(&mut self) {
        self.forget();
        self.cursor = self.text.len();
    }

    /// Calls back the line before the one that is shown.
    pub(crate) fn older(&mut self) {
        let at = self.recalled.as_ref().map_or(0, |(at, _)| at + 1);
        let Some(line) = self.history.get(at).cloned() else { return };
        let draft = match self.recalled.take() {
            Some((_, draft)) => draft,
            None => self.text.clone(),
        };
        self.swap(line);
        self.recalled = Some((at, draft));
    }

    /// The one after it, at last what was being typed.
    pub(crate) fn newer(&mut self) {
        let Some((at, draft)) = self.recalled.take() else { return };
        match at.checked_sub(1) {
            Some(newer) => {
                let line = self.history.get(newer).cloned().unwrap_or_default();
                self.swap(line);
                self.recalled = Some((newer, draft));
            }
            None => drop(self.swap(draft)),
        }
    }

    /// Completes the word before the cursor with the first of what `candidates` offers for it, and with the next one each
    /// time it is pressed again. `candidates` gets the whole line up to the cursor, and where the word begins.
    pub(crate) fn complete(&mut self, candidates: impl FnOnce(&str, usize) -> Vec<String>) {
        let mut cycle = match self.cycle.take() {
            Some(cycle) => Cycle { at: (cycle.at + 1) % cycle.candidates.len(), ..cycle },
            None => {
                let head = &self.text[..self.cursor];
                let start = head.rfind([' ', ',']).map_or(0, |at| at + 1);
                Cycle { start, candidates: candidates(head, start), at: 0 }
            }
        };
        let Some(word) = cycle.candidates.get(cycle.at).cloned() else { return };
        self.text.replace_range(cycle.start..self.cursor, &word);
        self.cursor = cycle.start + word.len();
        if cycle.candidates.len() == 1 && self.cursor == self.text.len() {
            // The only one is whole.
            self.text.push(' ');
            self.cursor += 1;
            cycle.candidates.clear();
        }
        self.cycle = (cycle.candidates.len() > 1).then_some(cycle);
    }

    /// The part of the line that fits into `width` columns and has the cursor in it, and the cursor's column.
    pub(crate) fn window(&self, width: usize) -> (&str, usize) {
        // One column is for the cursor behind the last character.
        let room = width.saturating_sub(1);
        let (mut from, mut columns) = (self.cursor, 0);
        for (at, c) in self.text[..self.cursor].char_indices().rev() {
            let wide = c.width().unwrap_or(0);
            if columns + wide > room {
                break;
            }
            columns += wide;
            from = at;
        }
        let (mut to, mut filled) = (self.cursor, columns);
        for c in self.text[self.cursor..].chars() {
            filled += c.width().unwrap_or(0);
            if filled > width {
                break;
            }
            to += c.len_utf8();
        }
        (&self.text[from..to], columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Editor {
        let mut editor = Editor::default();
        editor.insert(text);
        editor
    }

    #[test]
    fn characters_and_not_bytes_are_edited() {
        let mut editor = typed("halo 👋é");
        editor.backspace();
        editor.left();
        editor.delete();
        assert_eq!(editor.text(), "halo ");
        editor.home();
        editor.delete();
        editor.right();
        editor.insert("u");
        assert_eq!(editor.text(), "aulo ");
        editor.end();
        editor.cut_word();
        assert_eq!(editor.text(), "");
        editor.backspace();
        editor.delete();
        editor.left();
        editor.right();
        let mut editor = typed("satu dua tiga");
        editor.cut_word();
        assert_eq!(editor.text(), "satu dua ");
        editor.left();
        editor.cut_end();
        editor.home();
        editor.right();
        editor.cut_start();
        assert_eq!(editor.text(), "atu dua");
    }

    #[test]
    fn what_is_pasted_is_one_line_and_harmless_and_bounded() {
        assert_eq!(typed("a\r\nb\u{1b}[2J\u{202e}c\t").text(), "a  b[2Jc ");
        assert_eq!(typed(&"x".repeat(100_000)).text().len(), LINE_BYTES_MAX);
    }

    #[test]
    fn lines_are_called_back_and_the_draft_is_not_lost() {
        let mut editor = Editor::default();
        for line in ["satu", "dua", "dua", "  "] {
            editor.insert(line);
            editor.take();
        }
        editor.insert("dra");
        editor.older();
        editor.older();
        editor.older();
        assert_eq!(editor.text(), "satu");
        editor.newer();
        assert_eq!(editor.text(), "dua");
        editor.newer();
        editor.newer();
        assert_eq!(editor.text(), "dra");
    }

    #[test]
    fn tab_goes_round_and_another_key_ends_it() {
        let offer = |_: &str, _: usize| vec!["henderson".to_owned(), "henry".to_owned()];
        let mut editor = typed("/to he");
        editor.complete(offer);
        assert_eq!(editor.text(), "/to henderson");
        editor.complete(offer);
        editor.complete(offer);
        editor.complete(offer);
        assert_eq!(editor.text(), "/to henry");
        editor.insert(",l");
        editor.complete(|_, _| vec!["lineker".to_owned()]);
        assert_eq!(editor.text(), "/to henry,lineker ");
        editor.complete(|_, _| Vec::new());
        assert_eq!(editor.text(), "/to henry,lineker ");
    }

    #[test]
    fn the_window_holds_the_cursor_whatever_is_wide() {
        let mut editor = typed("漢字漢字abc");
        assert_eq!(editor.window(6), ("字abc", 5));
        editor.home();
        assert_eq!(editor.window(5), ("漢字", 0));
        for width in 0..20 {
            for _ in 0..8 {
                assert!(editor.window(width).1 <= width);
                editor.right();
            }
            editor.home();
        }
    }
}
