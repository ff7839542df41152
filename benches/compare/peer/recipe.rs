//! Which proxies there are, where their programs are, and how each is started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::args::Options;
use crate::cases::{Case, Layer, Work};
use crate::error::{Context, Error, Result};
use crate::secure::Credentials;
use crate::{guard, machine};

use super::config::{Observed, Policies, Site};
use super::{Addresses, Peer, config};

/// A way to run a proxy.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    program: Program,
    /// Whether it writes a line for each connection.
    is_logged: bool,
}

#[derive(Clone)]
enum Program {
    Haproxy(config::Haproxy),
    Nginx,
    Envoy,
    Traefik,
    Sheave(Sheave),
}

#[derive(Clone)]
struct Sheave {
    binary: PathBuf,
    driver: &'static str,
    /// How long it spins before it sleeps.
    busy_poll: &'static str,
    policies: Policies,
    /// Share of connections that are told of, by lines and traces.
    told: Option<f64>,
}

/// The shares of lines and traces of the peers that are observed.
const OBSERVED: f64 = 0.1;
const TRACED: f64 = 1.0;
/// Longer than a round trip takes, so that it never sleeps within one.
const BUSY_POLL: &str = "1ms";

/// What a proxy has to be able to do, besides relaying plain TCP.
pub(crate) struct Wants {
    pub(crate) credentials: Option<Credentials>,
    pub(crate) is_large: bool,
}

/// The peers asked for, in the order asked for.
pub(crate) fn recipes(options: &Options) -> Result<Vec<Recipe>> {
    let recipe = |name: &str, program| Recipe { name: name.to_owned(), program, is_logged: false };
    let logged = |name: &str, program| Recipe { name: format!("{name}-logged"), program, is_logged: true };
    let of = |binary: &Path, driver, policies, told| {
        Program::Sheave(Sheave { binary: binary.to_owned(), driver, busy_poll: "0s", policies, told })
    };
    let busy = Program::Sheave(Sheave {
        binary: options.sheave.clone(),
        driver: "auto",
        busy_poll: BUSY_POLL,
        policies: Policies::Default,
        told: None,
    });
    let with = |driver, policies| of(&options.sheave, driver, policies, None);
    let told = |binary: &Path, share| of(binary, "auto", Policies::Default, Some(share));
    let mut known = vec![
        recipe("haproxy", Program::Haproxy(config::Haproxy::Default)),
        recipe("haproxy-splice", Program::Haproxy(config::Haproxy::Splice)),
        recipe("nginx", Program::Nginx),
        recipe("envoy", Program::Envoy),
        recipe("traefik", Program::Traefik),
        recipe("sheave", with("auto", Policies::Default)),
        recipe("sheave-epoll", with("epoll", Policies::Default)),
        recipe("haproxy-busy", Program::Haproxy(config::Haproxy::Busy)),
        recipe("sheave-busy", busy),
        recipe("sheave-bare", with("auto", Policies::None)),
        recipe("sheave-all", with("auto", Policies::All)),
        recipe("sheave-observed", told(&options.sheave, OBSERVED)),
        recipe("sheave-traced", told(&options.sheave, TRACED)),
        // Traefik has no log of TCP connections.
        logged("haproxy", Program::Haproxy(config::Haproxy::Default)),
        logged("nginx", Program::Nginx),
        logged("envoy", Program::Envoy),
        logged("sheave", with("auto", Policies::Default)),
    ];
    for (name, path) in &options.others {
        known.push(recipe(name, of(path, "auto", Policies::Default, None)));
        known.push(recipe(&format!("{name}-observed"), told(path, OBSERVED)));
        known.push(recipe(&format!("{name}-traced"), told(path, TRACED)));
    }
    let Some(wanted) = &options.peers else {
        // What policies and being observed cost are questions of their own, and so is what spinning brings.
        known.retain(|recipe| match &recipe.program {
            _ if recipe.is_logged => false,
            Program::Sheave(sheave) => {
                matches!(sheave.policies, Policies::Default)
                    && sheave.told.is_none()
                    && sheave.busy_poll != BUSY_POLL
            }
            Program::Haproxy(way) => !matches!(way, config::Haproxy::Busy),
            _ => true,
        });
        return Ok(known);
    };
    let find = |name: &String| {
        let found = known.iter().find(|recipe| recipe.name == *name).cloned();
        found.ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|recipe| recipe.name.as_str()).collect();
            Error::new(format!("no peer {name:?}; there are {}", names.join(", ")))
        })
    };
    wanted.iter().map(find).collect()
}

impl Program {
    /// What its program file is called; `None`: it is named by its path.
    fn file_name(&self) -> Option<&'static str> {
        match self {
            Self::Haproxy(_) => Some("haproxy"),
            Self::Nginx => Some("nginx"),
            Self::Envoy => Some("envoy"),
            Self::Traefik => Some("traefik"),
            Self::Sheave(_) => None,
        }
    }
}

impl Recipe {
    /// Whether the case can be measured with it.
    pub(crate) fn can(&self, case: Case) -> bool {
        let is_own = case.layer == Layer::Many || case.work == Work::Churn;
        !is_own || matches!(self.program, Program::Sheave(_))
    }

    /// Whether it never sleeps, and so has to be stopped while others are measured on its core.
    pub(crate) fn never_sleeps(&self) -> bool {
        matches!(self.program, Program::Haproxy(config::Haproxy::Busy))
    }

    /// The share of its connections that it makes traces of.
    pub(crate) fn traced(&self) -> Option<f64> {
        match &self.program {
            Program::Sheave(sheave) => sheave.told,
            _ => None,
        }
    }

    /// Where the program is, or what to do about it.
    fn binary(&self) -> Result<PathBuf> {
        match (&self.program, self.program.file_name()) {
            (_, Some(file)) => find_program(file).ok_or_else(|| {
                Error::new(format!(
                    "{} needs {file}, which is not on PATH: `make bench` installs it (scripts/install-bench-peers), \
                     or choose others with --peers",
                    self.name
                ))
            }),
            (Program::Sheave(Sheave { binary, .. }), _) if binary.is_file() => {
                fs::canonicalize(binary).context(binary.display())
            }
            (Program::Sheave(Sheave { binary, .. }), _) => Err(Error::new(format!(
                "{} has no binary at {}: build it with `cargo build --release`, or choose others with --peers",
                self.name,
                binary.display()
            ))),
            (_, None) => Err(Error::new(format!("{} has no program", self.name))),
        }
    }

    /// What the program calls itself.
    pub(crate) fn version(&self) -> Result<String> {
        let flag = match self.program {
            Program::Haproxy(_) | Program::Nginx => "-v",
            Program::Envoy | Program::Sheave(_) => "--version",
            Program::Traefik => "version",
        };
        let output = Command::new(self.binary()?).arg(flag).stdin(Stdio::null()).output();
        let output = output.context(format_args!("ask {} for its version", self.name))?;
        // nginx says it on the other stream.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim();
        // Envoy names its path first.
        Ok(line.rsplit_once("version: ").map_or(line, |(_, version)| version).to_owned())
    }

    /// Starts the proxy on `cpu` and returns once a message has gone through it and back.
    /// `receiver`: who takes its traces.
    pub(crate) fn start(
        &self,
        cpu: usize,
        endpoints: &[SocketAddr],
        wants: &Wants,
        receiver: Option<SocketAddr>,
    ) -> Result<Peer> {
        let binary = self.binary()?;
        let listen = Addresses::free()?;
        let stem = guard::directory()?.join(format!("{}-{}", self.name, listen.plain.port()));
        let site = Site {
            listen,
            admin: machine::free_address()?,
            endpoints,
            credentials: wants.credentials.as_ref(),
            is_large: wants.is_large,
            is_logged: self.is_logged,
            max_connections: machine::max_connections(),
            stem: &stem,
        };
        let (text, extension) = match &self.program {
            Program::Haproxy(way) => (config::haproxy(&site, *way), "cfg"),
            Program::Nginx => (config::nginx(&site), "conf"),
            Program::Envoy => (config::envoy(&site), "yaml"),
            Program::Traefik => {
                let routes = stem.with_extension("routes.yaml");
                fs::write(&routes, config::traefik_routes(&site)).context(routes.display())?;
                (config::traefik(&site, &routes), "yaml")
            }
            Program::Sheave(Sheave { driver, busy_poll, policies, told, .. }) => {
                let observed = told.zip(receiver).map(|(share, receiver)| Observed { share, receiver });
                (config::sheave(&site, [driver, busy_poll], *policies, observed), "yaml")
            }
        };
        let file = stem.with_extension(extension);
        fs::write(&file, text).context(file.display())?;
        let command = self.command(&binary, &file);
        // There nothing but lines of connections is written, of which nobody wants to keep millions.
        let is_told = self.is_logged || self.traced().is_some();
        let output = is_told.then(Stdio::null);
        Peer::spawn(&self.name, command, &site, &file, cpu, output)
    }

    fn command(&self, binary: &Path, config: &Path) -> Command {
        // setpriv becomes the program under the same pid: should this process be killed, the proxy goes too.
        let mut command = match find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        // Settings of the person's shell must not reach one peer and not the other.
        command.env_clear();
        match self.program {
            Program::Haproxy(_) => command.args(["-db", "-f"]).arg(config),
            Program::Nginx => command.arg("-c").arg(config),
            Program::Envoy => command
                .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"])
                .arg(config),
            Program::Traefik => command.arg("--configFile").arg(config),
            Program::Sheave(_) => command.args(["run", "--config"]).arg(config),
        };
        command
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where only root's PATH leads.
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(system);
    places.find_map(|place| Some(place.join(name)).filter(|file| file.is_file()))
}
