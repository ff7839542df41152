//! Certificates, authorities and lists of revoked certificates, by where they come from. The last good version of each stays.
//!
//! What is wrong with a new version is said by name, and takes nothing away that works. Which objects of a cluster
//! change, and when files are read again, is the control side's business.

mod chain;
mod facts;
mod material;
mod places;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

use crate::config::{AuthorityRef, CertificateRef, Config, ObjectRef, Upstream};

pub use facts::{Facts, Fingerprint};
pub use material::Material;

pub(super) use facts::fingerprint;
pub(super) use material::{Authorities, Certificate, Revocations};

use facts::Validity;

/// Everything that the configuration refers to.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    held: BTreeMap<Source, Held>,
}

/// Where something comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A certificate, the ones between it and its authority, and its key.
    Certificate(CertificateRef),
    /// Certificates of authorities that are trusted.
    Authorities(AuthorityRef),
    /// Those that this system trusts.
    SystemAuthorities,
    /// Lists of certificates that are not good any more.
    Revocations(PathBuf),
}

#[derive(Clone, Debug, Default)]
struct Held {
    good: Option<Material>,
    /// Whether `good` is a certificate that is over, or has not begun.
    is_untimely: bool,
    /// Newer than `good`, and not (or no longer) valid now.
    waiting: Option<Material>,
    problem: Option<Problem>,
    errors: u64,
}

/// What is wrong with something that was to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One of a few words, for metrics.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub text: Arc<str>,
}

/// What came of a new version.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Handshakes go by something else than before.
    pub is_new: bool,
    pub news: Option<News>,
}

/// Worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    Wrong(Problem),
    WellAgain,
}

/// How one source fares. There is nothing secret in it.
#[derive(Clone, Debug)]
pub struct Report {
    pub source: Source,
    /// Of the certificate in use; of none, of authorities and of lists there are no facts.
    pub facts: Option<Facts>,
    /// The first end of the validity of what is in use.
    pub not_after: Option<SystemTime>,
    /// Nothing could be loaded so far.
    pub is_missing: bool,
    pub problem: Option<Problem>,
    pub errors: u64,
}

impl Credentials {
    /// All that `config` refers to.
    pub fn wanted(config: &Config) -> BTreeSet<Source> {
        places::places(config).into_iter().map(|place| place.source).collect()
    }

    /// What speaking to its endpoints takes.
    pub fn wanted_by(upstream: &Upstream) -> BTreeSet<Source> {
        let places = upstream.tls.iter().flat_map(|tls| places::of_endpoints("", tls));
        places.map(|place| place.source).collect()
    }

    /// Expects these, and forgets others.
    pub fn expect(&mut self, wanted: &BTreeSet<Source>) {
        self.held.retain(|source, _| wanted.contains(source));
        for source in wanted {
            self.held.entry(source.clone()).or_default();
        }
    }

    /// Reads what `config` refers to and this process can read by itself, as far as it has not been read.
    ///
    /// # Errors
    /// A line for each file of which nothing can be used, with its place in the configuration.
    pub fn read_new(&mut self, config: &Config, now: SystemTime) -> Result<(), String> {
        self.expect(&Self::wanted(config));
        let mut errors = Vec::new();
        for place in places::places(config) {
            let Some(held) = self.held.get(&place.source) else { continue };
            if !place.source.is_readable() || held.good.is_some() {
                continue;
            }
            let taken = self.take(&place.source, Material::read(&place.source), now);
            let is_missing = self.held.get(&place.source).is_some_and(|held| held.good.is_none());
            if let (true, Some(News::Wrong(problem))) = (is_missing, taken.news) {
                errors.push(format!("{}: {}", place.path, problem.text));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
    }

    /// Takes in a version of `source`, or why there is none. What nobody expects is passed over.
    pub fn take(&mut self, source: &Source, found: Result<Material, Problem>, now: SystemTime) -> Taken {
        let Some(held) = self.held.get_mut(source) else { return Taken::default() };
        let before = held.problem.clone();
        let is_new = held.take(found, now, source);
        Taken { is_new, news: news(before.as_ref(), held.problem.as_ref()) }
    }

    /// Reads once more what this system trusts, if that is expected. Nobody tells when it changes, and it is many files.
    pub fn read_system(&mut self, now: SystemTime) -> Option<(Source, Taken)> {
        let source = Source::SystemAuthorities;
        self.held.contains_key(&source).then(|| {
            let taken = self.take(&source, Material::read(&source), now);
            (source, taken)
        })
    }

    /// Takes in that time has passed.
    pub fn settle(&mut self, now: SystemTime) -> Vec<(Source, Taken)> {
        let settle = |(source, held): (&Source, &mut Held)| {
            let before = held.problem.clone();
            let is_new = held.settle(now, source);
            (source.clone(), Taken { is_new, news: news(before.as_ref(), held.problem.as_ref()) })
        };
        self.held.iter_mut().map(settle).collect()
    }

    /// Which certificates of `config`'s listeners have no names: clients accept them for none, whatever the common name says.
    /// As clients' certificates they may do.
    pub fn nameless(&self, config: &Config) -> BTreeMap<Source, String> {
        let shown = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let shown = shown.flat_map(|tls| tls.certificates.iter().cloned().map(Source::Certificate));
        let is_nameless = |source: &Source| {
            self.good(source).and_then(Material::facts).is_some_and(|facts| facts.names.is_empty())
        };
        let told = |source: Source| {
            let text = format!(
                "{source}: the certificate has no subjectAltName, so clients accept it for no name (they pass over its \
                 common name); make one with the names that clients ask for"
            );
            (source, text)
        };
        shown.filter(is_nameless).map(told).collect()
    }

    pub fn reports(&self) -> impl Iterator<Item = Report> + '_ {
        self.held.iter().map(|(source, held)| Report {
            source: source.clone(),
            facts: held.good.as_ref().and_then(Material::facts).cloned(),
            not_after: held.good.as_ref().and_then(Material::not_after),
            is_missing: held.good.is_none(),
            problem: held.problem.clone(),
            errors: held.errors,
        })
    }

    /// What is wrong that was not, or was not wrong in the same way, `before`.
    pub fn problems_since(&self, before: &Self) -> Vec<(Source, Problem)> {
        let is_new = |(source, held): (&Source, &Held)| {
            let problem = held.problem.clone()?;
            let known = before.held.get(source).and_then(|held| held.problem.as_ref());
            (known != Some(&problem)).then(|| (source.clone(), problem))
        };
        self.held.iter().filter_map(is_new).collect()
    }

    pub(super) fn certificate(&self, of: &CertificateRef) -> Option<&Arc<Certificate>> {
        match self.good(&Source::Certificate(of.clone()))? {
            Material::Certificate(certificate) => Some(certificate),
            _ => None,
        }
    }

    /// Whether that certificate is over or has not begun, so that another one is better.
    pub(super) fn is_untimely(&self, of: &CertificateRef) -> bool {
        self.held.get(&Source::Certificate(of.clone())).is_some_and(|held| held.is_untimely)
    }

    pub(super) fn authorities(&self, source: &Source) -> Option<&Arc<Authorities>> {
        match self.good(source)? {
            Material::Authorities(authorities) => Some(authorities),
            _ => None,
        }
    }

    pub(super) fn revocations(&self, file: &Path) -> Option<&Arc<Revocations>> {
        match self.good(&Source::Revocations(file.to_owned()))? {
            Material::Revocations(revocations) => Some(revocations),
            _ => None,
        }
    }

    fn good(&self, source: &Source) -> Option<&Material> {
        self.held.get(source)?.good.as_ref()
    }
}

/// One for the process, so that sessions are resumed on any worker, whatever table it has. Its keys change every six hours.
pub(super) fn tickets() -> Result<&'static Arc<dyn ProducesTickets>, rustls::Error> {
    static TICKETS: LazyLock<Result<Arc<dyn ProducesTickets>, rustls::Error>> = LazyLock::new(Ticketer::new);
    TICKETS.as_ref().map_err(Clone::clone)
}

fn news(before: Option<&Problem>, now: Option<&Problem>) -> Option<News> {
    match (before, now) {
        (before, Some(now)) if before != Some(now) => Some(News::Wrong(now.clone())),
        (Some(_), None) => Some(News::WellAgain),
        _ => None,
    }
}

impl Held {
    /// Whether handshakes go by something else now.
    fn take(&mut self, found: Result<Material, Problem>, now: SystemTime, source: &Source) -> bool {
        match found {
            Err(problem) => {
                self.errors += 1;
                self.problem = Some(self.in_context(&problem, source));
                false
            }
            Ok(material) => {
                self.problem = None;
                self.waiting = Some(material);
                let is_new = self.settle(now, source);
                self.errors += u64::from(self.waiting.is_some());
                is_new
            }
        }
    }

    /// Puts what waits in use if it is better than what is, and looks whether what is in use is still valid. Whether handshakes
    /// go by something else then.
    fn settle(&mut self, now: SystemTime, source: &Source) -> bool {
        let valid = |material: &Material| material.validity(now) == Validity::Valid;
        let is_same = |waiting: &Material| {
            self.good.as_ref().is_some_and(|good| good.fingerprint() == waiting.fingerprint())
        };
        let mut is_new = false;
        if self.waiting.as_ref().is_some_and(is_same) {
            self.waiting = None;
        } else if let Some(waiting) = &self.waiting
            && (waiting.is_always_better() || valid(waiting) || !self.good.as_ref().is_some_and(valid))
        {
            self.good = self.waiting.take();
            is_new = true;
        }
        let is_untimely = self.good.as_ref().is_some_and(|good| good.facts().is_some() && !valid(good));
        is_new |= std::mem::replace(&mut self.is_untimely, is_untimely) != is_untimely;
        if self.problem.as_ref().is_none_or(|problem| Problem::OF_TIME.contains(&problem.reason)) {
            let newest = self.waiting.as_ref().or(self.good.as_ref());
            let problem = newest.and_then(|material| material.untimely(now));
            self.problem = problem.map(|problem| self.in_context(&problem, source));
        }
        is_new
    }

    fn in_context(&self, problem: &Problem, source: &Source) -> Problem {
        let is_stopgap = self.waiting.is_some() || !Problem::OF_TIME.contains(&problem.reason);
        let meanwhile = match &self.good {
            Some(_) if is_stopgap => "; the one before it is used meanwhile",
            _ => "",
        };
        Problem { reason: problem.reason, text: format!("{source}: {}{meanwhile}", problem.text).into() }
    }
}

impl Problem {
    const OF_TIME: [&'static str; 2] = ["expired", "not_yet_valid"];

    pub(super) fn new(reason: &'static str, text: impl Into<Arc<str>>) -> Self {
        Self { reason, text: text.into() }
    }

    /// Says in which part it is.
    fn within(self, part: impl fmt::Display) -> Self {
        Self { reason: self.reason, text: format!("in {part}: {}", self.text).into() }
    }

    /// There is no such object, or nothing under that key in it.
    pub fn missing(text: impl Into<Arc<str>>) -> Self {
        Self::new("missing", text)
    }
}

impl Source {
    /// Whether this process can read it without asking anybody.
    pub fn is_readable(&self) -> bool {
        !self.files().is_empty() || *self == Self::SystemAuthorities
    }

    /// The files that it consists of.
    pub fn files(&self) -> Vec<&PathBuf> {
        match self {
            Self::Certificate(CertificateRef::Files { certificate, key }) => vec![certificate, key],
            Self::Authorities(AuthorityRef::File(file)) | Self::Revocations(file) => vec![file],
            _ => Vec::new(),
        }
    }

    /// The Secret that it is in.
    pub fn secret(&self) -> Option<&ObjectRef> {
        match self {
            Self::Certificate(CertificateRef::Secret(secret))
            | Self::Authorities(AuthorityRef::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    pub fn config_map(&self) -> Option<&ObjectRef> {
        match self {
            Self::Authorities(AuthorityRef::ConfigMap(map)) => Some(map),
            _ => None,
        }
    }

    /// What it is, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate",
            Self::Authorities(_) | Self::SystemAuthorities => "authorities",
            Self::Revocations(_) => "revocations",
        }
    }
}

/// `Secret edge/example-com`, `file /certs/tls.crt`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(certificate) => certificate.fmt(f),
            Self::Authorities(authorities) => authorities.fmt(f),
            Self::SystemAuthorities => f.write_str("the system's authorities"),
            Self::Revocations(file) => write!(f, "file {}", file.display()),
        }
    }
}
