//! What is on the screen and what keys do to it; knows no terminal.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::reading::{Reading, Who};
use super::rows::{Since, View, process};
use super::sheet::{Row, Sheet, Sort, Value};
use super::text::Text;

/// What a key asks of whoever runs the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// Read now, because what is shown has not been read yet.
    Read,
    Quit,
}

pub(super) struct Screen {
    pub(super) view: View,
    pub(super) filter: String,
    /// Whether keys are letters of the filter.
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// Why the last reading failed, if it did.
    pub(super) trouble: Option<Text>,
    pub(super) process: Sheet,
    pub(super) sheet: Sheet,
    pub(super) selected: usize,
    /// The first row that is visible, and how many are.
    pub(super) first: usize,
    page: usize,
    /// By view.
    sorts: [Option<Sort>; View::ALL.len()],
    now: Reading,
    before: Option<Reading>,
}

/// Bytes of a filter.
const FILTER_MAX: usize = 60;

impl Screen {
    pub(super) fn new(view: View, reading: Reading) -> Self {
        let mut screen = Self {
            view,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            trouble: None,
            process: Sheet::default(),
            sheet: Sheet::default(),
            selected: 0,
            first: 0,
            page: 1,
            sorts: [None; View::ALL.len()],
            now: reading,
            before: None,
        };
        screen.show();
        screen
    }

    /// What the next reading has to have.
    pub(super) fn who(&self) -> Who {
        if self.view == View::Connections { Who::Oldest } else { Who::Nobody }
    }

    pub(super) fn sort(&self) -> Option<Sort> {
        self.sorts[self.view as usize]
    }

    /// A reading, unless it came while the screen stands still.
    pub(super) fn take(&mut self, reading: Reading) {
        self.trouble = None;
        if !self.paused || (self.view == View::Connections && self.now.connections.is_none()) {
            self.before = Some(std::mem::replace(&mut self.now, reading));
            self.show();
        }
    }

    /// How many rows there is room for.
    pub(super) fn fit(&mut self, page: usize) {
        self.page = page.max(1);
        self.scroll();
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c')) { Wish::Quit } else { Wish::Nothing };
        }
        if self.help {
            self.help = false;
            return if key.code == KeyCode::Char('q') { Wish::Quit } else { Wish::Nothing };
        }
        if self.typing {
            self.type_filter(key.code);
            return Wish::Nothing;
        }
        #[cfg(feature = "faults")]
        key.code.as_char().into_iter().for_each(crate::faults::panic_in_top);
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Char('/') => {
                self.typing = true;
                self.set_filter(String::new());
            }
            KeyCode::Esc => self.set_filter(String::new()),
            KeyCode::Char('>') => self.sort_next(1),
            KeyCode::Char('<') => self.sort_next(-1),
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Enter => return self.descend(),
            code => return self.move_to(code),
        }
        Wish::Nothing
    }

    /// Another view, or another row.
    fn move_to(&mut self, code: KeyCode) -> Wish {
        let last = self.sheet.rows.len().saturating_sub(1);
        let beside =
            |by: isize| View::ALL[(self.view as usize).wrapping_add_signed(by + 5) % View::ALL.len()];
        let view = match code {
            KeyCode::Tab | KeyCode::Right => Some(beside(1)),
            KeyCode::BackTab | KeyCode::Left => Some(beside(-1)),
            KeyCode::Char(digit @ '1'..='5') => View::ALL.get(digit as usize - '1' as usize).copied(),
            _ => None,
        };
        if let Some(view) = view {
            return self.look_at(view);
        }
        self.selected = match code {
            KeyCode::Up | KeyCode::Char('k') => self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected + 1,
            KeyCode::PageUp => self.selected.saturating_sub(self.page),
            KeyCode::PageDown => self.selected + self.page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => last,
            _ => self.selected,
        };
        self.scroll();
        Wish::Nothing
    }

    fn look_at(&mut self, view: View) -> Wish {
        self.view = view;
        (self.selected, self.first) = (0, 0);
        self.show();
        let needs_connections = self.who() != Who::Nobody && self.now.connections.is_none();
        if needs_connections { Wish::Read } else { Wish::Nothing }
    }

    /// From an upstream or listener to what is below it: its endpoints, their connections.
    fn descend(&mut self) -> Wish {
        let Some(row) = self.sheet.rows.get(self.selected) else { return Wish::Nothing };
        let (Value::Text(name), Some(below)) = (&row[0].value, below(self.view)) else {
            return Wish::Nothing;
        };
        self.filter = name.to_string();
        self.look_at(below)
    }

    fn type_filter(&mut self, code: KeyCode) {
        let mut filter = self.filter.clone();
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.set_filter(String::new());
            }
            KeyCode::Backspace => {
                filter.pop();
                self.set_filter(filter);
            }
            KeyCode::Char(c) if filter.len() < FILTER_MAX && !c.is_control() => {
                filter.push(c);
                self.set_filter(filter);
            }
            _ => {}
        }
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        (self.selected, self.first) = (0, 0);
        self.show();
    }

    /// The next column; beyond the last one comes the order of the process again.
    fn sort_next(&mut self, by: isize) {
        let columns = self.sheet.columns;
        // 0 is no column.
        let place = self.sort().map_or(0, |sort| sort.column + 1);
        let place = (place + columns.len() + 1).wrapping_add_signed(by) % (columns.len() + 1);
        let sort = place.checked_sub(1).map(|column| Sort {
            column,
            // Of numbers the greatest are looked for.
            descending: columns[column].unit.is_number(),
        });
        self.sorts[self.view as usize] = sort;
        self.show();
    }

    fn reverse(&mut self) {
        if let Some(sort) = &mut self.sorts[self.view as usize] {
            sort.descending = !sort.descending;
            self.show();
        }
    }

    /// Makes the rows anew. The selection stays at its row as long as that is there.
    fn show(&mut self) {
        let keys = self.view.keys();
        let selected = self.sheet.rows.get(self.selected).map(|row| row[..keys].to_vec());
        let since = Since::new(&self.now, self.before.as_ref());
        self.process = process(&since);
        let is_same = self.sheet.columns == self.view.columns();
        self.sheet = self.view.sheet(&since);
        self.sheet.filter(&self.filter);
        if let Some(sort) = self.sort() {
            self.sheet.sort(sort);
        }
        if is_same && self.selected > 0 {
            let is_it = |row: &Row| selected.as_ref().is_some_and(|selected| row[..keys] == selected[..]);
            let found = self.sheet.rows.iter().position(is_it);
            self.selected = found.unwrap_or(self.selected);
        }
        self.scroll();
    }

    /// Keeps the selection among the rows, and visible.
    fn scroll(&mut self) {
        let rows = self.sheet.rows.len();
        self.selected = self.selected.min(rows.saturating_sub(1));
        self.first = self.first.clamp((self.selected + 1).saturating_sub(self.page), self.selected);
        self.first = self.first.min(rows.saturating_sub(self.page));
    }
}

fn below(view: View) -> Option<View> {
    match view {
        View::Upstreams => Some(View::Endpoints),
        View::Endpoints | View::Listeners => Some(View::Connections),
        View::Connections | View::Workers => None,
    }
}
