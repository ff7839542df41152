//! A Rust file as tokens: comments and literals are gone, lines are kept.
//!
//! No parser: tokens, matching braces and paths are all that the rules need.

use std::ops::RangeInclusive;

pub(super) struct Source {
    /// From the root of the repository, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) tokens: Vec<Token>,
    test_regions: Vec<RangeInclusive<usize>>,
    inline_modules: Vec<RangeInclusive<usize>>,
}

/// An identifier or number, `::`, or one punctuation character.
pub(super) struct Token {
    pub(super) text: String,
    /// From 1.
    pub(super) line: usize,
}

pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) line: usize,
    /// From the line with `fn` to the closing brace.
    pub(super) lines: usize,
}

/// `a::b::c` as written, or one leaf of a `use a::{b, c::d}` tree.
pub(super) struct NamePath<'a> {
    pub(super) line: usize,
    pub(super) segments: Vec<&'a str>,
    pub(super) imported: bool,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let tokens = tokens(&blank(text));
        let test_regions = test_regions(&tokens);
        let inline_modules = inline_modules(&tokens);
        Self { path: path.to_owned(), text: text.to_owned(), tokens, test_regions, inline_modules }
    }

    /// Whether this line is compiled for tests only.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.test_regions.iter().any(|region| region.contains(&line))
    }

    /// How many `mod name { ... }` of this file enclose the line.
    pub(super) fn inline_depth(&self, line: usize) -> usize {
        self.inline_modules.iter().filter(|region| region.contains(&line)).count()
    }

    pub(super) fn functions(&self) -> Vec<Function<'_>> {
        let mut functions = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let Some(name) = self.tokens.get(at + 1) else {
                break;
            };
            if token.text == "fn"
                && is_identifier(&name.text)
                && let Some(end) = block_end(&self.tokens, at + 2)
            {
                let lines = self.tokens[end].line - token.line + 1;
                functions.push(Function { name: &name.text, line: token.line, lines });
            }
        }
        functions
    }

    pub(super) fn paths(&self) -> Vec<NamePath<'_>> {
        let mut paths = Vec::new();
        let mut at = 0;
        while let Some(token) = self.tokens.get(at) {
            let before = at.checked_sub(1).map(|before| self.tokens[before].text.as_str());
            if is_identifier(&token.text) && !matches!(before, Some("." | "'")) {
                let imported = before == Some("use");
                at = path_tree(&self.tokens, at, &[], imported, &mut paths);
            } else {
                at += 1;
            }
        }
        paths
    }
}

/// Reads the path, or the tree of paths, that starts at `at`; returns the first token after it.
fn path_tree<'a>(
    tokens: &'a [Token],
    at: usize,
    prefix: &[&'a str],
    imported: bool,
    paths: &mut Vec<NamePath<'a>>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut segments = prefix.to_vec();
    let line = tokens[at].line;
    let mut at = at;
    loop {
        if text(at) == "{" {
            at += 1;
            while !matches!(text(at), "}" | "") {
                if text(at) == "as" {
                    at += 2;
                    continue;
                }
                let starts_path = is_identifier(text(at)) || matches!(text(at), "*" | "{");
                at = if starts_path { path_tree(tokens, at, &segments, imported, paths) } else { at + 1 };
            }
            return at + 1;
        }
        segments.push(text(at));
        at += 1;
        let goes_on = text(at) == "::" && (is_identifier(text(at + 1)) || matches!(text(at + 1), "{" | "*"));
        if !goes_on {
            break;
        }
        at += 1;
    }
    paths.push(NamePath { line, segments, imported });
    at
}

pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// The token that closes the first `{` from `at` on; none when a `;` ends the item first.
fn block_end(tokens: &[Token], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut open = at;
    loop {
        match tokens.get(open)?.text.as_str() {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.checked_sub(1)?,
            "{" if depth == 0 => break,
            ";" if depth == 0 => return None,
            _ => {}
        }
        open += 1;
    }
    let mut braces = 0_usize;
    for (offset, token) in tokens[open..].iter().enumerate() {
        match token.text.as_str() {
            "{" => braces += 1,
            "}" => braces -= 1,
            _ => {}
        }
        if braces == 0 {
            return Some(open + offset);
        }
    }
    None
}

fn test_regions(tokens: &[Token]) -> Vec<RangeInclusive<usize>> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let starts = tokens.windows(ATTRIBUTE.len()).enumerate();
    starts
        .filter(|(_, window)| window.iter().zip(ATTRIBUTE).all(|(token, text)| token.text == text))
        .filter_map(|(at, _)| {
            let end = block_end(tokens, at + ATTRIBUTE.len())?;
            Some(tokens[at].line..=tokens[end].line)
        })
        .collect()
}

fn inline_modules(tokens: &[Token]) -> Vec<RangeInclusive<usize>> {
    let starts = tokens.iter().enumerate().filter(|(_, token)| token.text == "mod");
    starts.filter_map(|(at, token)| Some(token.line..=tokens[block_end(tokens, at + 1)?].line)).collect()
}

fn tokens(code: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (index, text) in code.lines().enumerate() {
        let line = index + 1;
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token { text: rest[..length].to_owned(), line });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// The text with every comment and literal replaced by spaces; line breaks stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        match opaque_end(&chars, at) {
            Some(end) => {
                let end = end.min(chars.len());
                code.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                code.push(chars[at]);
                at += 1;
            }
        }
    }
    code
}

/// Where the comment or literal that starts at `at` ends; none when code starts there.
fn opaque_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some(find(chars, at, &['\n'])),
        '/' if next == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(string_end(chars, at)),
        'r' => raw_string_end(chars, at),
        '\'' if next == Some('\\') => Some(find(chars, at + 3, &['\'']) + 1),
        '\'' if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

fn find(chars: &[char], from: usize, pattern: &[char]) -> usize {
    let rest = chars.get(from..).unwrap_or_default();
    rest.windows(pattern.len())
        .position(|window| window == pattern)
        .map_or(chars.len(), |offset| from + offset)
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = at;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(chars: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// No identifier may touch a quote since edition 2021, so an `r` before `#*"` starts a raw string.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    let quote = at + 1 + hashes;
    if chars.get(quote) != Some(&'"') {
        return None;
    }
    let mut closing = vec!['"'];
    closing.extend(vec!['#'; hashes]);
    Some(find(chars, quote + 1, &closing) + closing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Source::new("src/a.rs", text).tokens.into_iter().map(|token| token.text).collect()
    }

    fn paths(text: &str) -> Vec<String> {
        Source::new("src/a.rs", text).paths().iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_no_tokens() {
        let text = r###"a // b "c
            /* d /* e */ f */ g "h \" } i" r#"j " k"# b"l" r"m\" b'{' '\'' '"' '\u{7b}' n"###;
        assert_eq!(words(text), ["a", "g", "b", "b", "n"]);
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(
            words("<'a> r#type 'x: loop"),
            ["<", "'", "a", ">", "r", "#", "type", "'", "x", ":", "loop"]
        );
    }

    #[test]
    fn an_unfinished_literal_ends_with_the_file() {
        for text in ["\"a", "\"a\\", "r#\"a", "/* a", "'\\", "r"] {
            Source::new("src/a.rs", text);
        }
    }

    #[test]
    fn a_token_knows_its_line() {
        let source = Source::new("src/a.rs", "\"1\n2\"\nx");
        assert_eq!(source.tokens[0].line, 3);
    }

    #[test]
    fn a_function_ends_at_its_own_brace() {
        let text = "fn a(x: [u8; 2]) -> u8\nwhere\n    u8: Copy,\n{\n    if x { '}' }\n}\nfn b();\ntype F = fn(u8);\n";
        let source = Source::new("src/a.rs", text);
        let functions: Vec<_> = source.functions().iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(functions, [("a", 1, 6)]);
    }

    #[test]
    fn paths_are_read_from_code_and_from_use_trees() {
        assert_eq!(paths("crate::a::b(c.d::<e>())"), ["crate::a::b", "c", "e"]);
        assert_eq!(
            paths("use crate::{a::{b, c::*}, d as e};"),
            ["use", "crate::a::b", "crate::a::c::*", "crate::d"]
        );
        assert_eq!(paths("::tokio::spawn"), ["tokio::spawn"]);
    }

    #[test]
    fn test_regions_are_known() {
        let source = Source::new(
            "src/a.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod t {\n}\nfn b() {}\n",
        );
        let lines: Vec<usize> = (1..=7).filter(|&line| source.is_test(line)).collect();
        assert_eq!(lines, [4, 5, 6]);
        assert_eq!(source.inline_depth(5), 1);
        assert!(Source::new("src/a/tests.rs", "").is_test(1));
    }
}
