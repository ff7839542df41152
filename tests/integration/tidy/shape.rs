//! Sizes and the head of a file.

use super::Violation;
use super::source::Source;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const MODULE_DOC_LINES_MAX: usize = 15;

pub(super) fn file_length(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    let why = format!(
        "{lines} lines, at most {FILE_LINES_MAX}: a file this long does more than one thing, split it"
    );
    vec![Violation::new(source, FILE_LINES_MAX + 1, "file-length", why)]
}

pub(super) fn function_length(source: &Source) -> Vec<Violation> {
    let long = source.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    long.map(|function| {
        let why = format!(
            "`{}` has {} lines, at most {FUNCTION_LINES_MAX}: give its steps names",
            function.name, function.lines
        );
        Violation::new(source, function.line, "function-length", why)
    })
    .collect()
}

pub(super) fn module_file(source: &Source) -> Vec<Violation> {
    if !source.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    let why = "a module is foo.rs beside foo/, so that every file has a name of its own";
    vec![Violation::new(source, 1, "module-file", why)]
}

pub(super) fn module_doc(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let lines = source.text.lines().take_while(|line| line.starts_with("//!")).count();
    let why = match lines {
        0 if source.is_test(1) => return Vec::new(),
        0 => "the first line is `//!`: say what this module is and what it never does".to_owned(),
        1..=MODULE_DOC_LINES_MAX => return Vec::new(),
        _ => {
            format!("{lines} lines of module doc, at most {MODULE_DOC_LINES_MAX}: longer reasons go to docs/")
        }
    };
    vec![Violation::new(source, lines.max(1), "module-doc", why)]
}

#[cfg(test)]
mod tests {
    use super::super::lines_of;
    use super::*;

    #[test]
    fn a_file_may_have_500_lines() {
        assert_eq!(lines_of(file_length, "tests/a.rs", &"\n".repeat(500)), [0_usize; 0]);
        assert_eq!(lines_of(file_length, "tests/a.rs", &"\n".repeat(501)), [501]);
    }

    #[test]
    fn a_function_may_have_70_lines() {
        let text = |inner: usize| format!("\npub async fn a() {{\n{}}}\n", "    b();\n".repeat(inner));
        assert_eq!(lines_of(function_length, "src/a.rs", &text(68)), [0_usize; 0]);
        assert_eq!(lines_of(function_length, "src/a.rs", &text(69)), [2]);
    }

    #[test]
    fn braces_in_literals_do_not_hide_a_long_function() {
        let text = format!("fn a() {{\n    b(\"}}\", '}}'); // }}\n{}}}\n", "    b();\n".repeat(70));
        assert_eq!(lines_of(function_length, "src/a.rs", &text), [1]);
    }

    #[test]
    fn no_mod_rs() {
        assert_eq!(lines_of(module_file, "tests/integration/support/mod.rs", ""), [1]);
        assert_eq!(lines_of(module_file, "src/model.rs", ""), [0_usize; 0]);
    }

    #[test]
    fn a_source_file_starts_with_a_short_doc() {
        assert_eq!(lines_of(module_doc, "src/a.rs", "//! What it is.\n"), [0_usize; 0]);
        assert_eq!(lines_of(module_doc, "src/a.rs", "use b;\n//! Late.\n"), [1]);
        assert_eq!(lines_of(module_doc, "src/a.rs", &"//! x\n".repeat(15)), [0_usize; 0]);
        assert_eq!(lines_of(module_doc, "src/a.rs", &"//! x\n".repeat(16)), [16]);
        assert_eq!(lines_of(module_doc, "src/a/tests.rs", "use super::*;\n"), [0_usize; 0]);
        assert_eq!(lines_of(module_doc, "tests/a.rs", ""), [0_usize; 0]);
    }
}
