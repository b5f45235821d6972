//! The whole program, tested from outside: every test starts the real binary on free ports and in a directory of its
//! own, and speaks to it as a client, an operator or a power cut would.

#![expect(clippy::print_stderr, reason = "a failing test shows the server's log, a skipped one its reason")]

#[cfg(test)]
#[path = "../harness/mod.rs"]
mod harness;

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod database;
#[cfg(test)]
mod disk_full;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod federation;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod health;
#[cfg(test)]
mod history;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod people;
#[cfg(test)]
mod power;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod status;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod user_command;
#[cfg(test)]
mod walks;
#[cfg(test)]
mod watch;
