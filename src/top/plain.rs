//! Sheets for scripts: aligned, one line a row, a title over each column and no colours.

use super::format::{plain, plain_title};
use super::sheet::{Row, Sheet};

/// Columns are two spaces apart and never change their order or number; only the last may have spaces in it.
pub(super) fn table(sheet: &Sheet, text: &mut String) {
    let titles: Vec<String> = sheet.columns.iter().map(plain_title).collect();
    let mut widths: Vec<usize> = titles.iter().map(|title| width(title)).collect();
    for row in &sheet.rows {
        for (at, cell) in cells(sheet, row).enumerate() {
            widths[at] = widths[at].max(width(&cell));
        }
    }
    line(sheet, &widths, titles.into_iter().map(Into::into), text);
    for row in &sheet.rows {
        line(sheet, &widths, cells(sheet, row), text);
    }
}

type Shown<'a> = std::borrow::Cow<'a, str>;

fn cells<'a>(sheet: &'a Sheet, row: &'a Row) -> impl Iterator<Item = Shown<'a>> {
    let last = sheet.columns.len().saturating_sub(1);
    let all = row.iter().zip(sheet.columns).enumerate();
    all.map(move |(at, (cell, column))| plain(&cell.value, column.unit, at == last))
}

fn line<'a>(sheet: &Sheet, widths: &[usize], cells: impl Iterator<Item = Shown<'a>>, text: &mut String) {
    let start = text.len();
    for (at, cell) in cells.enumerate() {
        let padding = " ".repeat(widths[at].saturating_sub(width(&cell)));
        if at > 0 {
            text.push_str("  ");
        }
        if sheet.columns[at].unit.is_number() {
            text.push_str(&padding);
            text.push_str(&cell);
        } else {
            text.push_str(&cell);
            text.push_str(&padding);
        }
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

fn width(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::sheet::{Column, Unit, column};
    use proptest::prelude::*;

    const COLUMNS: &[Column] =
        &[column("name", Unit::Text, 0), column("live", Unit::Count, 0), column("why", Unit::Text, 0)];

    fn sheet(rows: Vec<Row>) -> String {
        let mut text = String::new();
        table(&Sheet { columns: COLUMNS, rows, note: None }, &mut text);
        text
    }

    #[test]
    fn columns_stand_under_their_titles() {
        let rows = vec![
            vec!["pg".into(), 10_u64.into(), "all is well".into()],
            vec!["with space".into(), None::<u64>.into(), "".into()],
        ];
        let expected = "NAME        LIVE  WHY\npg            10  all is well\nwith_space     -  -\n";
        assert_eq!(sheet(rows), expected);
        assert_eq!(sheet(Vec::new()), "NAME  LIVE  WHY\n");
    }

    proptest! {
        #[test]
        fn every_row_is_one_line_of_fields(
            rows in prop::collection::vec((any::<String>(), any::<u32>(), any::<String>()), 0..10)
        ) {
            let row = |(name, live, why): &(String, u32, String)| -> Row {
                vec![name.as_str().into(), u64::from(*live).into(), why.as_str().into()]
            };
            let text = sheet(rows.iter().map(row).collect());
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
            prop_assert_eq!(text.lines().count(), rows.len() + 1);
            for (line, (_, live, _)) in text.lines().skip(1).zip(&rows) {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                prop_assert!(fields.len() >= 3, "{}", line);
                prop_assert_eq!(fields[1], live.to_string());
            }
        }
    }
}
