//! A table of values: its columns with units, its rows, sorting and filtering. How a value looks is `format`'s.

use std::cmp::Ordering;

use super::text::Text;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Text,
    /// A number that is a name: all its digits matter.
    Id,
    Count,
    PerSecond,
    Bytes,
    BytesPerSecond,
    Seconds,
    /// Of one.
    Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    /// One word or a few, in small letters.
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    /// What a narrow terminal leaves out first has the highest number; 0 stays.
    pub(super) rank: u8,
}

pub(super) const fn column(name: &'static str, unit: Unit, rank: u8) -> Column {
    Column { name, unit, rank }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Absent,
    Text(Text),
    /// In the unit of its column.
    Number(f64),
}

/// What a person should think of a value. Words say it too, so that colours are never needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Faint,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) value: Value,
    pub(super) tone: Tone,
}

pub(super) type Row = Vec<Cell>;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sheet {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
    /// What the rows do not say, such as that there are more.
    pub(super) note: Option<Text>,
}

/// By which column, and whether the greatest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) descending: bool,
}

impl Cell {
    pub(super) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// The tone where the number is above zero.
    pub(super) fn tone_if_any(self, tone: Tone) -> Self {
        match self.value {
            Value::Number(number) if number > 0.0 => self.tone(tone),
            _ => self,
        }
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self { value, tone: Tone::Plain }
    }
}

impl From<&Text> for Cell {
    fn from(text: &Text) -> Self {
        Value::Text(text.clone()).into()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Value::Text(text.into()).into()
    }
}

impl From<Option<&Text>> for Cell {
    fn from(text: Option<&Text>) -> Self {
        text.map_or_else(|| Value::Absent.into(), Self::from)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Value::Number(number).into()
    }
}

impl From<Option<f64>> for Cell {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Value::Absent, Value::Number).into()
    }
}

impl From<u64> for Cell {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and shown with fewer digits")]
    fn from(number: u64) -> Self {
        Value::Number(number as f64).into()
    }
}

impl From<Option<u64>> for Cell {
    fn from(number: Option<u64>) -> Self {
        number.map_or_else(|| Value::Absent.into(), Self::from)
    }
}

impl Sheet {
    /// Rows that are equal by the column keep their order; absent values come last whatever the direction.
    pub(super) fn sort(&mut self, by: Sort) {
        if by.column < self.columns.len() {
            self.rows
                .sort_by(|one, other| order(&one[by.column].value, &other[by.column].value, by.descending));
        }
    }

    /// Keeps rows with a text that contains this one, whatever the case of its letters.
    pub(super) fn filter(&mut self, text: &str) {
        let wanted = text.to_lowercase();
        let has_it = |cell: &Cell| match &cell.value {
            Value::Text(text) => text.as_str().to_lowercase().contains(&wanted),
            Value::Absent | Value::Number(_) => false,
        };
        if !wanted.is_empty() {
            self.rows.retain(|row| row.iter().any(has_it));
        }
    }
}

fn order(one: &Value, other: &Value, descending: bool) -> Ordering {
    let ascending = match (one, other) {
        (Value::Absent, Value::Absent) => return Ordering::Equal,
        (Value::Absent, _) => return Ordering::Greater,
        (_, Value::Absent) => return Ordering::Less,
        (Value::Number(one), Value::Number(other)) => one.total_cmp(other),
        (Value::Text(one), Value::Text(other)) => one.cmp(other),
        (Value::Number(_), Value::Text(_)) => Ordering::Less,
        (Value::Text(_), Value::Number(_)) => Ordering::Greater,
    };
    if descending { ascending.reverse() } else { ascending }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[column("name", Unit::Text, 0), column("live", Unit::Count, 1)];

    fn sheet() -> Sheet {
        let row = |name: &str, live: Option<u64>| vec![name.into(), live.into()];
        let rows = vec![row("b", Some(1)), row("PG", None), row("a", Some(10)), row("pg-2", Some(1))];
        Sheet { columns: COLUMNS, rows, note: None }
    }

    fn names(sheet: &Sheet) -> Vec<String> {
        let name = |row: &Row| match &row[0].value {
            Value::Text(text) => text.to_string(),
            _ => unreachable!(),
        };
        sheet.rows.iter().map(name).collect()
    }

    #[test]
    fn sorting_is_by_value_and_absent_ones_are_last() {
        let sorted = |column, descending| {
            let mut sheet = sheet();
            sheet.sort(Sort { column, descending });
            names(&sheet)
        };
        assert_eq!(sorted(1, false), ["b", "pg-2", "a", "PG"]);
        assert_eq!(sorted(1, true), ["a", "b", "pg-2", "PG"]);
        assert_eq!(sorted(0, false), ["PG", "a", "b", "pg-2"]);
        assert_eq!(sorted(9, false), ["b", "PG", "a", "pg-2"], "no such column");
    }

    #[test]
    fn a_filter_keeps_what_contains_it() {
        let filtered = |text| {
            let mut sheet = sheet();
            sheet.filter(text);
            names(&sheet)
        };
        assert_eq!(filtered("pg"), ["PG", "pg-2"]);
        assert_eq!(filtered("10"), [""; 0], "numbers are no text");
        assert_eq!(filtered("").len(), 4);
    }
}
