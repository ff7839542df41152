//! Values as text: with few digits for people, exact and without spaces for programs.

use std::borrow::Cow;

use super::sheet::{Column, Unit, Value};

impl Unit {
    /// Whether its values are numbers, which stand at the right of their column.
    pub(super) fn is_number(self) -> bool {
        self != Self::Text
    }
}

/// The title of a column for people.
pub(super) fn title(column: &Column) -> Cow<'static, str> {
    match column.unit {
        Unit::PerSecond | Unit::BytesPerSecond => format!("{}/s", column.name).into(),
        _ => column.name.into(),
    }
}

/// The title of a column for programs: in capitals, with the unit.
pub(super) fn plain_title(column: &Column) -> String {
    let unit = match column.unit {
        Unit::Text | Unit::Id | Unit::Count => "",
        Unit::PerSecond => "_per_s",
        Unit::Bytes => "_bytes",
        Unit::BytesPerSecond => "_bytes_per_s",
        Unit::Seconds => "_s",
        Unit::Share => "_percent",
    };
    format!("{}{unit}", column.name).replace([' ', '-'], "_").to_ascii_uppercase()
}

pub(super) fn human(value: &Value, unit: Unit) -> Cow<'_, str> {
    match value {
        Value::Absent => "-".into(),
        Value::Text(text) => text.as_str().into(),
        Value::Number(number) => human_number(*number, unit).into(),
    }
}

fn human_number(number: f64, unit: Unit) -> String {
    match unit {
        Unit::Text | Unit::Id => format!("{number:.0}"),
        Unit::Count => decimal(number, false),
        Unit::PerSecond => decimal(number, true),
        Unit::Bytes | Unit::BytesPerSecond => binary(number),
        Unit::Seconds => duration(number),
        Unit::Share => format!("{} %", short(number * 100.0)),
    }
}

/// `0`, `0.3`, `12`, `99999`, `120k`, `4.5M`.
fn decimal(number: f64, fractions: bool) -> String {
    let text = |number: f64| if fractions { short(number) } else { format!("{number:.0}") };
    match number.abs() {
        ..99_999.5 => text(number),
        ..999_500.0 => format!("{:.0}k", number / 1e3),
        ..999_500_000.0 => format!("{}M", short(number / 1e6)),
        _ => format!("{}G", short(number / 1e9)),
    }
}

/// `512 B`, `1.2 KiB`, `340 MiB`.
fn binary(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut unit) = (bytes, 0);
    while number >= 1_023.5 && unit + 1 < UNITS.len() {
        number /= 1_024.0;
        unit += 1;
    }
    let number = if unit == 0 { format!("{number:.0}") } else { short(number) };
    format!("{number} {}", UNITS[unit])
}

/// `250 us`, `1.2 ms`, `12 s`, `3m 20s`, `4h 05m`, `3d 04h`.
pub(super) fn duration(seconds: f64) -> String {
    // Numbers of another program; the greatest that is sensible for it.
    let whole = seconds.clamp(0.0, 1e12).round();
    let part = |unit: f64, within: f64| ((whole / unit).floor() % within).floor();
    match seconds {
        ..0.000_999_5 => format!("{:.0} us", (seconds * 1e6).max(0.0)),
        ..0.999_5 => format!("{} ms", short(seconds * 1e3)),
        ..59.5 => format!("{} s", short(seconds)),
        ..3_599.5 => format!("{:.0}m {:02.0}s", part(60.0, 60.0), part(1.0, 60.0)),
        ..86_399.5 => format!("{:.0}h {:02.0}m", part(3_600.0, 24.0), part(60.0, 60.0)),
        ..8_640_000.0 => format!("{:.0}d {:02.0}h", part(86_400.0, 100.0), part(3_600.0, 24.0)),
        _ => format!("{:.0}d", part(86_400.0, f64::INFINITY)),
    }
}

/// Two digits where there are so few.
fn short(number: f64) -> String {
    let digits = usize::from(number != 0.0 && number.abs() < 9.95);
    format!("{number:.digits$}")
}

/// For a program; `last` is the only column of a row that may have spaces.
pub(super) fn plain(value: &Value, unit: Unit, last: bool) -> Cow<'_, str> {
    match value {
        Value::Absent => "-".into(),
        Value::Text(text) if text.as_str().trim().is_empty() => "-".into(),
        Value::Text(text) if last || !text.as_str().contains(' ') => text.as_str().into(),
        Value::Text(text) => text.as_str().replace(' ', "_").into(),
        Value::Number(number) => match unit {
            Unit::Text | Unit::Id | Unit::Count | Unit::Bytes => format!("{number:.0}").into(),
            Unit::PerSecond => format!("{number:.2}").into(),
            Unit::BytesPerSecond => format!("{number:.0}").into(),
            Unit::Seconds => format!("{number:.6}").into(),
            Unit::Share => format!("{:.1}", number * 100.0).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_read_few_digits() {
        for (number, unit, expected) in [
            (0.0, Unit::Count, "0"),
            (99_999.0, Unit::Count, "99999"),
            (120_400.0, Unit::Count, "120k"),
            (999_600.0, Unit::Count, "1.0M"),
            (0.0, Unit::PerSecond, "0"),
            (0.26, Unit::PerSecond, "0.3"),
            (9.97, Unit::PerSecond, "10"),
            (1_234.4, Unit::PerSecond, "1234"),
            (512.0, Unit::Bytes, "512 B"),
            (1_023.6, Unit::Bytes, "1.0 KiB"),
            (356_515_840.0, Unit::BytesPerSecond, "340 MiB"),
            (0.000_25, Unit::Seconds, "250 us"),
            (0.001_25, Unit::Seconds, "1.2 ms"),
            (0.999_6, Unit::Seconds, "1.0 s"),
            (59.7, Unit::Seconds, "1m 00s"),
            (3_599.8, Unit::Seconds, "1h 00m"),
            (273_600.0, Unit::Seconds, "3d 04h"),
            (86_400.0 * 1_234.5, Unit::Seconds, "1234d"),
            (0.004, Unit::Share, "0.4 %"),
            (1.0, Unit::Share, "100 %"),
        ] {
            assert_eq!(human(&Value::Number(number), unit), expected, "{number} {unit:?}");
        }
        assert_eq!(human(&Value::Absent, Unit::Count), "-");
    }

    #[test]
    fn programs_read_units_in_the_title_and_no_spaces() {
        let column = |name, unit| Column { name, unit, rank: 0 };
        assert_eq!(plain_title(&column("connect p99", Unit::Seconds)), "CONNECT_P99_S");
        assert_eq!(plain_title(&column("sent", Unit::BytesPerSecond)), "SENT_BYTES_PER_S");
        assert_eq!(plain(&Value::Text("two words".into()), Unit::Text, false), "two_words");
        assert_eq!(plain(&Value::Text("two words".into()), Unit::Text, true), "two words");
        assert_eq!(plain(&Value::Text("".into()), Unit::Text, true), "-");
        assert_eq!(plain(&Value::Number(0.001_25), Unit::Seconds, false), "0.001250");
        assert_eq!(plain(&Value::Number(0.123), Unit::Share, false), "12.3");
    }

    proptest! {
        #[test]
        fn no_number_is_longer_than_its_column(number in 0.0..1e9_f64, any in any::<f64>()) {
            for unit in [Unit::Count, Unit::PerSecond, Unit::Bytes, Unit::BytesPerSecond, Unit::Seconds] {
                let text = human(&Value::Number(number), unit).into_owned();
                prop_assert!(text.len() <= 8, "{}", text);
                human(&Value::Number(any), unit);
            }
        }
    }
}
