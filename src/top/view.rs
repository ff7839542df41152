//! A screen drawn into a buffer. Nothing is shown by colour alone, and any size will do.

mod table;

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Widget};

use super::format::{human, title};
use super::rows::View;
use super::screen::Screen;
use super::sheet::{Cell, Tone, Value};

/// How tones look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) colours: bool,
}

impl Look {
    fn style(self, tone: Tone) -> Style {
        let colour = |colour| if self.colours { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => colour(Color::Green),
            Tone::Warn => colour(Color::Yellow),
            Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Faint => Style::new().add_modifier(Modifier::DIM),
        }
    }
}

const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Below this height the table is all that counts.
const ROOMY: u16 = 12;
const HEADER_MAX: usize = 6;
const FOOTER: &str =
    "q quit  ? help  tab views  / filter  < > sort  r reverse  space pause  enter what is below";
const HELP: [(&str, &str); 10] = [
    ("tab, left, right, 1 to 5", "another view"),
    ("up, down, j, k", "another row; page up, page down, home, end too"),
    ("enter", "what is below: endpoints of an upstream, connections of an endpoint or listener"),
    ("/", "show only rows that contain a text; enter keeps it, esc drops it"),
    ("<, >", "sort by another column"),
    ("r", "sort the other way round"),
    ("space, p", "stand still, go on"),
    ("?, h", "this help; any key leaves it"),
    ("q, ctrl-c", "quit"),
    ("", "Rates and quantiles are of the last interval."),
];

/// The parts of the terminal.
struct Parts {
    header: Rect,
    tabs: Rect,
    table: Rect,
    detail: Rect,
    footer: Rect,
}

impl Parts {
    fn of(area: Rect, header: usize) -> Self {
        let roomy = area.height >= ROOMY;
        let header = u16::try_from(if roomy { header.min(HEADER_MAX) } else { 1 }).unwrap_or(1);
        let below = u16::from(roomy);
        let mut y = area.y;
        let mut next = |height: u16| {
            let height = height.min(area.bottom().saturating_sub(y));
            let part = Rect { y, height, ..area };
            y += height;
            part
        };
        Self {
            header: next(header),
            tabs: next(1),
            table: next(area.height.saturating_sub(header + 1 + 2 * below)),
            detail: next(below),
            footer: next(below),
        }
    }
}

/// How many rows of the table there is room for.
pub(super) fn page(screen: &Screen, area: Rect) -> usize {
    let header = header(screen, Look { colours: false }, area.width).len();
    Parts::of(area, header).table.height.saturating_sub(1).into()
}

pub(super) fn draw(screen: &Screen, look: Look, area: Rect, buffer: &mut Buffer) {
    let header = header(screen, look, area.width);
    let parts = Parts::of(area, header.len());
    for (line, y) in header.into_iter().zip(parts.header.top()..parts.header.bottom()) {
        line.render(Rect { y, height: 1, ..parts.header }, buffer);
    }
    tabs(screen, look, area.width).render(parts.tabs, buffer);
    table::draw(screen, look, parts.table, buffer);
    detail(screen, look).render(parts.detail, buffer);
    Line::styled(FOOTER, look.style(Tone::Faint)).render(parts.footer, buffer);
    if screen.help {
        help(area, buffer);
    }
}

/// What the process is and does, flowing into as many lines as it takes, and what is wrong.
fn header(screen: &Screen, look: Look, width: u16) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = vec![Line::default()];
    let Some(row) = screen.process.rows.first() else { return lines };
    for (column, cell) in screen.process.columns.iter().zip(row) {
        if column.name == "why" || cell.value == Value::Absent {
            continue;
        }
        let value = Span::styled(human(&cell.value, column.unit), look.style(cell.tone).patch(STRONG));
        let item = [Span::styled(title(column), look.style(Tone::Faint)), Span::raw(" "), value];
        let length: usize = item.iter().map(Span::width).sum();
        let line = match lines.last_mut() {
            Some(line) if line.width() == 0 || line.width() + 3 + length <= usize::from(width) => line,
            _ => {
                lines.push(Line::default());
                let Some(last) = lines.last_mut() else { break };
                last
            }
        };
        if line.width() > 0 {
            line.push_span("   ");
        }
        item.into_iter().for_each(|span| line.push_span(span));
    }
    let wrong = row.last().filter(|cell| !is_empty(cell));
    let wrong = wrong.map(|cell| human(&cell.value, super::sheet::Unit::Text));
    let trouble = screen.trouble.as_ref().map(|trouble| Cow::from(trouble.as_str()));
    for text in trouble.into_iter().chain(wrong) {
        lines.push(Line::styled(format!("! {text}"), look.style(Tone::Bad)));
    }
    lines
}

fn is_empty(cell: &Cell) -> bool {
    matches!(&cell.value, Value::Text(text) if text.as_str().is_empty())
}

/// The views, how many rows there are, and what else the table is under.
fn tabs(screen: &Screen, look: Look, width: u16) -> Line<'_> {
    let mut line = Line::default();
    let roomy = usize::from(width) >= 2 + View::ALL.iter().map(|view| view.label().len() + 5).sum::<usize>();
    for (at, view) in View::ALL.into_iter().enumerate() {
        let is_chosen = view == screen.view;
        if roomy || is_chosen {
            let style = if is_chosen { CHOSEN } else { Style::new() };
            line.push_span(Span::styled(format!(" {} {} ", at + 1, view.label()), style));
            line.push_span(" ");
        }
    }
    if screen.paused {
        line.push_span(Span::styled(" PAUSED ", look.style(Tone::Warn).patch(CHOSEN)));
        line.push_span(" ");
    }
    if screen.typing || !screen.filter.is_empty() {
        let cursor = if screen.typing { "_" } else { "" };
        line.push_span(Span::styled(format!("/{}{cursor} ", screen.filter), STRONG));
    }
    line.push_span(Span::styled(format!("{} rows", screen.sheet.rows.len()), look.style(Tone::Faint)));
    line
}

/// What the row does not have room for, or what is to be known of all rows.
fn detail(screen: &Screen, look: Look) -> Line<'_> {
    let row = screen.sheet.rows.get(screen.selected);
    let why = row.and_then(|row| row.last()).filter(|cell| !is_empty(cell));
    match (row, why, &screen.sheet.note) {
        (Some(row), Some(Cell { value: Value::Text(why), .. }), _) => {
            let name = human(&row[0].value, super::sheet::Unit::Text);
            Line::from(vec![Span::styled(format!("{name}: "), STRONG), Span::raw(why.as_str())])
        }
        (_, _, Some(note)) => Line::styled(note.as_str(), look.style(Tone::Warn)),
        _ => Line::default(),
    }
}

fn help(area: Rect, buffer: &mut Buffer) {
    let keys = HELP.iter().map(|(keys, _)| keys.len()).max().unwrap_or_default();
    let lines: Vec<String> = HELP.iter().map(|(key, what)| format!(" {key:<keys$}  {what} ")).collect();
    let longest = lines.iter().map(String::len).max().unwrap_or_default();
    let fits = |length: usize, room: u16| u16::try_from(length + 2).unwrap_or(room).min(room);
    let (width, height) = (fits(longest, area.width), fits(lines.len(), area.height));
    let window =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(window, buffer);
    let block = Block::bordered().title(" sheave top ");
    let inner = block.inner(window);
    block.render(window, buffer);
    for (line, y) in lines.into_iter().zip(inner.top()..inner.bottom()) {
        Line::raw(line).render(Rect { y, height: 1, ..inner }, buffer);
    }
}
