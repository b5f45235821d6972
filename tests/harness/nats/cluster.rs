//! Three NATS servers that know one another, with JetStream over all of them.

use super::wait::eventually;
use super::{Dir, Nats, Options, Ports, Refused, Routes, free_port, free_ports, name};

/// How often a cluster is started on other ports, when somebody was faster.
const PORT_TRIES: usize = 5;

/// A cluster. All its servers are killed when this is dropped.
pub(crate) struct Cluster {
    servers: Vec<Nats>,
}

impl Cluster {
    /// One of so many servers, without accounts.
    #[track_caller]
    pub(crate) fn start(servers: usize) -> Self {
        Self::start_with(servers, &Options::default())
    }

    /// The same with options for each server. Waits until there is a leader and everybody knows it.
    #[track_caller]
    pub(crate) fn start_with(servers: usize, options: &Options) -> Self {
        for _ in 0..PORT_TRIES {
            if let Some(cluster) = Self::try_start(servers, options) {
                cluster.wait_healthy();
                return cluster;
            }
        }
        panic!("a cluster of NATS servers does not start");
    }

    /// `None` when a port was taken meanwhile.
    fn try_start(count: usize, options: &Options) -> Option<Self> {
        let all: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let cluster = name();
        let mut servers: Vec<Nats> = Vec::new();
        for &own in &all {
            let routes = Routes { name: cluster.clone(), own, all: all.clone() };
            let options = Options { cluster: Some(routes), ..options.clone() };
            let ports: Ports = free_ports();
            let mut server = Nats { dir: Dir::new(), ports, name: name(), options, child: None };
            match server.try_start() {
                Ok(()) => servers.push(server),
                Err(Refused::PortTaken) => return None,
                Err(Refused::Other) => panic!("a NATS server does not start: {}", server.log()),
            }
        }
        Some(Self { servers })
    }

    /// One of the servers.
    pub(crate) fn server(&self, number: usize) -> &Nats {
        &self.servers[number]
    }

    /// The same, to be killed and started.
    pub(crate) fn server_mut(&mut self, number: usize) -> &mut Nats {
        &mut self.servers[number]
    }

    /// How many servers it has.
    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// All servers, with commas between them.
    pub(crate) fn url(&self) -> String {
        self.servers.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// Waits until every running server is up to date and knows the leader.
    #[track_caller]
    pub(crate) fn wait_healthy(&self) {
        for server in self.servers.iter().filter(|server| server.child.is_some()) {
            eventually("a server of the cluster is up to date", || server.is_healthy().then_some(()));
        }
    }
}
