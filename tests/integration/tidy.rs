//! The source tree holds its own rules: sizes, words, who may name whom, and habits.
//!
//! Each rule reads one file as tokens (`source`), knows nothing of the others and says file, line and why.
//! To change a rule, change its table (`arrows`, `words`, `habits`) and say why in the same commit.

use std::fmt;
use std::fs;
use std::path::Path;

mod arrows;
mod habits;
mod shape;
mod source;
mod words;

use source::Source;

/// Directories below the root whose Rust files are read, where they exist.
const DIRECTORIES: &[&str] = &["src", "tests", "benches", "examples"];

type Rule = fn(&Source) -> Vec<Violation>;

const RULES: &[Rule] = &[
    shape::file_length,
    shape::function_length,
    shape::module_file,
    shape::module_doc,
    words::declared_names,
    arrows::modules,
    arrows::crates,
    arrows::pure_modules,
    habits::unsafe_code,
    habits::sleeps_in_tests,
    habits::placeholders,
];

#[test]
fn the_source_tree_is_tidy() {
    let sources = read_tree(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(!sources.is_empty(), "no Rust file below {}", env!("CARGO_MANIFEST_DIR"));
    let mut violations: Vec<Violation> =
        sources.iter().flat_map(|source| RULES.iter().flat_map(|rule| rule(source))).collect();
    violations.extend(habits::unused_exceptions(&sources));
    let report: String = violations.iter().map(|violation| format!("\n{violation}")).collect();
    assert!(violations.is_empty(), "{} untidy places:{report}", violations.len());
}

/// A rule broken at one place.
struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    why: String,
}

impl Violation {
    fn new(source: &Source, line: usize, rule: &'static str, why: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, rule, why: why.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.why)
    }
}

fn read_tree(root: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    for directory in DIRECTORIES {
        read_directory(root, &root.join(directory), &mut sources);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn read_directory(root: &Path, directory: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("directory entry").path();
        if path.is_dir() {
            read_directory(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("source file is readable UTF-8");
            let name = path.strip_prefix(root).expect("path below the root").to_str().expect("UTF-8 path");
            sources.push(Source::new(name, &text));
        }
    }
}

/// What `rule` says about a file with this path and text: for the tests of the rules.
fn lines_of(rule: Rule, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).iter().map(|violation| violation.line).collect()
}

#[test]
fn a_violation_names_file_line_rule_and_reason() {
    let source = Source::new("src/worker/mod.rs", "//! Doc.\n");
    let violations = shape::module_file(&source);
    assert_eq!(
        violations[0].to_string(),
        "src/worker/mod.rs:1: module-file: a module is foo.rs beside foo/, so that every file has a name of its own"
    );
}
