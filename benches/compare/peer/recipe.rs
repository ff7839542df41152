//! Which proxies there are, where their programs are, and how each is started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::args::Options;
use crate::cases::{Case, Layer};
use crate::error::{Context, Error, Result};
use crate::secure::Credentials;
use crate::{guard, machine};

use super::config::{Policies, Site};
use super::{Addresses, Peer, config};

/// A way to run a proxy.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    program: Program,
}

#[derive(Clone)]
enum Program {
    Haproxy { splice: bool },
    Nginx,
    Envoy,
    Traefik,
    Sheave { binary: PathBuf, driver: &'static str, policies: Policies },
}

/// What a proxy has to be able to do, besides relaying plain TCP.
pub(crate) struct Wants {
    pub(crate) credentials: Option<Credentials>,
    pub(crate) is_large: bool,
}

/// The peers asked for, in the order asked for.
pub(crate) fn recipes(options: &Options) -> Result<Vec<Recipe>> {
    let recipe = |name: &str, program| Recipe { name: name.to_owned(), program };
    let with = |driver, policies| Program::Sheave { binary: options.sheave.clone(), driver, policies };
    let sheave = |driver| with(driver, Policies::Default);
    let mut known = vec![
        recipe("haproxy", Program::Haproxy { splice: false }),
        recipe("haproxy-splice", Program::Haproxy { splice: true }),
        recipe("nginx", Program::Nginx),
        recipe("envoy", Program::Envoy),
        recipe("traefik", Program::Traefik),
        recipe("sheave", sheave("auto")),
        recipe("sheave-epoll", sheave("epoll")),
        recipe("sheave-bare", with("auto", Policies::None)),
        recipe("sheave-all", with("auto", Policies::All)),
    ];
    for (name, path) in &options.others {
        let program = Program::Sheave { binary: path.clone(), driver: "auto", policies: Policies::Default };
        known.push(recipe(name, program));
    }
    let Some(wanted) = &options.peers else {
        // What the policies cost is a question of its own.
        known.retain(|recipe| {
            !matches!(recipe.program, Program::Sheave { policies: Policies::None | Policies::All, .. })
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
            Self::Haproxy { .. } => Some("haproxy"),
            Self::Nginx => Some("nginx"),
            Self::Envoy => Some("envoy"),
            Self::Traefik => Some("traefik"),
            Self::Sheave { .. } => None,
        }
    }
}

impl Recipe {
    /// Whether the case can be measured with it.
    pub(crate) fn can(&self, case: Case) -> bool {
        case.layer != Layer::Many || matches!(self.program, Program::Sheave { .. })
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
            (Program::Sheave { binary, .. }, _) if binary.is_file() => {
                fs::canonicalize(binary).context(binary.display())
            }
            (Program::Sheave { binary, .. }, _) => Err(Error::new(format!(
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
            Program::Haproxy { .. } | Program::Nginx => "-v",
            Program::Envoy | Program::Sheave { .. } => "--version",
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
    pub(crate) fn start(&self, cpu: usize, endpoints: &[SocketAddr], wants: &Wants) -> Result<Peer> {
        let binary = self.binary()?;
        let listen = Addresses::free()?;
        let stem = guard::directory()?.join(format!("{}-{}", self.name, listen.plain.port()));
        let site = Site {
            listen,
            admin: machine::free_address()?,
            endpoints,
            credentials: wants.credentials.as_ref(),
            is_large: wants.is_large,
            max_connections: machine::max_connections(),
            stem: &stem,
        };
        let (text, extension) = match &self.program {
            Program::Haproxy { splice } => (config::haproxy(&site, *splice), "cfg"),
            Program::Nginx => (config::nginx(&site), "conf"),
            Program::Envoy => (config::envoy(&site), "yaml"),
            Program::Traefik => {
                let routes = stem.with_extension("routes.yaml");
                fs::write(&routes, config::traefik_routes(&site)).context(routes.display())?;
                (config::traefik(&site, &routes), "yaml")
            }
            Program::Sheave { driver, policies, .. } => (config::sheave(&site, driver, *policies), "yaml"),
        };
        let file = stem.with_extension(extension);
        fs::write(&file, text).context(file.display())?;
        let command = self.command(&binary, &file);
        Peer::spawn(&self.name, command, &site, cpu)
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
            Program::Haproxy { .. } => command.args(["-db", "-f"]).arg(config),
            Program::Nginx => command.arg("-c").arg(config),
            Program::Envoy => command
                .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"])
                .arg(config),
            Program::Traefik => command.arg("--configFile").arg(config),
            Program::Sheave { .. } => command.args(["run", "--config"]).arg(config),
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
