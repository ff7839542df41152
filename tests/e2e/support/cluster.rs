//! The cluster that KUBECONFIG names. A thread of its own drives the connections to it, so that tests can be plain code.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use axum::http::Request;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::{Builder, Handle};
use tokio::time::timeout;

/// Who changed a field, for Kubernetes.
pub(crate) const MANAGER: &str = "sheave-e2e";
/// For one request; generous, because a busy machine is slow and not broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Objects of one namespace, as these tests need them.
pub(crate) trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

pub(crate) struct Cluster {
    handle: Handle,
    client: Client,
}

impl Cluster {
    pub(crate) fn current() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            // Without it the client would take ~/.kube/config, and a cluster that somebody needs.
            assert!(
                std::env::var_os("KUBECONFIG").is_some(),
                "KUBECONFIG must name the cluster to test on: see `make e2e`"
            );
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let handle = runtime.handle().clone();
            thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
            let client =
                handle.block_on(Client::try_default()).expect("a client for the cluster of KUBECONFIG");
            Self { handle, client }
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    /// As [`Self::block_on`], for one request.
    pub(crate) fn request<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
        let answered = self.block_on(async { timeout(PATIENCE, request).await });
        match answered {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the API server did not answer within {PATIENCE:?}")),
        }
    }

    /// An HTTP request to the API server, and its answer as text.
    pub(crate) fn http(&self, method: &str, path: &str) -> Result<String, String> {
        let request =
            Request::builder().method(method).uri(path).body(Vec::new()).map_err(|e| e.to_string())?;
        self.request(self.client.request_text(request))
    }

    /// An HTTP request to a pod, by way of the API server, so that it works from outside of the cluster.
    pub(crate) fn pod_http(
        &self,
        method: &str,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> Result<String, String> {
        self.http(method, &format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}"))
    }

    /// Creates the object, or makes it so.
    pub(crate) fn apply<K: Object>(&self, namespace: &str, object: Value) -> K {
        let object = with_kind::<K>(object);
        let name = object["metadata"]["name"].as_str().expect("an object has a name").to_owned();
        let api: Api<K> = Api::namespaced(self.client(), namespace);
        let applied =
            self.request(api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)));
        applied.unwrap_or_else(|error| panic!("{} {name} cannot be applied: {error}", K::kind(&())))
    }

    pub(crate) fn merge<K: Object>(&self, namespace: &str, name: &str, change: &Value) -> K {
        let api: Api<K> = Api::namespaced(self.client(), namespace);
        let merged = self.request(api.patch(name, &PatchParams::default(), &Patch::Merge(change)));
        merged.unwrap_or_else(|error| panic!("{} {name} cannot be changed: {error}", K::kind(&())))
    }

    pub(crate) fn find<K: Object>(&self, namespace: &str, name: &str) -> Option<K> {
        let api: Api<K> = Api::namespaced(self.client(), namespace);
        self.request(api.get_opt(name)).unwrap_or_else(|error| panic!("{} {name}: {error}", K::kind(&())))
    }

    pub(crate) fn list<K: Object>(&self, namespace: &str, labels: &str) -> Vec<K> {
        let api: Api<K> = Api::namespaced(self.client(), namespace);
        let listed = self.request(api.list(&ListParams::default().labels(labels)));
        listed.unwrap_or_else(|error| panic!("{}: {error}", K::plural(&()))).items
    }

    /// Does not wait until it is gone.
    pub(crate) fn delete<K: Object>(&self, namespace: &str, name: &str, with: &DeleteParams) {
        let api: Api<K> = Api::namespaced(self.client(), namespace);
        let deleted = self.request(api.delete(name, with));
        deleted.unwrap_or_else(|error| panic!("{} {name} cannot be deleted: {error}", K::kind(&())));
    }
}

/// Manifests here say what is theirs; what kind they are follows from the type.
pub(crate) fn with_kind<K: Resource<DynamicType = ()>>(mut object: Value) -> Value {
    object["apiVersion"] = K::api_version(&()).into();
    object["kind"] = K::kind(&()).into();
    object
}
