//! The terminal itself: the alternate screen, raw keys, and giving both back, whatever happens.
//!
//! Owns: the terminal's modes. Must not know what is drawn.

use std::io::{self, Stdout, Write};
use std::sync::Once;

use crossterm::cursor::Show;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

/// The whole screen; given back when this is dropped, and before a panic is told.
pub(super) struct Screen(pub(super) Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes the terminal over.
    pub(super) fn open() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                told(panic);
            }));
        });
        enable_raw_mode()?;
        let mut out = io::stdout();
        let opened = enter(&mut out).and_then(|()| Terminal::new(CrosstermBackend::new(out)));
        opened.map(Self).inspect_err(|_| give_back())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // Errors are not reported: there is nowhere to.
    let _ = leave(&mut io::stdout());
    let _ = disable_raw_mode();
}

fn enter(out: &mut impl Write) -> io::Result<()> {
    execute!(out, EnterAlternateScreen, EnableBracketedPaste)
}

fn leave(out: &mut impl Write) -> io::Result<()> {
    execute!(out, DisableBracketedPaste, LeaveAlternateScreen, Show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_switched_on_is_switched_off() {
        let (mut entered, mut left) = (Vec::new(), Vec::new());
        enter(&mut entered).unwrap();
        leave(&mut left).unwrap();
        let (entered, left) = (String::from_utf8(entered).unwrap(), String::from_utf8(left).unwrap());
        for mode in entered.split('\u{1b}').filter_map(|part| part.strip_suffix('h')) {
            assert!(left.contains(&format!("\u{1b}{mode}l")), "{mode} stays on: {left:?}");
        }
        assert!(left.contains("\u{1b}[?25h"), "the cursor is shown");
    }
}
