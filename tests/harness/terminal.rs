//! `antar chat` as a person has it: in a terminal. `script` (util-linux) makes one.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::{Server, eventually};

/// A terminal with the interactive client in it.
pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
    /// How much of the plain text has been looked for.
    seen: usize,
}

impl Terminal {
    /// Opens one with `antar chat` on a realm.
    #[track_caller]
    pub(crate) fn chat(server: &Server, realm: &str) -> Self {
        Self::open(&format!("'{}' chat --server {}", env!("CARGO_BIN_EXE_antar"), server.addr(realm)), &[])
    }

    /// Opens one of 80 columns and 24 rows with a client in it that has these arguments. Its process id and the name of the
    /// terminal stand in `pid` and `tty` in the server's directory; when it has ended, what the terminal's modes are is shown.
    #[track_caller]
    pub(crate) fn chat_with(server: &Server, realm: &str, args: &str, env: &[(&str, &str)]) -> Self {
        let (dir, program, addr) = (server.dir().display(), env!("CARGO_BIN_EXE_antar"), server.addr(realm));
        let chat = format!("echo \\$\\$ > {dir}/pid; exec '{program}' chat --server {addr} {args}");
        let command =
            format!("stty rows 24 cols 80; tty > {dir}/tty; sh -c \"{chat}\"; echo ended=$?; stty -a");
        Self::open(&command, env)
    }

    #[track_caller]
    fn open(command: &str, env: &[(&str, &str)]) -> Self {
        let mut child = Command::new("script")
            .args(["-q", "-e", "-f", "-c", command, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script (util-linux) is needed");
        let keys = child.stdin.take().expect("it was piped");
        let mut screen = child.stdout.take().expect("it was piped");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut piece) {
                collected.lock().expect("no holder panics").extend_from_slice(&piece[..n]);
            }
        });
        Self { child, keys, shown, seen: 0 }
    }

    /// Presses keys.
    #[track_caller]
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
        self.keys.flush().expect("the terminal takes keys");
    }

    /// Types a line and presses return.
    #[track_caller]
    pub(crate) fn type_line(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }

    /// Waits until this is shown, after what was waited for before. Colours, moves of the cursor and returns are left out:
    /// where they stand depends on how many keys were read at a time.
    #[track_caller]
    pub(crate) fn expect(&mut self, wanted: &str) {
        let from = self.seen;
        self.seen = eventually(&format!("the terminal shows {wanted:?}"), || {
            let plain = plain(&self.shown.lock().expect("no holder panics"));
            let text = plain.get(from..)?;
            let at = text.windows(wanted.len()).position(|window| window == wanted.as_bytes())?;
            Some(from + at + wanted.len())
        });
    }

    /// Waits until the screen, of this size, holds all of this at once.
    #[track_caller]
    pub(crate) fn expect_screen(&self, (rows, columns): (u16, u16), wanted: &[&str]) -> String {
        eventually(&format!("the screen shows {wanted:?}"), || {
            let screen = self.screen(rows, columns);
            wanted.iter().all(|wanted| screen.contains(wanted)).then_some(screen)
        })
    }

    /// What a terminal of this size shows after all that was written to it.
    pub(crate) fn screen(&self, rows: u16, columns: u16) -> String {
        let mut parser = vt100::Parser::new(rows, columns, 0);
        parser.process(&self.shown.lock().expect("no holder panics"));
        parser.screen().contents()
    }

    /// All text that was ever shown, without what only moves and colours it.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&plain(&self.shown.lock().expect("no holder panics"))).into_owned()
    }

    /// All that was ever shown, byte for byte.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no holder panics")).into_owned()
    }

    /// Waits until the client has ended by itself.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the client ends", || child.try_wait().expect("it is our child"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ending `script` hangs up the terminal, which ends the client.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the terminal:\n{:?}", self.shown());
        }
    }
}

/// What is left without control characters and without sequences that begin with ESC `[`.
fn plain(shown: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(shown.len());
    let mut bytes = shown.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == 0x1b && bytes.next_if_eq(&b'[').is_some() {
            // Parameters, then one byte that ends it.
            while bytes.next_if(|byte| !(0x40..=0x7e).contains(byte)).is_some() {}
            bytes.next();
        } else if byte >= b' ' {
            plain.push(byte);
        }
    }
    plain
}
