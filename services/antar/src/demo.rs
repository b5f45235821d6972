//! `antar demo`: two realms that federate through one broker, in one process.

use std::net::{Ipv4Addr, SocketAddr};

use antar_proto::RealmId;

use crate::cli::DemoArgs;
use crate::config::{Config, Environment, Flag, Sources};
use crate::exit::{Exit, OrExit as _, Outcome};
use crate::say;
use crate::server::{self, Addresses, Site};

/// Where the database is unless told otherwise, in the working directory.
pub(crate) const DEMO_DIRECTORY: &str = "antar-demo";
/// The file in there.
pub(crate) const DEMO_FILE: &str = "antar-demo.db";
/// How much higher the ports of the pages are, unless they are chosen.
const HTTP_OFFSET: u16 = 4000;
/// The realms of the reports.
const REALMS: [&str; 2] = ["realm1", "realm2"];

/// Runs the demo until a signal comes.
pub(crate) async fn run(args: DemoArgs, environment: &Environment) -> Outcome {
    let url = match &args.broker {
        Some(url) => url.clone(),
        None => format!("sqlite:{}", args.data.join(DEMO_FILE).display()),
    };
    let flag = |key, value: &str| Flag(key, "antar demo", value.to_owned());
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)).to_string();
    let http_port = args.http_port.unwrap_or_else(|| http_port(args.port));
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, http_port)).to_string();
    let http_flag = args.http_port.is_some().then(|| flag("listen.http", &http));
    let config = Config::load(Sources {
        presets: vec![flag("auth.registration", "open"), flag("listen.http", &http)],
        file: args.config.as_deref(),
        environment: Some(environment),
        // Never those of a real realm: a demo on its database would put demo accounts into it.
        flags: vec![
            flag("realm.id", REALMS[0]),
            flag("realm.name", ""),
            flag("realm.demo_accounts", "true"),
            flag("realm.key_file", ""),
            flag("listen.command", &listen),
            flag("listen.tls", "off"),
            flag("broker.url", &url),
        ]
        .into_iter()
        .chain(http_flag)
        .collect(),
    });
    let config = config.or_exit(Exit::Usage)?;
    let logging = crate::log::init(&config.log)?;
    let site = |(id, offset): (&&str, u16)| site(&config, &args, id, offset);
    let sites = REALMS.iter().zip(0..).map(site).collect::<Outcome<Vec<_>>>()?;
    let outcome =
        server::run(&config.broker, &config.edge, sites, |addresses| welcome(addresses, &config)).await;
    logging.end().await;
    outcome
}

/// Where the first page is if nobody has chosen: another demo on other ports is not in its way.
fn http_port(port: u16) -> u16 {
    // The last one leaves room for the one after it. Free ports for one are free ports for all.
    port.checked_add(HTTP_OFFSET).filter(|&http| port != 0 && http < u16::MAX).unwrap_or(0)
}

fn site(config: &Config, args: &DemoArgs, id: &str, offset: u16) -> Outcome<Site> {
    let id: RealmId = id.parse()?;
    let command = beside(config.command, offset);
    let http = config.http.map(|http| beside(http, offset));
    let mut realm = config.realm.clone();
    realm.name = id.to_string();
    realm.key_file = Some(match config.broker.sqlite_path() {
        Some(_) => config.broker.key_file(&id),
        None => args.data.join(config.broker.key_file(&id)),
    });
    realm.id = id;
    Ok(Site { realm, command, tls: None, http, certificate: None, flag: "--port", http_flag: "--http-port" })
}

/// The same address with a later port; port 0 stays what it is.
fn beside(mut address: SocketAddr, offset: u16) -> SocketAddr {
    if address.port() != 0 {
        address.set_port(address.port().saturating_add(offset));
    }
    address
}

/// Says how to go on. On stdout there are the lines that scripts read, and where the pages are; the rest is on stderr.
fn welcome(addresses: &[Addresses], config: &Config) -> Outcome {
    for http in addresses.iter().filter_map(|site| site.http) {
        say::line(format!("page=http://{http}/"))?;
    }
    let [Addresses { command: one, .. }, Addresses { command: two, .. }] = addresses else { return Ok(()) };
    let broker = &config.broker;
    say::remark(format!(
        "
Two realms are running; all that is said is kept in {broker}.
Accounts: messi, henderson, lineker; password: surabaya. Open a page above in a browser, or in another terminal:

  antar chat --server {one}
  > auth messi surabaya
  > send henderson halo
  > addrealm realm2 {host} {port}
  > send lineker@realm2 halo realm sebelah

  antar chat --server {two}
  > auth lineker surabaya
  > getrealminbox realm1

Ctrl-C stops it.",
        host = two.ip(),
        port = two.port(),
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn pages_have_ports_that_follow_from_those_of_the_realms() {
        for (port, http) in [(4001, 8001), (0, 0), (61_534, 65_534), (61_535, 0), (65_000, 0)] {
            assert_eq!(super::http_port(port), http, "{port}");
        }
    }
}
