//! Follows Services and EndpointSlices of a cluster, and the Secrets and ConfigMaps that TLS needs: watch -> compact value -> index.
//!
//! Only what the configuration names is watched, with nothing but `list` and `watch` in the named namespaces.
//! An API server that is away, refuses or forgets takes no endpoint away: what was seen last keeps serving. What is
//! learned goes to the one task that compiles and publishes tables; nothing here touches a table.

mod backoff;
mod bundle;
mod index;
mod object;
mod plan;
mod select;
mod status;
mod trouble;
mod watch;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::FuturesUnordered;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::{Notify, Semaphore};

use crate::config::Config;

use backoff::Pause;
use trouble::Trouble;
use watch::Watch;

pub(super) use index::{Changed, Index, Observation, ServiceKey, Stamp};
pub(super) use plan::Scope;
pub(super) use status::Watches;

/// Lists that may be under way, each with a page in memory.
const LISTS_AT_ONCE: usize = 8;
/// How long connecting to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Credentials that are not accepted are read again at most this often.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Runs the watches that the newest configuration asks for.
pub(super) struct Discovery {
    kubeconfig: Option<PathBuf>,
    status: Arc<Watches>,
    configs: tokio::sync::watch::Receiver<Arc<Config>>,
    observations: flume::Sender<Observation>,
}

impl Discovery {
    pub(super) fn new(
        kubeconfig: Option<PathBuf>,
        status: Arc<Watches>,
        configs: tokio::sync::watch::Receiver<Arc<Config>>,
        observations: flume::Sender<Observation>,
    ) -> Self {
        // Before the first probe is answered.
        expect(&status, &configs.borrow());
        Self { kubeconfig, status, configs, observations }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut scopes = self.plan();
        while scopes.is_empty() {
            if self.configs.changed().await.is_err() {
                return std::future::pending().await;
            }
            scopes = self.plan();
        }
        let mut client = self.client().await;
        let (refused, mut renewed) = (Arc::new(Notify::new()), None);
        let turns = Arc::new(Semaphore::new(LISTS_AT_ONCE));
        let mut running: HashMap<Arc<Scope>, AbortHandle> = HashMap::new();
        let mut watches = FuturesUnordered::new();
        loop {
            let scopes = self.plan();
            running.retain(|scope, watch| {
                let stays = scopes.contains(scope);
                if !stays {
                    watch.abort();
                }
                stays
            });
            for scope in scopes {
                if running.contains_key(&scope) {
                    continue;
                }
                let watch = Watch {
                    client: client.clone(),
                    scope: Arc::clone(&scope),
                    status: Arc::clone(&self.status),
                    observations: self.observations.clone(),
                    turns: Arc::clone(&turns),
                    refused: Arc::clone(&refused),
                };
                let (watch, handle) = abortable(watch.run());
                running.insert(scope, handle);
                watches.push(watch);
            }
            loop {
                tokio::select! {
                    changed = self.configs.changed() => {
                        if changed.is_err() {
                            return std::future::pending().await;
                        }
                        break;
                    }
                    Some(_aborted) = watches.next() => {}
                    () = refused.notified() => {
                        if renewed.is_some_and(|last: Instant| last.elapsed() < RENEW_EVERY) {
                            continue;
                        }
                        renewed = Some(Instant::now());
                        // A kubeconfig that changed, as those of people and cloud providers do.
                        let Ok(fresh) = self::client(self.kubeconfig.as_ref()).await else { continue };
                        client = fresh;
                        running.drain().for_each(|(_, watch)| watch.abort());
                        break;
                    }
                }
            }
        }
    }

    fn plan(&mut self) -> Vec<Arc<Scope>> {
        expect(&self.status, &self.configs.borrow_and_update())
    }

    /// Tries until there is one.
    async fn client(&mut self) -> Client {
        let mut pause = Pause::default();
        loop {
            match client(self.kubeconfig.as_ref()).await {
                Ok(client) => return client,
                Err(trouble) => {
                    let text = Arc::clone(&trouble.text);
                    let mut is_news = false;
                    for scope in self.plan() {
                        is_news |= self.status.failed(&scope, trouble.clone(), Instant::now());
                    }
                    if is_news {
                        tracing::warn!(
                            "{text}; upstreams with a service have no endpoints, and certificates in Secrets are missing, until then"
                        );
                    }
                    pause.wait().await;
                }
            }
        }
    }
}

/// The watches for `config`, which are looked for from now on.
fn expect(status: &Watches, config: &Config) -> Vec<Arc<Scope>> {
    let scopes = plan::plan(config);
    let serves_without = config.upstreams.iter().any(plan::needs_no_watch);
    status.expect(&scopes, serves_without);
    scopes
}

async fn client(kubeconfig: Option<&PathBuf>) -> Result<Client, Trouble> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| Trouble::no_client(&error))?;
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(file, &options).await;
            config.map_err(|error| Trouble::no_client(&error))?
        }
        None => kube::Config::infer().await.map_err(|error| Trouble::no_client(&error))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // It would wait by itself, for up to 1000 s and without a word; each watch has its own pause and says why.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| Trouble::no_client(&error))
}

/// Whether this host has a route to `address`.
pub(super) fn is_reachable(address: IpAddr) -> bool {
    source_towards(address).is_some()
}

/// The address of this host that what goes to `address` comes from: that address itself, if it is this host's.
/// `None`: there is no route. The kernel answers; no packet is sent.
pub(super) fn source_towards(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(SocketAddr::new(address, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
