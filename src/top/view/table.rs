//! The rows, in as many columns as there is room for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use crate::top::format::{human, title};
use crate::top::screen::Screen;
use crate::top::sheet::{Column, Row, Sheet, Unit};

use super::{CHOSEN, Look, STRONG};

/// A column of text gets no more than that, unless room is left.
const TEXT_MAX: usize = 40;
const GAP: usize = 2;

pub(super) fn draw(screen: &Screen, look: Look, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let columns = fit(screen.sheet.columns, &widths(&screen.sheet), area.width.into());
    let sort = screen.sort();
    let mut title_of = Pen { x: area.x, y: area.y, area, buffer };
    for (at, width) in &columns {
        let column = &screen.sheet.columns[*at];
        let arrow = match sort.filter(|sort| sort.column == *at) {
            Some(sort) if sort.descending => "v",
            Some(_) => "^",
            None => "",
        };
        let text = format!("{}{arrow}", title(column));
        title_of.put(&text, *width, column.unit.is_number(), STRONG);
    }
    let rows = screen.sheet.rows.iter().enumerate().skip(screen.first);
    for ((number, row), y) in rows.zip(area.top() + 1..area.bottom()) {
        let mut pen = Pen { x: area.x, y, area, buffer };
        for (at, width) in &columns {
            let (column, cell) = (&screen.sheet.columns[*at], &row[*at]);
            let text = human(&cell.value, column.unit);
            pen.put(&text, *width, column.unit.is_number(), look.style(cell.tone));
        }
        if number == screen.selected {
            buffer.set_style(Rect { y, height: 1, ..area }, CHOSEN);
        }
    }
}

/// Writes the cells of one line, from left to right.
struct Pen<'a> {
    x: u16,
    y: u16,
    area: Rect,
    buffer: &'a mut Buffer,
}

impl Pen<'_> {
    fn put(&mut self, text: &str, width: usize, at_right: bool, style: Style) {
        let room = usize::from(self.area.right().saturating_sub(self.x));
        let (room, length) = (width.min(room), length(text));
        let as_u16 = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let from = if at_right { width.saturating_sub(length) } else { 0 };
        let x = self.x.saturating_add(as_u16(from));
        if length <= room {
            self.buffer.set_stringn(x, self.y, text, room, style);
        } else if room > 0 {
            self.buffer.set_stringn(self.x, self.y, text, room - 1, style);
            self.buffer.set_stringn(self.x + as_u16(room - 1), self.y, "…", 1, style);
        }
        self.x = self.x.saturating_add(as_u16(width + GAP)).min(self.area.right());
    }
}

/// How wide each column would like to be. Those of measures do not depend on the rows, so that nothing jumps.
fn widths(sheet: &Sheet) -> Vec<usize> {
    let columns = sheet.columns.iter().enumerate();
    columns.map(|(at, column)| width(column, sheet.rows.iter().map(|row: &Row| &row[at].value))).collect()
}

fn width<'a>(column: &Column, values: impl Iterator<Item = &'a crate::top::sheet::Value>) -> usize {
    let content = match column.unit {
        Unit::Text | Unit::Id => {
            values.map(|value| length(&human(value, column.unit))).max().unwrap_or(0).min(TEXT_MAX)
        }
        Unit::Share => 5,
        Unit::Count | Unit::PerSecond => 6,
        Unit::Bytes | Unit::BytesPerSecond | Unit::Seconds => 8,
    };
    // With room for the arrow of sorting.
    content.max(title(column).len() + 1)
}

/// The columns that there is room for, with their widths; a last one of text takes what is left.
fn fit(columns: &[Column], widths: &[usize], room: usize) -> Vec<(usize, usize)> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| kept.iter().map(|at| widths[*at] + GAP).sum::<usize>().saturating_sub(GAP);
    while needed(&kept) > room {
        let worst = kept.iter().enumerate().max_by_key(|(_, at)| columns[**at].rank);
        match worst {
            Some((place, at)) if columns[*at].rank > 0 => kept.remove(place),
            _ => break,
        };
    }
    let left = room.saturating_sub(needed(&kept));
    let mut fitted: Vec<(usize, usize)> = kept.into_iter().map(|at| (at, widths[at])).collect();
    if let Some((at, width)) = fitted.last_mut()
        && columns[*at].unit == Unit::Text
    {
        *width += left;
    }
    fitted
}

fn length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { Span::raw(text).width() }
}
