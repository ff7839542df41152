//! Programs of others as clients, proxies and endpoints, each in a process of its own.

use std::process::{Child, Command, Stdio};

use super::process::Text;

/// Killed with its value.
pub(crate) struct Program {
    child: Child,
    /// What it has said, on either stream.
    pub(crate) said: [Text; 2],
    _directory: tempfile::TempDir,
}

impl Program {
    /// HAProxy with these sections after its `defaults`.
    pub(crate) fn haproxy(sections: &str) -> Self {
        let config = format!(
            "defaults\n  mode tcp\n  timeout connect 30s\n  timeout client 30s\n  timeout server 30s\n{sections}\n"
        );
        Self::start("haproxy", &[("haproxy.cfg", &config)], |command, directory| {
            command.arg("-db").arg("-f").arg(directory.join("haproxy.cfg"));
        })
    }

    /// nginx with these blocks beside `events`.
    pub(crate) fn nginx(blocks: &str) -> Self {
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; master_process off; pid nginx.pid;\n\
             error_log stderr;\nevents {{}}\n{blocks}\n"
        );
        Self::start("nginx", &[("nginx.conf", &config)], |command, directory| {
            command
                .arg("-e")
                .arg("stderr")
                .arg("-p")
                .arg(directory)
                .arg("-c")
                .arg(directory.join("nginx.conf"));
        })
    }

    /// Starts a program with these files in a directory of its own; `prepare` gets the command and the directory.
    pub(crate) fn start(
        program: &str,
        files: &[(&str, &str)],
        prepare: impl FnOnce(&mut Command, &std::path::Path),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let mut command = Command::new(program);
        // Debian keeps daemons in sbin, which is not on every PATH.
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command, directory.path());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{program}: {error}; scripts/setup installs what the tests need");
        });
        let said = [Text::of(child.stdout.take().unwrap()), Text::of(child.stderr.take().unwrap())];
        Self { child, said, _directory: directory }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.said.iter().for_each(|said| eprintln!("{}", said.get()));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
