//! What can be wrong between this process and the API server, and what to do about it.

use std::sync::Arc;
use std::time::Duration;

use super::plan::Scope;

/// Why a list or a watch failed.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// One of a few words, for metrics.
    pub(super) reason: &'static str,
    /// What is wrong, and what to do.
    pub(super) text: Arc<str>,
}

/// What was asked of the API server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    List,
    Watch,
}

const FORBIDDEN: &str = "forbidden";
const UNAUTHORIZED: &str = "unauthorized";
const EXPIRED: &str = "expired";
const REFUSED: &str = "refused";
const UNREADABLE: &str = "unreadable";
/// What a server says may be a page of HTML.
const SAID_MAX: usize = 300;

impl Trouble {
    pub(super) fn new(reason: &'static str, text: impl Into<Arc<str>>) -> Self {
        Self { reason, text: text.into() }
    }

    /// There is no client to ask with.
    pub(super) fn no_client(error: &impl std::error::Error) -> Self {
        let error = chain(error);
        Self::new(
            "no_client",
            format!(
                "no way to the API server: {error}; run in a pod with a ServiceAccount token, or name a kubeconfig in \
                 kubernetes.kubeconfig or KUBECONFIG"
            ),
        )
    }

    /// The API server does not answer, or stopped to.
    pub(super) fn silent(scope: &Scope, verb: Verb, after: Duration) -> Self {
        let seconds = after.as_secs();
        Self::new("silent", format!("no answer to {} {scope} for {seconds} s", verb.doing()))
    }

    /// The API server answered with an error.
    pub(super) fn status(scope: &Scope, verb: Verb, status: &kube::core::Status) -> Self {
        let doing = verb.doing();
        match status.code {
            403 => Self::new(
                FORBIDDEN,
                format!(
                    "{doing} {scope} is forbidden; add this rule to a Role in namespace {} that is bound to the \
                     ServiceAccount of this pod: {}",
                    scope.namespace,
                    rule(scope),
                ),
            ),
            401 => Self::new(
                UNAUTHORIZED,
                format!(
                    "the API server does not accept the credentials for {doing} {scope}: {}; they are read \
                     again, a pod's token every minute, a kubeconfig after this; does the ServiceAccount or user still exist?",
                    brief(&status.message)
                ),
            ),
            410 => {
                Self::new(EXPIRED, format!("{doing} {scope}: the point to go on from is gone, listing anew"))
            }
            429 | 500..=599 => Self::new(
                "unavailable",
                format!("{doing} {scope}: the API server says {}", brief(&status.message)),
            ),
            code => Self::new(REFUSED, format!("{doing} {scope}: {code} {}", brief(&status.message))),
        }
    }

    pub(super) fn failed(scope: &Scope, verb: Verb, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::status(scope, verb, status),
            kube::Error::SerdeError(_) => {
                Self::new(UNREADABLE, format!("{} {scope}: {}", verb.doing(), chain(error)))
            }
            _ => Self::new("unreachable", format!("{} {scope}: {}", verb.doing(), chain(error))),
        }
    }

    pub(super) fn is_unauthorized(&self) -> bool {
        self.reason == UNAUTHORIZED
    }

    pub(super) fn is_forbidden(&self) -> bool {
        self.reason == FORBIDDEN
    }

    /// What was seen last is too old to go on from, which is nobody's mistake.
    pub(super) fn is_expiry(&self) -> bool {
        self.reason == EXPIRED
    }

    /// Asking for the same again would fail for ever: only a new list leads on.
    pub(super) fn needs_list(&self) -> bool {
        [EXPIRED, REFUSED, UNREADABLE].contains(&self.reason)
    }
}

impl Verb {
    fn doing(self) -> &'static str {
        match self {
            Self::List => "listing",
            Self::Watch => "watching",
        }
    }
}

/// What a Role has to have for this watch.
fn rule(scope: &Scope) -> String {
    let (group, resource) = (scope.resource.api_group(), scope.resource.label());
    // Of Secrets nobody should be allowed to see more than is asked for.
    let (only, verbs) = match scope.source() {
        Some(_) => (format!("resourceNames: [{}], ", scope.names.join(", ")), "get, list, watch"),
        None => (String::new(), "list, watch"),
    };
    format!("{{apiGroups: [{group:?}], resources: [{resource}], {only}verbs: [{verbs}]}}")
}

/// The error with its causes, each said once.
fn chain(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    brief(&text)
}

/// The first line, if it is not too long.
fn brief(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(SAID_MAX).collect()
}
