//! The tests of the protocol: what a client sees, whatever broker is behind. This file is there once for each broker, as
//! a module of its name, and every test in it runs on that broker.

use crate::harness::Broker;

mod accounts;
mod blocks;
mod bots;
mod bundles;
mod dead;
mod doctor;
mod documents;
mod erase;
mod errors;
mod federation;
pub(crate) mod files;
mod files_http;
mod files_realms;
mod groups;
mod groups_abroad;
mod history;
mod messages;
mod metrics;
mod outage;
mod people;
mod quarantine;
mod rates;
mod realm_status;
mod replay;
mod replay_copies;
mod replay_killed;
mod search;
mod secrets;
mod shutdown;
mod status;
mod trace;
pub(crate) mod walks;
mod watch;

/// The broker of the tests below.
const BROKER: Broker = Broker::of(module_path!());
