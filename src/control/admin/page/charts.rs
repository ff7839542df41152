//! Small drawings, as SVG in the page. Each says in words what it shows, for who does not see it.

use std::fmt::Write;

use maud::{Markup, html};

use crate::telemetry::Histogram;

use super::format;

/// One value each second, oldest first, ending now.
pub(super) fn spark(label: &str, values: &[f64], class: &str) -> Markup {
    const WIDTH: f64 = 120.0;
    const HEIGHT: f64 = 28.0;
    let most = values.iter().copied().fold(0.0, f64::max);
    let scale = if most > 0.0 { (HEIGHT - 3.0) / most } else { 0.0 };
    let (mut line, mut x) = (String::new(), WIDTH - px(values.len().saturating_sub(1)));
    let first = x;
    for (index, value) in values.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _infallible = write!(line, "{command}{x:.0} {:.1}", HEIGHT - 1.0 - value * scale);
        x += 1.0;
    }
    let area = format!("{line}L{WIDTH} {HEIGHT}L{first:.0} {HEIGHT}Z");
    html! {
        svg class={ "spark " (class) } viewBox="0 0 120 28" preserveAspectRatio="none" role="img" aria-label=(label) {
            @if values.len() > 1 {
                path class="area" d=(area) {}
                path class="line" d=(line) {}
            }
        }
    }
}

/// A part of the whole, as a bar.
pub(super) fn bar(part: f64, whole: f64) -> Markup {
    let percent = if whole > 0.0 { (part / whole * 100.0).clamp(0.0, 100.0) } else { 0.0 };
    html! {
        svg class="bar" aria-hidden="true" {
            rect class="track" width="100%" height="100%" rx="3" {}
            rect class="fill" width={ (format!("{percent:.1}")) "%" } height="100%" rx="3" {}
        }
    }
}

/// How often something took how long.
pub(super) fn distribution(title: &str, what: &str, histogram: &Histogram) -> Markup {
    let marks =
        [50, 90, 99].map(|percent| (percent, histogram.quantile(f64::from(percent) / 100.0).unwrap_or(0.0)));
    html! {
        figure class="card chart" {
            figcaption {
                h3 { (title) }
                p class="quiet" { (what) }
            }
            @if histogram.count() == 0 {
                p class="nothing" { "nothing measured yet" }
            } @else {
                dl class="marks" {
                    @for (percent, seconds) in marks {
                        div { dt { "p" (percent) } dd { (format::short(seconds)) } }
                    }
                    div { dt { "count" } dd { (format::count(histogram.count())) } }
                }
                (columns(title, histogram, marks[0].1))
            }
        }
    }
}

/// A column for each bucket from the first to the last that has something.
fn columns(title: &str, histogram: &Histogram, median: f64) -> Markup {
    const HEIGHT: f64 = 72.0;
    let buckets = histogram.buckets();
    let is_used = |bucket: &(f64, u64)| bucket.1 > 0;
    let first = buckets.iter().position(is_used).unwrap_or(0).saturating_sub(1);
    let last = buckets.iter().rposition(is_used).unwrap_or(0);
    // A few columns look like a few, not like walls.
    let (first, last) = (first.min(last.saturating_sub(5)), last.max(5).min(buckets.len() - 1));
    let shown = buckets.get(first..=last).unwrap_or_default();
    let most = shown.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let step = 320.0 / px(shown.len());
    // So that labels do not meet.
    let every = if shown.len() > 8 { 2 } else { 1 };
    let label = format!("{title}: half took at most {}", format::short(median));
    html! {
        svg class="columns" viewBox="-9 0 338 92" role="img" aria-label=(label) {
            @for (index, (bound, count)) in shown.iter().enumerate() {
                @let height = (px(*count as usize) / px(most as usize) * HEIGHT).max(if *count > 0 { 1.5 } else { 0.0 });
                @let x = px(index) * step;
                rect class="column" x=(round(x + 1.5)) y=(round(HEIGHT - height)) width=(round(step - 3.0)) height=(round(height)) rx="1.5" {
                    title { (format::count(*count)) " of at most " (bound_label(*bound)) }
                }
                @if index % every == 0 { text x=(round(x + step / 2.0)) y="86" { (bound_label(*bound)) } }
            }
            line class="axis" x1="0" x2="320" y1="72.5" y2="72.5" {}
        }
    }
}

/// Short enough to stand under a column.
fn bound_label(bound: f64) -> String {
    match bound {
        bound if bound.is_infinite() => "∞".to_owned(),
        bound if bound < 1e-3 => format!("{}µs", format::whole(bound * 1e6)),
        bound if bound < 1.0 => format!("{}ms", bound * 1e3),
        bound if bound < 60.0 => format!("{bound}s"),
        bound if bound < 3_600.0 => format!("{}m", bound / 60.0),
        bound => format!("{}h", bound / 3_600.0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact enough to draw")]
pub(super) fn px(number: usize) -> f64 {
    number as f64
}

pub(super) fn round(number: f64) -> String {
    format!("{number:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_nothing_and_of_one_value_can_be_drawn() {
        for values in [&[][..], &[1.0], &[0.0, 0.0]] {
            assert!(!spark("x", values, "").into_string().contains("NaN"), "{values:?}");
        }
        assert!(!bar(1.0, 0.0).into_string().contains("NaN"));
        let svg = distribution("t", "w", &Histogram::default()).into_string();
        assert!(svg.contains("nothing measured"));
    }
}
