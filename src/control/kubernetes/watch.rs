//! One watch: a complete list, then every change, for ever.
//!
//! A loop of our own over kube's list and watch, because it has to know more than the objects: whether the watch is
//! open now and when the API server last gave a sign of life (bookmarks included). What was seen stays seen
//! through any outage; only a new complete list replaces it.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap as ApiMap, Secret as ApiSecret, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use kube::api::{Api, ListParams, WatchParams};
use kube::core::{NamespaceResourceScope, WatchEvent};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, Semaphore};

use super::backoff::Pause;
use super::bundle::Bundle;
use super::index::{Change, Object, Observation};
use super::object::{Service, Slice};
use super::plan::{Resource, Scope};
use super::status::Watches;
use super::trouble::{Trouble, Verb};

/// Objects in one page of a list: a full slice has 100 endpoints, and may have 1000.
const PAGE: u32 = 50;
/// How long a page may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the API server may take to open a watch.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// After this long the API server ends a watch and it is opened anew where it was. A connection that died without
/// a word, and a permission that was withdrawn, are noticed no later than that. A range, so that the watches of many
/// replicas are not all opened in the same second.
const WATCH_SECONDS: std::ops::Range<u32> = 60..90;
/// How much later than that its end may come.
const WATCH_GRACE: Duration = Duration::from_secs(10);
/// A watch that ends sooner is not opened again at once, and one that lives longer works.
const SHORT: Duration = Duration::from_secs(1);

/// What a watch works with.
pub(super) struct Watch {
    pub(super) client: Client,
    pub(super) scope: Arc<Scope>,
    pub(super) status: Arc<Watches>,
    pub(super) observations: flume::Sender<Observation>,
    /// For listing: a thousand at once would keep probes waiting, and the API server busy.
    pub(super) turns: Arc<Semaphore>,
    /// Told when the API server does not accept the client's credentials.
    pub(super) refused: Arc<Notify>,
}

/// An object of the API that has a compact value.
trait Watched:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
    type Compact;

    /// `None`: it is of no interest to anybody.
    fn compact(self) -> Option<Self::Compact>;
    /// The name by which it is looked for: that of the Service that it belongs to, or its own.
    fn name(compact: &Self::Compact) -> &str;
    fn object(change: Change<Self::Compact>) -> Object;
}

impl Watch {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        match self.scope.resource {
            Resource::Services => self.follow::<ApiService>().await,
            Resource::EndpointSlices => self.follow::<ApiSlice>().await,
            Resource::Certificates | Resource::AuthoritySecrets => self.follow::<ApiSecret>().await,
            Resource::AuthorityMaps => self.follow::<ApiMap>().await,
        }
    }

    async fn follow<K: Watched>(&self) {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.scope.namespace);
        let mut pause = Pause::default();
        let mut version: Option<String> = None;
        loop {
            let result = match &mut version {
                None => self.list(&api).await.map(|listed| version = Some(listed)),
                Some(version) => self.watch(&api, version, &mut pause).await,
            };
            let Err(trouble) = result else { continue };
            if trouble.needs_list() {
                version = None;
            }
            if trouble.is_unauthorized() {
                self.refused.notify_one();
            }
            self.report(trouble);
            pause.wait().await;
        }
    }

    /// Lists everything, as one observation. Where to go on from.
    async fn list<K: Watched>(&self, api: &Api<K>) -> Result<String, Trouble> {
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        params.label_selector = self.scope.label_selector();
        params.field_selector = self.scope.field_selector();
        let mut all = Vec::new();
        // Nobody closes it.
        let _turn = self.turns.acquire().await;
        loop {
            let page = tokio::time::timeout(LIST_TIMEOUT, api.list(&params)).await;
            let page = page.map_err(|_| Trouble::silent(&self.scope, Verb::List, LIST_TIMEOUT))?;
            let page = page.map_err(|error| Trouble::failed(&self.scope, Verb::List, &error))?;
            all.extend(page.items.into_iter().filter_map(|object| self.wanted(object)));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_some() {
                continue;
            }
            let version = page.metadata.resource_version.unwrap_or_default();
            self.status.event(&self.scope, Instant::now());
            self.observed(K::object(Change::All(all))).await;
            return Ok(version);
        }
    }

    /// Passes changes on until the API server ends the watch, as it does every minute.
    async fn watch<K: Watched>(
        &self,
        api: &Api<K>,
        version: &mut String,
        pause: &mut Pause,
    ) -> Result<(), Trouble> {
        let seconds = fastrand::u32(WATCH_SECONDS);
        let mut params = WatchParams::default().timeout(seconds);
        params.label_selector = self.scope.label_selector();
        params.field_selector = self.scope.field_selector();
        let opening = tokio::time::timeout(OPEN_TIMEOUT, api.watch(&params, version)).await;
        let opening = opening.map_err(|_| Trouble::silent(&self.scope, Verb::Watch, OPEN_TIMEOUT))?;
        let stream = opening.map_err(|error| Trouble::failed(&self.scope, Verb::Watch, &error))?;
        let mut stream = pin!(stream);
        let opened = Instant::now();
        self.status.opened(&self.scope, opened);
        let patience = Duration::from_secs(seconds.into()) + WATCH_GRACE;
        let mut has_proved = false;
        loop {
            let limit = if has_proved { patience } else { SHORT };
            let event = match tokio::time::timeout(limit, stream.next()).await {
                Ok(event) => event,
                Err(_) if !has_proved => {
                    has_proved = self.prove(pause);
                    continue;
                }
                Err(_) => return Err(Trouble::silent(&self.scope, Verb::Watch, patience)),
            };
            let Some(event) = event else { break };
            let event = event.map_err(|error| Trouble::failed(&self.scope, Verb::Watch, &error))?;
            self.status.event(&self.scope, Instant::now());
            self.pass_on(event, version).await?;
            if opened.elapsed() >= SHORT {
                has_proved = has_proved || self.prove(pause);
            }
        }
        if opened.elapsed() < SHORT {
            return Err(Trouble::new(
                "closed",
                format!("watching {}: the API server closed the watch", self.scope),
            ));
        }
        Ok(())
    }

    /// This watch lives long enough to be worth something.
    fn prove(&self, pause: &mut Pause) -> bool {
        pause.reset();
        if self.status.recovered(&self.scope) {
            tracing::info!(watch = %self.scope, "watching again");
        }
        true
    }

    async fn pass_on<K: Watched>(&self, event: WatchEvent<K>, version: &mut String) -> Result<(), Trouble> {
        let (object, is_gone) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(bookmark) => {
                *version = bookmark.metadata.resource_version;
                return Ok(());
            }
            WatchEvent::Error(status) => return Err(Trouble::status(&self.scope, Verb::Watch, &status)),
        };
        let reached = object.resource_version();
        if let Some(compact) = self.wanted(object) {
            let change = if is_gone { Change::Gone(compact) } else { Change::Set(compact) };
            self.observed(K::object(change)).await;
        }
        // Only now: what was not passed on has to come again.
        if let Some(reached) = reached {
            *version = reached;
        }
        Ok(())
    }

    fn wanted<K: Watched>(&self, object: K) -> Option<K::Compact> {
        let compact = object.compact()?;
        let name = K::name(&compact);
        let is_wanted = self.scope.names.binary_search_by(|known| (**known).cmp(name)).is_ok();
        is_wanted.then_some(compact)
    }

    async fn observed(&self, object: Object) {
        let observation = Observation { scope: Arc::clone(&self.scope), received: Instant::now(), object };
        // The one who takes them is gone only when the whole control side ends.
        let _control_ends = self.observations.send_async(observation).await;
    }

    fn report(&self, trouble: Trouble) {
        let text = Arc::clone(&trouble.text);
        if trouble.is_expiry() {
            self.status.failed(&self.scope, trouble, Instant::now());
            tracing::info!(watch = %self.scope, "{text}");
        } else if self.status.failed(&self.scope, trouble, Instant::now()) {
            tracing::warn!(watch = %self.scope, "{text}; what is known already keeps serving");
        } else {
            tracing::debug!(watch = %self.scope, "{text}");
        }
    }
}

impl Watched for ApiService {
    type Compact = Service;

    fn compact(self) -> Option<Service> {
        Service::new(self)
    }

    fn name(service: &Service) -> &str {
        &service.name
    }

    fn object(change: Change<Service>) -> Object {
        Object::Service(change)
    }
}

impl Watched for ApiSlice {
    type Compact = Slice;

    fn compact(self) -> Option<Slice> {
        Slice::new(self)
    }

    fn name(slice: &Slice) -> &str {
        &slice.service
    }

    fn object(change: Change<Slice>) -> Object {
        Object::Slice(change)
    }
}

impl Watched for ApiSecret {
    type Compact = Bundle;

    fn compact(self) -> Option<Bundle> {
        Bundle::of_secret(self)
    }

    fn name(bundle: &Bundle) -> &str {
        &bundle.name
    }

    fn object(change: Change<Bundle>) -> Object {
        Object::Bundle(change)
    }
}

impl Watched for ApiMap {
    type Compact = Bundle;

    fn compact(self) -> Option<Bundle> {
        Bundle::of_config_map(self)
    }

    fn name(bundle: &Bundle) -> &str {
        &bundle.name
    }

    fn object(change: Change<Bundle>) -> Object {
        Object::Bundle(change)
    }
}
