//! The program's other subcommands, run to their end.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use super::eventually;

/// What a run left.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// Says how it ended.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The lines of standard output as JSON.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {self:#?}"));
        self.stdout.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
    }
}

/// Runs `antar` with these arguments and nothing on its input.
#[track_caller]
pub(crate) fn antar<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    antar_with_input(args, &[], "")
}

/// Runs `antar` with these arguments, environment and input.
#[track_caller]
pub(crate) fn antar_with_input<A: AsRef<OsStr>>(
    args: impl IntoIterator<Item = A>,
    env: &[(&str, &str)],
    input: &str,
) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_antar"))
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    // A program that does not read its input closes the pipe, which is no mistake of its.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let reader = std::thread::spawn(move || child.wait_with_output());
    eventually("the program ends", || reader.is_finished().then_some(()));
    let output = reader.join().expect("the reader does not panic").expect("the output can be read");
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
