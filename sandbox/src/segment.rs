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

/// The names Segment is reached by: in the United States, and in Europe.
pub const HOSTS: [&str; 2] = ["api.segment.io", "events.eu1.segmentapis.com"];

/// How a stand-in is started; the default is what Segment is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens. Port 0 lets the system choose.
    pub address: SocketAddr,
    /// How it is spoken to.
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

/// How a stand-in is spoken to. Either way HTTP/1.1 and HTTP/2 are both understood.
#[derive(Debug, Clone)]
pub enum Transport {
    /// TLS only, with a certificate for these names, signed by the stand-in's own authority.
    Tls {
        /// What the certificate is for.
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

/// What a stand-in remembers of the calls it gets.
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

/// What the connections of a stand-in have in common.
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

    /// Starts one that differs from Segment.
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

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The PEM file of the authority that signed its certificate, there for as long as the stand-in is; none without
    /// TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.identity.as_ref().map(Identity::ca_file)
    }

    /// What it does with each call from now on, once the script has run out.
    pub fn behave(&self, behaviour: Behaviour) {
        self.behave_with(move |_| behaviour.clone());
    }

    /// Decides for each call from now on, once the script has run out. The call has no status yet.
    pub fn behave_with(&self, decide: impl Fn(&Call) -> Behaviour + Send + Sync + 'static) {
        self.shared.plan.set_default(Box::new(decide));
    }

    /// Behaviours for the next calls, one each, after those still in the script.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.plan.extend_script(behaviours);
    }

    /// Every call that ended in an answer, in a reset or in the caller leaving, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.ledger.calls()
    }

    /// The calls whose event was kept.
    pub fn accepted(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.accepted).collect()
    }

    /// How many calls had their event kept, counted even where nothing is recorded.
    pub fn accepted_count(&self) -> usize {
        self.shared.ledger.accepted()
    }

    /// TCP connections taken.
    pub fn connections(&self) -> usize {
        self.shared.ledger.connections()
    }

    /// Request heads seen, including those whose body never ended.
    pub fn requests_begun(&self) -> usize {
        self.shared.ledger.requests_begun()
    }

    /// Forgets the calls, those under way too, and sets the counters to zero. The behaviours stay.
    pub fn clear(&self) {
        self.shared.ledger.clear();
    }

    /// Each call from now on, as it ends.
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
