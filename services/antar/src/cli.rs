//! The command line: what can be typed, and what is told to whoever asks.
//!
//! Owns: names, flags and help. Must not know: how anything is done.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::admin::{
    BackupArgs, BotArgs, DeadArgs, NatsConfigArgs, QuarantineCommand, RemoveArgs, RestoreArgs,
};
use crate::bench::BenchArgs;
use crate::config::Flag;
use crate::demo::DEMO_DIRECTORY;
use crate::doctor::DoctorArgs;
use crate::healthcheck::HealthcheckArgs;
use crate::status::StatusArgs;
use crate::trace::TraceArgs;

/// Federated chat on a message broker.
#[derive(Debug, Parser)]
#[command(
    name = "antar",
    version,
    after_help = "\
Examples:
  antar demo                                       two realms to try it out, on ports 4001 and 4002
  antar chat                                       talk: auth messi surabaya, send henderson halo, inbox
  antar serve --realm kampus                       a realm of your own, on port 4001
  antar user add --realm kampus budi --name 'Budi Santoso'

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 unreachable (try again), 4 not authorised, 5 rejected."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Two federated realms in one process, with demo accounts.
    Demo(DemoArgs),
    /// One edge server of one realm.
    Serve(ServeArgs),
    /// Talk: the interactive client, and commands for scripts.
    Chat(ChatArgs),
    /// Accounts of a realm, also while it is being served.
    User(UserArgs),
    /// Users that are programs, and webhooks.
    Bot(BotArgs),
    /// The state of a realm, and its traffic with others.
    Realm(RealmArgs),
    /// What came from other realms and could not be delivered.
    Dead(DeadArgs),
    /// How realms are: edges, lanes to other realms, what waits, storage.
    Status(StatusArgs),
    /// Check an installation against what is promised: what is wrong, what it means, what to do.
    Doctor(DoctorArgs),
    /// Where a message is: its way through all realms.
    Trace(TraceArgs),
    /// What happened in a realm: show, follow, keep or copy it.
    Replay(Box<crate::replay::ReplayArgs>),
    /// Check, print or list the configuration.
    Config(ConfigArgs),
    /// Ask a server on this machine whether it is ready.
    Healthcheck(HealthcheckArgs),
    /// Measure a server. Puts real load on it.
    Bench(Box<BenchArgs>),
}

/// `antar demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes realm1 on PORT and realm2 on PORT+1, with the accounts messi, henderson and lineker, password surabaya, on both.
Anybody who reaches the ports may register. What is said is kept in DIR/antar-demo.db until you delete it.

Settings of `antar serve` apply by --config and the environment, for instance ANTAR__LOG__LEVEL=debug; those that make
the demo the demo (realm.id, listen.command, broker.url, realm.demo_accounts) do not. With listen.http, for instance
ANTAR__LISTEN__HTTP=127.0.0.1:8001, realm1 answers there and realm2 on the next port.

Examples:
  antar demo
  antar demo --port 0 --data /tmp/demo      free ports; the first lines on stdout name them")]
pub(crate) struct DemoArgs {
    /// Port of realm1; realm2 has the next one. 0 takes two free ones.
    #[arg(long, default_value_t = 4001, value_parser = clap::value_parser!(u16).range(..65535))]
    pub(crate) port: u16,
    /// Port of realm1's page; realm2's has the next one. 0 takes two free ones [default: 4000 more than --port, so 8001]
    #[arg(long, value_parser = clap::value_parser!(u16).range(..65535))]
    pub(crate) http_port: Option<u16>,
    /// Directory of the database, made if it is not there.
    #[arg(long, value_name = "DIR", default_value = DEMO_DIRECTORY, value_hint = ValueHint::DirPath)]
    pub(crate) data: PathBuf,
    /// Another broker than the file in DIR.
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub(crate) broker: Option<String>,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}

/// Settings that have flags; the environment and a file set the others.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file (TOML). `antar config print` shows one with all keys.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The realm's id (realm.id).
    #[arg(long, value_name = "ID")]
    pub(crate) realm: Option<String>,
    /// Where clients connect in plain text (listen.command), for instance 127.0.0.1:4001.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Where health is answered over HTTP (listen.http); off for none.
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<String>,
    /// What keeps the log (broker.url): sqlite:PATH or nats://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
}

impl ServeArgs {
    /// The keys that were set by flags.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let flags = [
            ("realm.id", "--realm", &self.realm),
            ("listen.command", "--listen", &self.listen),
            ("listen.http", "--http", &self.http),
            ("broker.url", "--broker", &self.broker),
        ];
        flags.into_iter().filter_map(|(key, flag, value)| Some(Flag(key, flag, value.clone()?))).collect()
    }
}

/// `antar chat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  antar chat                                                        then type /help
  antar chat --tui --user messi                                     the whole screen; /help there
  antar chat -c 'auth messi surabaya' -c 'send henderson halo'      for scripts; the token is filled in
  antar chat --user messi --password-file pw --json -c inbox        one JSON object a line
  antar chat --tls --server chat.example.org:4443                   over an encrypted connection")]
pub(crate) struct ChatArgs {
    /// The server.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4001")]
    pub(crate) server: String,
    /// Talk over TLS; the server's certificate has to be for the host of --server.
    #[arg(long)]
    pub(crate) tls: bool,
    /// Believe the certificates in this file (PEM), and not those that this system trusts. Means --tls.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca: Option<PathBuf>,
    /// Fill the screen: conversations, messages, input. Without it lines are written one below the other, which suits screen
    /// readers.
    #[arg(long, conflicts_with_all = ["commands", "json", "history_file"])]
    pub(crate) tui: bool,
    /// Carry out this command and, after the last one, end. May be repeated.
    #[arg(short = 'c', long = "command", value_name = "COMMAND")]
    pub(crate) commands: Vec<String>,
    /// Print replies and events as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Log in as this user first.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Read the password from here. Otherwise: ANTAR_PASSWORD, or it is asked for.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
    /// Don't show new messages as they come.
    #[arg(long)]
    pub(crate) no_watch: bool,
    /// Show also when messages were delivered and read, not only when they failed.
    #[arg(long, short = 'v')]
    pub(crate) verbose: bool,
    /// Keep what was typed here, for the next time. Passwords are left out.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) history_file: Option<PathBuf>,
}

/// Which realm and which broker an operator means.
#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    /// Configuration file (TOML), the same as that of `antar serve`.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The broker (broker.url). Without it and without a configuration: the database in the working directory, be it
    /// antar.db or the demo's.
    #[arg(long, global = true, value_name = "URL", conflicts_with = "data")]
    pub(crate) broker: Option<String>,
    /// The directory of `antar demo --data DIR`.
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
}

/// `antar user`.
#[derive(Debug, Args)]
#[command(after_help = "\
Works while the realm is being served and while it is not. Passwords are never arguments: --password-file FILE, or the
variable ANTAR_PASSWORD, or they are asked for.

Examples:
  antar user add --realm realm1 xavi --name 'Xavi Hernandez' --country Spanyol     of a running demo
  antar user list --config antar.toml --json
  antar user import --realm kampus students.csv")]
pub(crate) struct UserArgs {
    /// The realm (realm.id).
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) realm: Option<String>,
    /// Which broker.
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

/// `antar user …`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make an account.
    Add {
        /// Name to log in with: 1 to 32 of a-z, 0-9, _ and -.
        user: String,
        /// Name to show; the user's if not given.
        #[arg(long, default_value = "")]
        name: String,
        /// Country.
        #[arg(long, default_value = "")]
        country: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List the accounts.
    List {
        /// One JSON object an account.
        #[arg(long)]
        json: bool,
    },
    /// Set a password and end the user's sessions.
    Passwd {
        /// Whose.
        user: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Keep a user out: ends the sessions and refuses logins. The mailbox goes on filling.
    Disable {
        /// Whom.
        user: String,
    },
    /// Let a disabled user in again.
    Enable {
        /// Whom.
        user: String,
    },
    /// Remove an account and end its sessions. What others received from it stays.
    Remove(RemoveArgs),
    /// Make a code for `register … invite=CODE`, and print it.
    Invite {
        /// How many accounts it is good for.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        uses: u32,
        /// For how many days.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3_650))]
        days: u32,
    },
    /// Make many accounts from a CSV file with the columns user, password, name and country.
    #[command(after_help = "\
The first line names the columns, in any order; name and country may be left out. Accounts that are there already are
left alone. Nothing is made if a line of the file is wrong. Exit code 5 if the realm refused some.

  user,password,name,country
  xavi,rahasia123,Xavi Hernandez,Spanyol")]
    Import {
        /// The file; - for standard input.
        #[arg(value_name = "FILE.csv", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// One JSON object with what was done.
        #[arg(long)]
        json: bool,
    },
}

/// Where a new password comes from.
#[derive(Debug, Args)]
pub(crate) struct PasswordArgs {
    /// Read the password from the first line of this file. Otherwise: ANTAR_PASSWORD, or it is asked for twice.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
}

/// `antar realm`.
#[derive(Debug, Args)]
#[command(after_help = "\
A paused realm stops exchanging messages with other realms: what is sent waits, also over a restart, and none is lost.

Each realm signs what it sends to others. The key of another realm is known from the first time it was added; if it
changes, nothing is exchanged with that realm until `trust`, so ask its operators by another way whether the key is theirs.

Examples:
  antar realm init kampus --broker nats://127.0.0.1:4222
  antar realm list realm1
  antar realm trust realm1 realm2 --key UCLFO2OKPFW3AEUD4IGXFTC2SWMMVPQELXCX3CEWO6XAO2NLLQMBUNGA
  antar realm pause realm2         of the demo in the working directory
  antar realm show realm2
  antar realm resume realm2 --data /tmp/demo")]
pub(crate) struct RealmArgs {
    /// Which broker.
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: RealmCommand,
}

/// `antar realm …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RealmCommand {
    /// Make a realm: its streams and buckets, and its key. What is there is compared and left alone.
    Init {
        /// The realm's id.
        id: String,
        /// Make what is missing of a realm that is in use. It was lost then, and is empty afterwards.
        #[arg(long)]
        add_missing: bool,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Give a realm another key: the new one is written to its key file, the old one kept beside it. Edges that run go on
    /// with the old key until they are restarted with the new file; each peer has to trust the new key.
    RotateKey {
        /// The realm's id.
        id: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List the other realms: the key of each, whether it is trusted, and the state of the lane to it.
    List {
        /// The realm's id.
        id: String,
        /// One JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Trust the new key of another realm.
    Trust {
        /// The realm's id.
        id: String,
        /// The other realm's.
        peer: String,
        /// Its key; without it, the one that it shows at the moment.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
    /// Exchange nothing with another realm: what comes of it is put aside, and nothing can be sent to it.
    Block {
        /// The realm's id.
        id: String,
        /// The other realm's.
        peer: String,
    },
    /// Let a blocked realm in again.
    Unblock {
        /// The realm's id.
        id: String,
        /// The other realm's.
        peer: String,
    },
    /// Realms that nobody here has added, and what is held of them (federation.quarantine).
    Quarantine {
        /// What to do.
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Stop the traffic with other realms; messages wait.
    Pause {
        /// The realm's id.
        id: String,
    },
    /// Let the traffic flow again.
    Resume {
        /// The realm's id.
        id: String,
    },
    /// Show the realm's state and its peers.
    Show {
        /// The realm's id.
        id: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Write all that a realm keeps into one file, while it is being served or not.
    Backup(BackupArgs),
    /// Make the realm of a backup, where there is none.
    Restore(RestoreArgs),
    /// Write the accounts of a NATS server: one for each realm, joined by services only. Needs no broker.
    NatsConfig(NatsConfigArgs),
}

/// `antar config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// `antar config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration that `serve` would have. Opens and binds nothing.
    Check(ServeArgs),
    /// Print the configuration that `serve` would have as TOML, with comments and without secrets.
    Print(ServeArgs),
    /// List all keys, as Markdown.
    Keys,
}

/// Parses `ADDR` of a server to connect to; a name is looked up.
pub(crate) fn server_address(text: &str) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs as _;
    let mut found = text.to_socket_addrs().map_err(|error| format!("{text} is not HOST:PORT: {error}"))?;
    found.next().ok_or_else(|| format!("{text} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_password_is_never_an_argument() {
        for line in
            ["antar user add xavi --password x", "antar user passwd xavi geheim", "antar chat --password x"]
        {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn the_lines_of_the_documents_are_understood() {
        for line in [
            "antar demo",
            "antar demo --port 0 --data /tmp/x",
            "antar serve --config antar.toml --realm a --listen 0.0.0.0:4001 --http off --broker sqlite:x.db",
            "antar chat -c inbox -c whoami --json --user messi --no-watch",
            "antar user add --realm a xavi --name Xavi --country Spanyol",
            "antar user import --realm a - --json",
            "antar user invite --realm a --uses 3 --days 1",
            "antar realm pause realm2 --data /tmp/x",
            "antar realm show realm2 --json",
            "antar realm init realm1 --broker nats://127.0.0.1:4222 --add-missing",
            "antar realm list realm1 --json",
            "antar realm trust realm1 realm2 --key U",
            "antar realm block realm1 realm2",
            "antar realm unblock realm1 realm2",
            "antar realm backup realm1 realm1.backup --data /tmp/x --with-key --json",
            "antar realm restore realm1.backup --broker sqlite:x.db --realm realm1 --new-key --json",
            "antar realm nats-config realm1 realm2 --credentials keys --output accounts.conf",
            "antar doctor --config antar.toml --realm realm1 --monitor 127.0.0.1:8222 --format json",
            "antar healthcheck --http 127.0.0.1:8080",
            "antar config check --config antar.toml",
            "antar config print",
            "antar bench send --pairs 64 --window 16 --json",
            "antar bench ledger --ledger file",
            "antar bench ledger --check file",
        ] {
            assert!(
                Cli::try_parse_from(line.split(' ')).is_ok(),
                "{line}: {:?}",
                Cli::try_parse_from(line.split(' ')).err()
            );
        }
    }

    #[test]
    fn flags_of_serve_set_the_keys_that_the_table_says() {
        let line = "antar serve --realm a --listen b --http c --broker d";
        let Command::Serve(args) = Cli::parse_from(line.split(' ')).command else { panic!("not serve") };
        let set = args.flags().into_iter().map(|Flag(key, flag, value)| (key, Some(flag), value));
        let known = KEYS.iter().filter(|key| key.flag.is_some()).zip(["a", "b", "c", "d"]);
        assert!(set.eq(known.map(|(key, value)| (key.name, key.flag, value.to_owned()))));
    }
}
