//! Every kind of finding that is not the broker's own, with what it means and what to do about it.
//!
//! The ids are stable. With those of [`antar_broker::flaws`] they are the table in `proto-docs/doctor.md`.

antar_broker::flaw_kinds! {
    pub(super),
    CONFIG_INVALID = "config.invalid", Error,
        "Edges with this configuration do not start.",
        "Correct it; `antar config check` says the same, `antar config keys` lists what there is.";
    CONFIG_DEMO_ACCOUNTS = "config.demo-accounts", Error,
        "Whoever reaches the port can log in as messi, henderson or lineker: their password is in the manual.",
        "Take `realm.demo_accounts` out of the configuration, and `antar user remove` the three.";
    CONFIG_REGISTRATION = "config.registration", Warning,
        "Whoever reaches the port can make accounts, as many as they like.",
        "`auth.registration = \"invite\"` and `antar user invite`, or `closed`.";
    CONFIG_PLAIN_COMMAND = "config.plain-command", Warning,
        "Passwords and messages go over the network as plain text.",
        "`listen.tls` with a certificate, and `listen.command` on the loopback address; or a network that you trust.";
    CONFIG_HTTP = "config.http", Warning,
        "There is no login: whoever reaches the port sees what is answered there.",
        "`listen.http` on the loopback address.";
    CONFIG_RETENTION = "config.retention", Warning,
        "What was read, carried or put aside goes before anybody has looked into a trouble: `replay`, `trace` and `dead` find nothing.",
        "`retention.days = 30`, if the disk has room.";
    CONFIG_PASSWORD = "config.password", Warning,
        "Short passwords are guessed.",
        "`auth.password_bytes_min = 8` or more; it holds for new passwords.";
    CONFIG_UNIFORM_ERRORS = "config.uniform-errors", Note,
        "Whoever reaches the port can find out which accounts there are.",
        "`auth.uniform_errors = true`, if that is not meant.";
    CONFIG_FILE_MODE = "config.file-mode", Error,
        "Other users of this machine can read the broker's password.",
        "chmod 600 NAME";
    CONFIG_CREDENTIALS = "config.credentials", Error,
        "Edges cannot log in to NATS, or other users of this machine can log in as this realm.",
        "Put the file in its place (`broker.credentials_file`), and chmod 600 NAME";
    CONFIG_BROKER_PLAIN = "config.broker-plain", Note,
        "All that the edges and the broker say to each other goes over the network as plain text.",
        "`tls://` in `broker.url` and TLS at the NATS server, unless you trust the network.";
    BROKER_UNREACHABLE = "broker.unreachable", Error,
        "Nothing more could be looked at. Edges cannot work either, if they reach it no better.",
        "Start it, or correct `broker.url`.";
    BROKER_REFUSED = "broker.refused", Error,
        "Edges do not start on it.",
        "Do what it says.";
    BROKER_SYNC = "broker.sync", Error,
        "A power cut loses up to two minutes of messages that were answered OK; with replicas one of all servers at once.",
        "`sync_interval: always` in `jetstream {…}` of the server's configuration, see deploy/nats/.";
    BROKER_SYNC_UNKNOWN = "broker.sync-unknown", Note,
        "A NATS server does not tell its clients when it writes to the disk: an OK survives a power cut only with `sync_interval: always`.",
        "Look at `sync_interval` in the server's configuration, or give the address of its monitoring: `--monitor 127.0.0.1:8222`.";
    BROKER_MONITOR = "broker.monitor", Warning,
        "What only the server's monitoring tells could not be looked at.",
        "Correct --monitor NAME; the server's configuration has it as `http:`.";
    KEYS_FILE = "keys.file", Error,
        "Edges with this configuration do not start. If the file is lost everywhere, the realm is a stranger to all others.",
        "Copy the file from an edge of the realm, or from where it is kept, to NAME";
    KEYS_ELSEWHERE = "keys.elsewhere", Note,
        "Its mode, and whether it is the realm's, could not be looked at.",
        "Run this where an edge runs, or say where the file is: `realm.key_file`.";
    KEYS_MODE = "keys.mode", Error,
        "Other users of this machine can sign as this realm. Edges refuse to start with it.",
        "chmod 600 NAME; if others were on this machine: `antar realm rotate-key`.";
    KEYS_OTHER = "keys.other", Error,
        "Edges with this file do not start: other realms would not believe what they sign.",
        "Copy the realm's key file from an edge that runs to NAME";
    KEYS_STALE_EDGE = "keys.stale-edge", Warning,
        "An edge signs with the key from before a rotation: peers that trust the new one put its messages aside.",
        "Copy the new key file to every edge of NAME and restart them.";
    KEYS_PEER_CHANGED = "keys.peer-changed", Error,
        "Nothing is exchanged with it: either its operators have changed the key, or somebody pretends to be it.",
        "Ask its operators, by another way than Antar, and if the key is theirs: antar realm trust NAME";
    KEYS_NOT_TRUSTED = "keys.not-trusted", Error,
        "It takes nothing of this realm; what is sent waits in the lane.",
        "Tell its operators this realm's key (`antar realm show`); there: antar realm trust NAME";
    REALM_MISSING = "realm.missing", Error,
        "There is nothing to check; edges would make it new, and empty, or not start.",
        "Correct --realm or `realm.id`, or `antar realm init NAME`.";
    REALM_RESTORING = "realm.restoring", Error,
        "Edges do not start until the restoring is complete.",
        "`antar realm restore` of the same file goes on where it ended.";
    REALM_UNSERVED = "realm.unserved", Note,
        "Nobody can log in, and what other realms send waits.",
        "`antar serve`, if it should be served.";
    REALM_PAUSED = "realm.paused", Warning,
        "Nothing is exchanged with other realms; messages wait, and none is lost.",
        "antar realm resume NAME";
    REALM_UNREAD = "realm.unread", Warning,
        "This part of the realm was not checked.",
        "Look at the rest first; then try again.";
    PEER_OPERATED = "peer.operated", Error,
        "With these credentials that realm can be read, changed and emptied from here; and this one from there, if its are like these.",
        "Export and import the services that `antar realm nats-config` writes, and nothing more.";
    LANE_STUCK = "lane.stuck", Warning,
        "Messages to that realm wait, in order, and none is lost.",
        "Tell the operators of NAME if it lasts; `antar realm show` has the reason.";
    DEAD_OPEN = "dead.open", Warning,
        "Messages of other realms were not delivered.",
        "antar dead list --realm NAME; then redrive or drop each, see deploy/runbook.md.";
    PEER_SILENT = "peer.silent", Warning,
        "Nobody serves it, or there is no way to it: what is sent to it waits once it is not known to take it.",
        "Tell the operators of NAME.";
    PEER_PAUSED = "peer.paused", Note,
        "It takes nothing at the moment; what is sent to it waits in the lane.",
        "Nothing: its operators, or its own, resume it (antar realm resume NAME).";
    PEER_BLOCKED = "peer.blocked", Note,
        "Nothing of it is delivered, and nothing can be sent to it.",
        "antar realm unblock NAME, if that is not meant any more.";
    PEER_VERSION = "peer.version", Note,
        "Realms of different versions understand each other; what is new in one may be missing.",
        "Nothing, unless something is missing.";
    EDGES_VERSIONS = "edges.versions", Warning,
        "What a client or an operator can do depends on the edge that they meet. Meant for the time of an upgrade only.",
        "Bring every edge of NAME to one version.";
    EDGES_GONE = "edges.gone", Note,
        "It was killed, or its machine or its network failed; one that ends by itself takes its record away.",
        "See what became of it, unless that is known. The note goes by itself after ten minutes.";
    CLOCK_EDGE = "clock.edge", Warning,
        "Times of messages do not fit together. Beyond two minutes messages are not found by their ids.",
        "Let the edge's machine follow a time server (chrony, systemd-timesyncd), and this one too.";
    CLOCK_PEER = "clock.peer", Warning,
        "Times of messages and traces between the two realms do not fit together. Beyond two minutes messages are not found by their ids.",
        "Let the edges of NAME follow a time server (chrony, systemd-timesyncd), and this machine too.";
}

/// All of them: the broker's first.
#[cfg(test)]
fn all() -> impl Iterator<Item = &'static antar_broker::FlawKind> {
    antar_broker::flaws::ALL.iter().chain(ALL).copied()
}

/// The table of all of them, as Markdown.
#[cfg(test)]
fn markdown() -> String {
    let mut kinds: Vec<_> = all().collect();
    kinds.sort_by_key(|kind| kind.id);
    let row = |kind: &antar_broker::FlawKind| {
        format!("| `{}` | {} | {} | {} |\n", kind.id, kind.severity.as_str(), kind.means, kind.remedy)
    };
    let rows: String = kinds.into_iter().map(row).collect();
    format!("| id | severity | what it means | what to do |\n|---|---|---|---|\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_id_and_no_other() {
        let document = include_str!("../../../../proto-docs/doctor.md");
        assert!(document.contains(&markdown()), "put this into doctor.md:\n{}", markdown());
        let rows = document.lines().filter(|line| line.starts_with("| `") && line.contains('.'));
        assert_eq!(rows.count(), all().count(), "another table has rows like these");
    }

    #[test]
    fn an_id_stands_once() {
        for kind in all() {
            assert_eq!(all().filter(|other| other.id == kind.id).count(), 1, "{}", kind.id);
        }
    }
}
