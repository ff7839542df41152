//! The command line: what `sheave` can be told, and what its exit code says.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::app::{self, Instance, Options, StartError};
use crate::config::{self, Config, Location, ParseOptions};
use crate::telemetry::logging;
use crate::tls::Credentials;
use crate::top::{self, View};

/// The process ran into something that its configuration cannot help.
const EXIT_FAILURE: u8 = 1;
/// The command line or the configuration is wrong. (clap ends with the same for the former.)
const EXIT_USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    name = "sheave",
    version,
    about = "A layer-4 load balancer: one pinned io_uring worker per core",
    long_about = "Sheave accepts TCP connections and spreads them over endpoints.\n\n\
        Try it without any set-up:    sheave demo\n\
        Write a configuration:        see config/full.yaml, or `sheave schema` for your editor\n\
        Find every mistake in it:     sheave check sheave.yaml\n\
        Carry traffic:                sheave run --config sheave.yaml\n\
        Watch it do so:               sheave top",
    after_help = "Exit codes: 0 done (also after a drain), 1 failure at run time, 2 bad usage or configuration.\n\
        Signals of `run`: SIGTERM or SIGINT drains and ends (a second one ends it now), SIGHUP reloads.\n\
        Logs go to standard error, the access log to standard output.",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Carry traffic as a configuration file says; the file is watched and reloaded.
    Run(RunArgs),
    /// Say everything that is wrong with a configuration file, and with certificates in files; exit code 2 if anything is.
    Check {
        /// The file.
        file: PathBuf,
        /// Read no certificates: their files are elsewhere.
        #[arg(long)]
        without_certificates: bool,
    },
    /// Show what a running Sheave does, in this terminal; with --once as tables for scripts.
    Top(TopArgs),
    /// Show Sheave at work on this machine: three echo endpoints, traffic, one endpoint going and coming back.
    Demo(DemoArgs),
    /// Print the JSON Schema of the configuration, for editors and for CI.
    Schema,
}

#[derive(Args)]
struct RunArgs {
    /// The configuration file (YAML).
    #[arg(long, short, env = "SHEAVE_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// The zone that this process runs in; `kubernetes.zone` of the file wins.
    #[arg(long, env = "SHEAVE_ZONE", value_name = "NAME", hide_env_values = true)]
    zone: Option<String>,
    /// The Kubernetes node that it runs on.
    #[arg(long, env = "SHEAVE_NODE_NAME", value_name = "NAME", hide_env_values = true)]
    node_name: Option<String>,
    /// For tests: listeners may have port 0.
    #[arg(long, env = "SHEAVE_ALLOW_PORT_ZERO", hide = true)]
    allow_port_zero: bool,
}

#[derive(Args)]
struct DemoArgs {
    /// End after this many seconds; 0 runs until Ctrl-C.
    #[arg(long, env = "SHEAVE_SECONDS", value_name = "SECONDS", default_value_t = 0)]
    seconds: u64,
}

#[derive(Args)]
struct TopArgs {
    /// The admin port of the process, which its admin.address says.
    #[arg(long, env = "SHEAVE_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:9901", value_parser = admin)]
    admin: SocketAddr,
    /// The time between two readings; what rates are of.
    #[arg(long, env = "SHEAVE_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// What to begin with; for --once, what to print alone.
    #[arg(long, env = "SHEAVE_VIEW", value_name = "VIEW",
        value_parser = PossibleValuesParser::new(View::ALL.map(View::label)))]
    view: Option<String>,
    /// Print tables and end: read twice, an interval apart.
    #[arg(long)]
    once: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Check { file, without_certificates } => check(&file, !without_certificates),
        Command::Top(args) => top(&args),
        Command::Demo(args) => demo(&args),
        Command::Schema => schema(),
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let name = |name: &Option<String>| name.as_deref().map(Into::into);
    let location = Location { zone: name(&args.zone), node: name(&args.node_name) };
    let options = ParseOptions { allow_port_zero: args.allow_port_zero, location };
    let config = match load(&args.config, &options) {
        Ok(config) => config,
        Err(errors) => return complain(&errors, EXIT_USAGE),
    };
    let guard = logging::start(&config.log);
    let file = args.config.clone();
    let instance = Instance::start(Options {
        config,
        load: Box::new(move || load(&file, &options)),
        config_file: Some(args.config.clone()),
        handle_signals: true,
        access_log: Box::new(std::io::stdout()),
        log: guard.level(),
    });
    let instance = match instance {
        Ok(instance) => instance,
        Err(StartError::Certificates(errors)) => return complain(&errors, EXIT_USAGE),
        Err(error) => return complain(&format!("sheave: {error}"), EXIT_FAILURE),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %args.config.display(), "serving");
    match instance.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn load(file: &Path, options: &ParseOptions) -> Result<Config, String> {
    Config::load_with(file, options).map_err(|errors| errors.to_string())
}

fn check(file: &Path, with_certificates: bool) -> ExitCode {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(errors) => return complain(&errors.to_string(), EXIT_USAGE),
    };
    let mut credentials = Credentials::default();
    if with_certificates && let Err(errors) = credentials.read_new(&config, SystemTime::now()) {
        let in_file = |error: &str| format!("{}: {error}", file.display());
        return complain(&errors.lines().map(in_file).collect::<Vec<_>>().join("\n"), EXIT_USAGE);
    }
    let problems = credentials.reports().filter_map(|report| report.problem);
    let problems = problems.map(|problem| problem.text.to_string());
    for text in problems.chain(credentials.nameless(&config).into_values()) {
        let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "{}: warning: {text}", file.display());
    }
    print(&format!(
        "{}: good: {} listeners, {} routes, {} upstreams\n",
        file.display(),
        config.listeners.len(),
        config.routes.len(),
        config.upstreams.len()
    ))
}

fn top(args: &TopArgs) -> ExitCode {
    let named = |name: &String| View::ALL.into_iter().find(|view| view.label() == name);
    let options = top::Options {
        admin: args.admin,
        interval: args.interval,
        view: args.view.as_ref().and_then(named),
        // https://no-color.org
        colours: std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
    };
    if args.once {
        return match top::once(&options) {
            Ok(tables) => print(&tables),
            Err(error) => complain(&format!("sheave top: {error}"), EXIT_FAILURE),
        };
    }
    if !std::io::stdout().is_terminal() {
        return complain("sheave top: standard output is no terminal; --once prints tables", EXIT_USAGE);
    }
    match top::watch(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("sheave top: {error}"), EXIT_FAILURE),
    }
}

/// An address as `admin.address` has it, or of this host by its name.
fn admin(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    match local {
        Some(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        None => text.parse().map_err(|_| {
            "write an IP address and a port, such as 127.0.0.1:9901, 10.0.0.7:9901 or [::1]:9901".to_owned()
        }),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match config::parse_duration(text)? {
        interval if (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&interval) => {
            Ok(interval)
        }
        _ => Err("write a time from 100ms to 1h".to_owned()),
    }
}

fn demo(args: &DemoArgs) -> ExitCode {
    match app::demo(args.seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("sheave demo: {error}"), EXIT_FAILURE),
    }
}

fn schema() -> ExitCode {
    match serde_json::to_string_pretty(&config::schema()) {
        Ok(schema) => print(&format!("{schema}\n")),
        Err(error) => complain(&error.to_string(), EXIT_FAILURE),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader (`sheave schema | head`) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&format!("standard output cannot be written: {error}"), EXIT_FAILURE),
    }
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "{}", text.trim_end());
    ExitCode::from(code)
}
