//! One word for one thing: what types and modules of `src/` are not called.
//!
//! The list holds only words that no honest name here needs: a buffer pool, a host name and a client hello stay legal.

use super::Violation;
use super::source::{Source, is_identifier};

struct Word {
    banned: &'static str,
    say: &'static str,
    /// In these top-level modules; empty: everywhere in `src/`.
    modules: &'static [&'static str],
}

/// Where a connection is carried; elsewhere (TLS, the admin port, Kubernetes) some words are other people's terms.
const DATA_PATH: &[&str] = &["routing", "balance", "resilience", "worker", "connection"];

const WORDS: &[Word] = &[
    Word { banned: "Session", say: "Connection", modules: &[] },
    Word { banned: "Flow", say: "Connection", modules: &[] },
    Word {
        banned: "Backend",
        say: "Upstream or Endpoint (only BackendRef, the configuration's field)",
        modules: &[],
    },
    Word { banned: "Frontend", say: "Listener", modules: &[] },
    Word { banned: "Entrypoint", say: "Listener", modules: &[] },
    Word { banned: "Inbound", say: "downstream", modules: &[] },
    Word { banned: "Outbound", say: "upstream", modules: &[] },
    Word { banned: "Shard", say: "Worker", modules: &[] },
    Word { banned: "Executor", say: "Worker", modules: &[] },
    Word {
        banned: "Server",
        say: "Listener (where we accept) or Endpoint (where we connect)",
        modules: DATA_PATH,
    },
    Word { banned: "Cluster", say: "Upstream (a cluster is the Kubernetes one)", modules: DATA_PATH },
    Word { banned: "Host", say: "Endpoint", modules: DATA_PATH },
    Word { banned: "Peer", say: "Endpoint, or the side: downstream, upstream", modules: DATA_PATH },
    Word { banned: "Target", say: "Endpoint", modules: DATA_PATH },
    Word { banned: "Rule", say: "Route", modules: DATA_PATH },
    Word { banned: "Mapping", say: "Route", modules: &["routing"] },
    Word { banned: "Ping", say: "Probe", modules: &["control", "resilience"] },
    Word { banned: "Monitor", say: "Probe", modules: &["control", "resilience"] },
];

pub(super) fn declared_names(source: &Source) -> Vec<Violation> {
    let Some(below_src) = source.path.strip_prefix("src/") else {
        return Vec::new();
    };
    let module = below_src.split(['/', '.']).next().unwrap_or_default();
    let file = below_src.trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
    let mut names = vec![(1, file)];
    for pair in source.tokens.windows(2) {
        let declares = matches!(pair[0].text.as_str(), "struct" | "enum" | "trait" | "type" | "mod");
        if declares && is_identifier(&pair[1].text) {
            names.push((pair[1].line, &pair[1].text));
        }
    }
    let mut violations = Vec::new();
    for (line, name) in names {
        let parts = parts(name);
        for word in WORDS.iter().filter(|word| word.modules.is_empty() || word.modules.contains(&module)) {
            if uses(&parts, word.banned) {
                let why = format!("`{name}`: never say {}, say {}", word.banned, word.say);
                violations.push(Violation::new(source, line, "word", why));
            }
        }
    }
    violations
}

/// `BackendRef` and `backend_refs` come from the Gateway API and stay.
fn uses(parts: &[String], banned: &str) -> bool {
    let is_reference = |next: Option<&String>| next.is_some_and(|next| next == "ref" || next == "refs");
    let one = banned.to_ascii_lowercase();
    let many = format!("{one}s");
    parts
        .iter()
        .enumerate()
        .any(|(at, part)| (*part == one || *part == many) && !is_reference(parts.get(at + 1)))
}

/// `RouteTable` and `route_table` are both `route`, `table`.
fn parts(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    for c in name.chars() {
        if (c.is_ascii_uppercase() || c == '_') && parts.last().is_some_and(|part| !part.is_empty()) {
            parts.push(String::new());
        }
        if c != '_'
            && let Some(part) = parts.last_mut()
        {
            part.push(c.to_ascii_lowercase());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::lines_of;
    use super::*;

    #[test]
    fn banned_words_are_found_in_types_and_modules() {
        for name in
            ["struct TcpSession", "enum Flows {", "type Backend = u8", "mod outbound", "trait EndpointServer"]
        {
            assert_eq!(lines_of(declared_names, "src/worker/a.rs", &format!("\npub {name};")), [2], "{name}");
        }
        assert_eq!(lines_of(declared_names, "src/connection/session.rs", ""), [1]);
        assert_eq!(lines_of(declared_names, "src/sessions.rs", ""), [1]);
    }

    #[test]
    fn honest_names_stay() {
        for name in ["BackendRef", "Workflow", "BufferPool", "PipePool", "Overflow", "Hostname", "Observer"] {
            assert_eq!(
                lines_of(declared_names, "src/worker/a.rs", &format!("struct {name};")),
                [0_usize; 0],
                "{name}"
            );
        }
        assert_eq!(lines_of(declared_names, "src/tls/a.rs", "struct ServerConfigs;"), [0_usize; 0]);
        assert_eq!(lines_of(declared_names, "src/worker/a.rs", "fn a(server: Server) {}"), [0_usize; 0]);
        assert_eq!(lines_of(declared_names, "tests/integration/a.rs", "struct EchoServer;"), [0_usize; 0]);
    }
}
