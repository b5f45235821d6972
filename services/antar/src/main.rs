//! The one binary of Antar.
//!
//! Owns: subcommands, configuration, wiring, exit codes. What chat is lies in `antar_realm`, what a connection is in
//! `antar_edge`.

mod admin;
mod bench;
mod chat;
mod cli;
mod config;
mod demo;
mod doctor;
mod exit;
mod healthcheck;
mod log;
mod replay;
mod say;
mod serve;
mod server;
mod status;
mod trace;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, ConfigCommand};
use config::Environment;
use exit::Outcome;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|failure| failure.report())
}

fn run(command: Command) -> Outcome<ExitCode> {
    let environment = Environment::of_process();
    // Thousands of connections need as many files; that the limit cannot be raised shows when it is reached.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match command {
        Command::Demo(args) => server_runtime()?.block_on(demo::run(args, &environment))?,
        Command::Serve(args) => server_runtime()?.block_on(serve::run(args, &environment))?,
        Command::User(args) => server_runtime()?.block_on(admin::run_user(args, &environment))?,
        Command::Realm(args) => server_runtime()?.block_on(admin::run_realm(args, &environment))?,
        Command::Bot(args) => server_runtime()?.block_on(admin::run_bot(args, &environment))?,
        Command::Dead(args) => server_runtime()?.block_on(admin::run_dead(args, &environment))?,
        Command::Status(args) => client_runtime()?.block_on(status::run(args, &environment))?,
        Command::Doctor(args) => return server_runtime()?.block_on(doctor::run(args, &environment)),
        Command::Trace(args) => client_runtime()?.block_on(trace::run(args, &environment))?,
        Command::Replay(args) => server_runtime()?.block_on(replay::run(*args, &environment))?,
        Command::Chat(args) => {
            let outcome = client_runtime()?.block_on(chat::run(args, &environment))?;
            return Ok(ExitCode::from(outcome.exit_code()));
        }
        Command::Config(args) => match args.command {
            ConfigCommand::Check(args) => serve::check(&args, &environment)?,
            ConfigCommand::Print(args) => serve::print_config(&args, &environment)?,
            ConfigCommand::Keys => serve::print_keys()?,
        },
        Command::Healthcheck(args) => healthcheck::run(&args, &environment)?,
        Command::Bench(args) => bench::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn server_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
