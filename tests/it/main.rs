//! The whole program, tested from outside: every test starts the real binary on free ports and in a directory of its
//! own, and speaks to it as a client, an operator or a power cut would.

#![cfg_attr(
    test,
    expect(clippy::duplicate_mod, reason = "the tests of the protocol are there once for each broker")
)]
#![expect(clippy::print_stderr, reason = "a failing test shows the server's log, a skipped one its reason")]

#[cfg(test)]
#[path = "../harness/mod.rs"]
mod harness;

#[cfg(test)]
#[path = "protocol.rs"]
mod nats;
#[cfg(test)]
#[path = "protocol.rs"]
mod sqlite;

#[cfg(test)]
mod backup;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod broker_lost;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod compose;
#[cfg(test)]
mod database;
#[cfg(test)]
mod disk_full;
#[cfg(test)]
mod doctor_file;
#[cfg(test)]
mod doctor_nats;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod early_letters;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod files_edges;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod full_screen;
#[cfg(test)]
mod group_ledger;
#[cfg(test)]
mod health;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod logins;
#[cfg(test)]
mod malicious;
#[cfg(test)]
mod malicious_files;
#[cfg(test)]
mod nats_accounts;
#[cfg(test)]
mod nats_config;
#[cfg(test)]
mod nats_harness;
#[cfg(all(test, feature = "otel"))]
mod otel;
#[cfg(test)]
mod power;
#[cfg(test)]
mod ready;
#[cfg(test)]
mod realm_command;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod user_command;
#[cfg(test)]
mod ws;
