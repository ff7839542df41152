//! Who may name whom: between our own modules, and which module may name which crate.

use super::Violation;
use super::source::{NamePath, Source};

/// `from` may name only `to` among the top-level modules (and itself).
struct Arrow {
    from: &'static str,
    to: &'static [&'static str],
}

/// `control` and `worker` never name each other: they meet in `routing::publish`, `telemetry` and `shutdown`.
const ARROWS: &[Arrow] = &[
    Arrow { from: "main", to: &["app", "cli"] },
    // `sheave check` loads certificates.
    Arrow { from: "cli", to: &["app", "config", "telemetry", "tls", "top", "shutdown"] },
    // Another process than the one it shows: it knows the words of its metrics, and otherwise the admin port.
    Arrow { from: "top", to: &["telemetry", "faults"] },
    // It makes what worker and control share.
    Arrow {
        from: "app",
        to: &["worker", "control", "config", "routing", "resilience", "telemetry", "tls", "shutdown"],
    },
    Arrow {
        from: "worker",
        to: &["connection", "balance", "resilience", "routing", "tls", "telemetry", "shutdown", "faults"],
    },
    Arrow {
        from: "connection",
        to: &["balance", "proxy_protocol", "resilience", "routing", "tls", "telemetry", "shutdown", "faults"],
    },
    Arrow {
        from: "control",
        to: &["config", "proxy_protocol", "routing", "resilience", "tls", "telemetry", "shutdown", "faults"],
    },
    // The model and the choice are one pure whole: a route keeps its schedule, a choice reads endpoints.
    // What a table's handshakes go by is made with it, of values: no file is read there.
    Arrow { from: "routing", to: &["balance", "resilience", "tls"] },
    Arrow { from: "balance", to: &["routing"] },
    // Headers as bytes, for connections and for probes.
    Arrow { from: "proxy_protocol", to: &[] },
    Arrow { from: "resilience", to: &[] },
    Arrow { from: "tls", to: &["faults"] },
    Arrow { from: "telemetry", to: &["routing", "shutdown"] },
    Arrow { from: "config", to: &[] },
    // Compiled for tests only.
    Arrow { from: "faults", to: &[] },
    Arrow { from: "shutdown", to: &[] },
];

/// Those who may name the checked values of `config` (its types), but not what reads and decodes them.
const READ_CONFIG_VALUES: &[&str] =
    &["worker", "connection", "routing", "balance", "proxy_protocol", "resilience", "tls", "telemetry"];

/// Outside `only` nobody names these crates (`name` also covers `name_*`).
struct Crate {
    names: &'static [&'static str],
    only: &'static [&'static str],
    why: &'static str,
}

const CRATES: &[Crate] = &[
    Crate {
        names: &["compio", "io_uring"],
        only: &["src/worker", "src/connection", "src/tls/stream"],
        why: "the io_uring runtime stays on the workers, so that a new version touches few files",
    },
    Crate {
        names: &["tokio", "hyper", "tower", "axum", "tonic"],
        only: &["src/control", "src/telemetry/otlp"],
        why: "tokio lives on the control thread only: a worker that polled it would stall its connections",
    },
    Crate {
        names: &["opentelemetry", "prost"],
        only: &["src/telemetry/otlp"],
        why: "spans are made of records in one place; everybody else writes to the record",
    },
    Crate {
        names: &["kube", "k8s_openapi", "notify"],
        only: &["src/control"],
        why: "what is watched is the control thread's business; others see the RouteTable",
    },
    Crate {
        names: &["socket2"],
        only: &["src/worker", "src/connection", "src/app"],
        why: "sockets belong to the data path and to the composition root",
    },
    Crate {
        names: &["rustix::net", "rustix::pipe"],
        only: &["src/worker", "src/connection", "src/app"],
        why: "sockets and pipes belong to the data path and to the composition root",
    },
    Crate {
        names: &["proxy_header"],
        only: &["src/proxy_protocol"],
        why: "its parser is lenient: the bounds and the checks around it are in one place",
    },
    Crate {
        names: &["clap"],
        only: &["src/cli", "src/main.rs"],
        why: "arguments are parsed once, at the edge",
    },
    Crate {
        names: &["ratatui", "signal_hook"],
        only: &["src/top"],
        why: "a terminal is what `sheave top` has; the process that carries traffic has none",
    },
    Crate {
        names: &["serde_yaml"],
        only: &["src/config", "src/cli"],
        why: "YAML becomes typed values in config, nowhere else",
    },
];

/// The model, the choice and the policies can be tested without a machine around them.
const PURE: &[&str] = &["routing", "balance", "proxy_protocol", "resilience"];

/// Paths (or their ends) that do I/O or read a clock.
const IMPURE: &[(&[&str], &str)] = &[
    (&["std", "fs"], "no I/O here: take the bytes as an argument"),
    (&["std", "process"], "no I/O here"),
    (&["TcpStream"], "no sockets here"),
    (&["UdpSocket"], "no sockets here"),
    // `routing::publish` carries listeners that others bound.
    (&["TcpListener", "bind"], "no sockets are opened here"),
    (&["Instant", "now"], "take the time as an argument, so that tests own the clock"),
    (&["SystemTime", "now"], "take the time as an argument, so that tests own the clock"),
    (&["Instant", "elapsed"], "take the time as an argument, so that tests own the clock"),
    (&["Rng", "new"], "take the generator as an argument, so that tests own the dice"),
    (&["thread_rng"], "take the generator as an argument, so that tests own the dice"),
];

pub(super) fn modules(source: &Source) -> Vec<Violation> {
    let Some(from) = top_module(&source.path) else {
        return Vec::new();
    };
    if from == "lib" {
        return Vec::new();
    }
    let Some(arrow) = ARROWS.iter().find(|arrow| arrow.from == from) else {
        let why = format!(
            "`{from}` is a new top-level module: say in tests/integration/tidy/arrows.rs whom it may name"
        );
        return vec![Violation::new(source, 1, "arrow", why)];
    };
    let mut violations = Vec::new();
    for path in source.paths() {
        let Some(to) = named_module(source, from, &path) else {
            continue;
        };
        let is_value = to == "config" && READ_CONFIG_VALUES.contains(&from) && ends_in_type(&path);
        // Connections live on their worker's runtime, and know nothing else of the worker.
        let is_runtime =
            from == "connection" && path.segments.windows(2).any(|pair| pair == ["worker", "runtime"]);
        if to == from
            || arrow.to.contains(&to)
            || is_value
            || is_runtime
            || !ARROWS.iter().any(|arrow| arrow.from == to)
        {
            continue;
        }
        let allowed = if arrow.to.is_empty() { "nobody".to_owned() } else { arrow.to.join(", ") };
        let why = format!(
            "`{from}` names `{to}`, but may name {allowed}: see \"who may name whom\" in CONTRIBUTING.md"
        );
        violations.push(Violation::new(source, path.line, "arrow", why));
    }
    violations
}

pub(super) fn crates(source: &Source) -> Vec<Violation> {
    let Some(from) = top_module(&source.path) else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    for path in source.paths() {
        for guarded in CRATES {
            let Some(name) = guarded.names.iter().find(|name| names_crate(&path, name)) else {
                continue;
            };
            if guarded.only.iter().any(|only| is_below(&source.path, only)) {
                continue;
            }
            let why = format!(
                "`{from}` names `{name}`, which stays in {}: {}",
                guarded.only.join(", "),
                guarded.why
            );
            violations.push(Violation::new(source, path.line, "crate", why));
        }
    }
    violations
}

pub(super) fn pure_modules(source: &Source) -> Vec<Violation> {
    let is_pure = top_module(&source.path).is_some_and(|module| PURE.contains(&module));
    if !is_pure {
        return Vec::new();
    }
    let mut violations = Vec::new();
    for path in source.paths().iter().filter(|path| !source.is_test(path.line)) {
        let impure = IMPURE.iter().find(|(end, _)| path.segments.windows(end.len()).any(|part| part == *end));
        let dice = path.segments[0] == "fastrand" && path.segments.get(1).is_some_and(|name| *name != "Rng");
        let why = impure
            .map(|(_, why)| *why)
            .or_else(|| dice.then_some("take the generator as an argument: &mut fastrand::Rng"));
        if let Some(why) = why {
            let why = format!("`{}` in a pure module: {why}", path.segments.join("::"));
            violations.push(Violation::new(source, path.line, "pure", why));
        }
    }
    let elapsed = source.tokens.windows(2).filter(|pair| pair[0].text == "." && pair[1].text == "elapsed");
    for pair in elapsed.filter(|pair| !source.is_test(pair[1].line)) {
        let why = "`.elapsed()` in a pure module reads the clock: take the time as an argument";
        violations.push(Violation::new(source, pair[1].line, "pure", why));
    }
    violations
}

/// `worker` for `src/worker.rs` and for all below `src/worker/`; none outside `src/`.
fn top_module(path: &str) -> Option<&str> {
    path.strip_prefix("src/")?.split(['/', '.']).next()
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
}

/// The top-level module of ours that a path starts from, however it gets there.
fn named_module<'a>(source: &Source, from: &str, path: &NamePath<'a>) -> Option<&'a str> {
    let climbs = path.segments.iter().take_while(|segment| **segment == "super").count();
    let root = match path.segments[0] {
        "crate" => 1,
        "sheave" if from == "main" => 1,
        "super" => climbs,
        _ => return None,
    };
    let depth = source.path.matches('/').count() + source.inline_depth(path.line);
    let reaches_root = climbs == 0 || climbs >= depth;
    path.segments.get(root).copied().filter(|_| reaches_root)
}

/// `crate::config::Driver` and `crate::config::{self}`, not `crate::config::load`.
fn ends_in_type(path: &NamePath<'_>) -> bool {
    let below = path.segments.iter().skip_while(|segment| **segment != "config").nth(1);
    below.is_some_and(|name| *name == "self" || name.starts_with(|c: char| c.is_ascii_uppercase()))
}

fn names_crate(path: &NamePath<'_>, name: &str) -> bool {
    let wanted: Vec<&str> = name.split("::").collect();
    let head = path.segments[0];
    let same_crate =
        head == wanted[0] || head.strip_prefix(wanted[0]).is_some_and(|rest| rest.starts_with('_'));
    // A single segment is a crate only in `use tokio;`: elsewhere it is a variable of that name.
    same_crate
        && (path.segments.len() > 1 || path.imported)
        && wanted[1..].iter().zip(&path.segments[1..]).all(|(wanted, segment)| wanted == segment)
        && path.segments.len() >= wanted.len()
}

#[cfg(test)]
mod tests {
    use super::super::lines_of;
    use super::*;

    #[test]
    fn control_and_worker_never_name_each_other() {
        assert_eq!(lines_of(modules, "src/control/watch.rs", "\nuse crate::worker::Worker;"), [2]);
        assert_eq!(lines_of(modules, "src/worker.rs", "fn a() { crate::control::run() }"), [1]);
        assert_eq!(lines_of(modules, "src/worker.rs", "use crate::{routing::{Table}, control};"), [1]);
        assert_eq!(lines_of(modules, "src/worker/accept.rs", "use super::super::control::X;"), [1]);
        assert_eq!(lines_of(modules, "src/worker.rs", "mod t {\n use super::super::control::X;\n}"), [2]);
    }

    #[test]
    fn allowed_arrows_and_own_children_pass() {
        assert_eq!(
            lines_of(modules, "src/worker/accept.rs", "use crate::connection; use crate::worker::A;"),
            [0_usize; 0]
        );
        assert_eq!(lines_of(modules, "src/worker/accept.rs", "use super::control::Valve;"), [0_usize; 0]);
        assert_eq!(lines_of(modules, "src/worker.rs", "mod t { use super::control; }"), [0_usize; 0]);
        assert_eq!(lines_of(modules, "src/control/reload.rs", "use crate::config::load;"), [0_usize; 0]);
        assert_eq!(lines_of(modules, "src/lib.rs", "pub use crate::worker::A;"), [0_usize; 0]);
    }

    #[test]
    fn leaves_name_nobody() {
        assert_eq!(lines_of(modules, "src/config/listener.rs", "use crate::routing::Table;"), [1]);
        assert_eq!(lines_of(modules, "src/shutdown.rs", "use crate::{config, app};"), [1, 1]);
        assert_eq!(lines_of(modules, "src/main.rs", "fn main() { sheave::worker::run() }"), [1]);
    }

    #[test]
    fn the_values_of_the_configuration_are_for_all_its_reader_is_not() {
        assert_eq!(
            lines_of(modules, "src/routing/compile.rs", "use crate::config::{self, Config};"),
            [0_usize; 0]
        );
        assert_eq!(lines_of(modules, "src/worker.rs", "fn a(b: crate::config::Driver) {}"), [0_usize; 0]);
        assert_eq!(lines_of(modules, "src/worker.rs", "crate::config::load(path)"), [1]);
        assert_eq!(lines_of(modules, "src/routing/table.rs", "use crate::config::raw::Listener;"), [1]);
    }

    #[test]
    fn a_new_top_level_module_needs_an_arrow() {
        assert_eq!(lines_of(modules, "src/utils.rs", ""), [1]);
    }

    #[test]
    fn crates_stay_where_they_belong() {
        assert_eq!(lines_of(crates, "src/control.rs", "use compio_net::TcpStream;"), [1]);
        assert_eq!(lines_of(crates, "src/worker.rs", "tokio::spawn(a)"), [1]);
        assert_eq!(lines_of(crates, "src/app.rs", "use tokio;"), [1]);
        assert_eq!(lines_of(crates, "src/config.rs", "use notify::Watcher;"), [1]);
        assert_eq!(lines_of(crates, "src/control.rs", "use rustix::{fs, net::bind};"), [1]);
        assert_eq!(lines_of(crates, "src/tls/stream.rs", "use compio::io;"), [0_usize; 0]);
        assert_eq!(lines_of(crates, "src/tls/streams.rs", "use compio::io;"), [1]);
        assert_eq!(
            lines_of(crates, "src/worker.rs", "let notify = a; notify.wake(); b(tokio)"),
            [0_usize; 0]
        );
        assert_eq!(lines_of(crates, "tests/integration/a.rs", "use tokio::net;"), [0_usize; 0]);
    }

    #[test]
    fn pure_modules_read_no_clock_and_open_nothing() {
        assert_eq!(lines_of(pure_modules, "src/resilience/breaker.rs", "let a = Instant::now();"), [1]);
        assert_eq!(lines_of(pure_modules, "src/routing.rs", "use std::net::{IpAddr, TcpStream};"), [1]);
        assert_eq!(lines_of(pure_modules, "src/routing.rs", "let a = TcpListener::bind(b);"), [1]);
        assert_eq!(
            lines_of(pure_modules, "src/routing.rs", "struct A { socket: TcpListener }"),
            [0_usize; 0]
        );
        assert_eq!(lines_of(pure_modules, "src/routing.rs", "use std::{fs, sync::Arc};"), [1]);
        assert_eq!(lines_of(pure_modules, "src/balance.rs", "fastrand::u32(..)"), [1]);
        assert_eq!(lines_of(pure_modules, "src/balance.rs", "fn a(r: &mut fastrand::Rng) {}"), [0_usize; 0]);
        assert_eq!(
            lines_of(pure_modules, "src/balance.rs", "#[cfg(test)]\nmod t {\nlet a = Instant::now();\n}"),
            [0_usize; 0]
        );
        assert_eq!(lines_of(pure_modules, "src/worker.rs", "Instant::now()"), [0_usize; 0]);
    }
}
