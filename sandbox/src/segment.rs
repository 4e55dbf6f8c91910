//! A stand-in for Segment's HTTP Tracking API that answers as Segment does, remembers every call and fails on demand.

mod api;
mod behaviour;
mod certificate;
mod ledger;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

pub use self::api::{MAX_BATCH_BYTES, MAX_CALL_BYTES, SHORTEST_WRITE_KEY};
pub use self::behaviour::Behaviour;
pub use self::ledger::Call;

use self::behaviour::Plan;
use self::certificate::Identity;
use self::ledger::Ledger;

/// Segment's host names: in the United States, and in Europe.
pub const HOSTS: [&str; 2] = ["api.segment.io", "events.eu1.segmentapis.com"];

/// How to start a stand-in; the default is like Segment.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens. Port 0 lets the system choose.
    pub address: SocketAddr,
    /// How clients reach it.
    pub transport: Transport,
    /// What it remembers.
    pub recording: Recording,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            transport: Transport::default(),
            recording: Recording::default(),
        }
    }
}

/// How clients reach a stand-in. Both transports support HTTP/1.1 and HTTP/2.
#[derive(Debug, Clone)]
pub enum Transport {
    /// TLS only, with a certificate for these names, signed by the stand-in's own authority.
    Tls {
        /// The names in the certificate.
        names: Vec<String>,
    },
    /// No encryption: for benchmarks, which are not about the stand-in's cryptography.
    Plain,
}

impl Default for Transport {
    fn default() -> Self {
        Self::tls_for(HOSTS)
    }
}

impl Transport {
    /// TLS with a certificate for these names, so that a test can offer a wrong one.
    pub fn tls_for<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::Tls { names: names.into_iter().map(Into::into).collect() }
    }
}

/// Which calls a stand-in records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recording {
    /// Every call, whole.
    #[default]
    On,
    /// No call, only the counters: for benchmarks, which would fill the memory.
    Off,
}

/// A running stand-in for Segment. Dropping it ends it and all its connections.
#[derive(Debug)]
pub struct Segment {
    addr: SocketAddr,
    identity: Option<Identity>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// State that the connections of a stand-in share.
#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    plan: Plan,
}

impl Segment {
    /// Starts one with TLS, on a port the system chooses.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts one with these options.
    pub async fn start_with(options: Options) -> Result<Self> {
        let identity = match &options.transport {
            Transport::Tls { names } => Some(Identity::issue(names)?),
            Transport::Plain => None,
        };
        let listener = TcpListener::bind(options.address)
            .await
            .with_context(|| format!("the stand-in for Segment cannot listen on {}", options.address))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared { ledger: Ledger::new(options.recording), plan: Plan::default() });
        let tls = identity.as_ref().map(Identity::acceptor);
        let server = tokio::spawn(server::run(listener, tls, Arc::clone(&shared)));
        Ok(Self { addr, identity, shared, server })
    }

    /// The address on which it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The PEM file of the authority that signed its certificate, removed with the stand-in; `None` without TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.identity.as_ref().map(Identity::ca_file)
    }

    /// Sets what it does with each call from now on, after the script.
    pub fn behave(&self, behaviour: Behaviour) {
        self.behave_with(move |_| behaviour.clone());
    }

    /// Lets a function decide for each call from now on, after the script. The call has no status yet.
    pub fn behave_with(&self, decide: impl Fn(&Call) -> Behaviour + Send + Sync + 'static) {
        self.shared.plan.set_default(Box::new(decide));
    }

    /// Adds behaviours to the end of the script, one for each of the next calls.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.plan.extend_script(behaviours);
    }

    /// Every call that has ended (with an answer, a reset or a disconnect), in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.ledger.calls()
    }

    /// The calls whose event was accepted.
    pub fn accepted(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.accepted).collect()
    }

    /// How many events were accepted, counted even without recording.
    pub fn accepted_count(&self) -> usize {
        self.shared.ledger.accepted()
    }

    /// TCP connections taken.
    pub fn connections(&self) -> usize {
        self.shared.ledger.connections()
    }

    /// Connections of a stand-in with TLS that did not begin with TLS: whatever came on them, anyone on the way could read.
    pub fn unencrypted(&self) -> usize {
        self.shared.ledger.unencrypted()
    }

    /// Request heads seen, including those whose body never ended.
    pub fn requests_begun(&self) -> usize {
        self.shared.ledger.requests_begun()
    }

    /// Forgets all calls, including those under way, and resets the counters. The behaviours stay.
    pub fn clear(&self) {
        self.shared.ledger.clear();
    }

    /// Receives each call from now on, when it ends.
    pub fn subscribe(&self) -> broadcast::Receiver<Call> {
        self.shared.ledger.subscribe()
    }

    /// Waits until there are at least this many calls, and returns them all.
    pub async fn wait_for(&self, calls: usize, timeout: Duration) -> Result<Vec<Call>> {
        self.shared.ledger.wait_for(calls, timeout).await
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.server.abort();
    }
}
