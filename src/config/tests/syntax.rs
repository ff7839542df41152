//! What is not a tree of fields at all: one error, with its line.

use super::*;

#[test]
#[rustfmt::skip]
fn one_error_with_its_line() {
    check(&[
        (address("[::]:5432"), &[
            r#"t.yaml:3: not valid YAML: while parsing a block mapping, did not find expected key (column 18); write an address with brackets in quotes, like "[::]:5432""#,
        ]),
        (address(r#""[::]:5432"#), &[
            "t.yaml:3: not valid YAML: invalid indentation in quoted scalar (column 14); check the indentation, quotes and brackets here and just above",
        ]),
        (edit(r#"address: "[::]:5432""#, "\taddress: 1"), &[
            "t.yaml:2: not valid YAML: while scanning a plain scalar, found a tab (column 11); check the indentation, quotes and brackets here and just above",
        ]),
        (address("!!str a"), &[
            "t.yaml:3: tags like !!str are not supported; remove the tag, and write text in quotes",
        ]),
        (edit(r#"address: "[::]:5432""#, "<<: {a: 1}"), &[
            "t.yaml:3: merge keys (<<) are not supported; write the fields out",
        ]),
        (edit(r#"address: "[::]:5432""#, "[a]: 1"), &[
            "t.yaml:3: this key is not plain text; write a field's name",
        ]),
        (address("\"[::]:5432\"\n---"), &[
            "t.yaml:5: a second document starts here; write one document, without a further ---",
        ]),
        (address("*nowhere"), &[
            "t.yaml:3: not valid YAML: while parsing node, found unknown anchor (column 14); check the indentation, quotes and brackets here and just above",
        ]),
        (address("&a [*a]"), &[
            "t.yaml:3: this alias stands inside what it names; write the value out",
        ]),
    ]);
}
