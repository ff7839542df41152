//! What the Prometheus operator adds to the API: as much of it as the chart uses, for as long as the test runs.

use std::io::Write;
use std::path::Path;

use crate::support::{Release, run, say, try_run};

const KINDS: [&str; 3] = ["servicemonitors", "podmonitors", "prometheusrules"];

/// Those that were not there before; gone with the value.
pub(super) struct Definitions(Vec<String>);

impl Definitions {
    /// From this folder.
    pub(super) fn create(folder: &Path) -> Self {
        let mut created = Self(Vec::new());
        for kind in KINDS {
            let name = format!("{kind}.monitoring.coreos.com");
            if try_run("kubectl", &["get", "crd", &name]).is_err() {
                let file = folder.join(format!("monitoring.coreos.com_{kind}.yaml"));
                run("kubectl", &["create", "-f", file.to_str().unwrap()]);
                created.0.push(name.clone());
            }
            run("kubectl", &["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{name}")]);
        }
        created
    }

    /// All objects of the release are as the API has them, without a field that it does not know.
    pub(super) fn accept(&self, release: &Release<'_>) {
        let namespace = release.namespace.name.as_str();
        let manifest = run("helm", &["get", "manifest", &release.name, "--namespace", namespace]);
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        file.as_file().write_all(manifest.as_bytes()).unwrap();
        let file = file.path().to_str().unwrap();
        let accepted = run(
            "kubectl",
            &["apply", "--dry-run=server", "--validate=strict", "--namespace", namespace, "-f", file],
        );
        for kind in KINDS {
            let kind = kind.trim_end_matches('s');
            assert!(accepted.contains(&format!("{kind}.monitoring.coreos.com/")), "{kind} in {accepted}");
        }
    }
}

impl Drop for Definitions {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = try_run("kubectl", &["delete", "crd", name, "--timeout=60s"]) {
                say!("{name} stays behind: {error}");
            }
        }
    }
}
