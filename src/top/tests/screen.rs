use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::top::format::human;
use crate::top::reading::{Endpoint, Who};
use crate::top::rows::View;
use crate::top::screen::{Screen, Wish};

use super::reading;

fn screen(view: View) -> Screen {
    let mut screen = Screen::new(view, reading(10.0, 10.0));
    screen.take(reading(11.0, 10.0));
    screen.fit(10);
    screen
}

fn press(screen: &mut Screen, keys: &str) -> Wish {
    keys.chars().map(|key| screen.press(KeyCode::Char(key).into())).last().unwrap()
}

fn first_column(screen: &Screen) -> Vec<String> {
    let unit = screen.sheet.columns[0].unit;
    screen.sheet.rows.iter().map(|row| human(&row[0].value, unit).into_owned()).collect()
}

#[test]
fn keys_lead_from_view_to_view() {
    let mut screen = screen(View::Upstreams);
    let mut seen = Vec::new();
    for code in [
        KeyCode::Tab,
        KeyCode::Right,
        KeyCode::Right,
        KeyCode::Right,
        KeyCode::Right,
        KeyCode::Left,
        KeyCode::BackTab,
    ] {
        screen.press(code.into());
        seen.push(screen.view.label());
    }
    let expected = ["endpoints", "connections", "listeners", "workers", "upstreams", "workers", "listeners"];
    assert_eq!(seen, expected);
    press(&mut screen, "2");
    assert_eq!(screen.view, View::Endpoints);
    assert_eq!(screen.who(), Who::Nobody);
    press(&mut screen, "3");
    assert_eq!(screen.who(), Who::Oldest, "asked for only where it is shown");
}

#[test]
fn connections_that_were_not_read_are_asked_for_at_once_even_in_a_pause() {
    let without = || crate::top::reading::Reading { connections: None, ..reading(10.0, 10.0) };
    let mut screen = Screen::new(View::Upstreams, without());
    press(&mut screen, "p");
    assert_eq!(press(&mut screen, "3"), Wish::Read);
    assert!(screen.sheet.rows.is_empty());
    screen.take(reading(11.0, 10.0));
    assert_eq!(first_column(&screen), ["123456", "123457"]);
    assert_eq!(press(&mut screen, "13"), Wish::Nothing);
}

#[test]
fn a_pause_keeps_what_is_shown() {
    let mut screen = screen(View::Endpoints);
    press(&mut screen, " ");
    let mut changed = reading(12.0, 10.0);
    changed.table.upstreams.clear();
    screen.take(changed.clone());
    assert_eq!(screen.sheet.rows.len(), 3);
    press(&mut screen, " ");
    screen.take(changed);
    assert_eq!(screen.sheet.rows.len(), 0);
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let mut screen = screen(View::Endpoints);
    press(&mut screen, "/10.0.0.2q");
    assert!(screen.typing && screen.sheet.rows.is_empty());
    screen.press(KeyCode::Backspace.into());
    screen.press(KeyCode::Enter.into());
    assert!(!screen.typing);
    assert_eq!(first_column(&screen), ["10.0.0.2:1"]);
    screen.press(KeyCode::Esc.into());
    assert_eq!(first_column(&screen).len(), 3);
    press(&mut screen, "/x");
    screen.press(KeyCode::Esc.into());
    assert!(!screen.typing && screen.filter.is_empty());
}

#[test]
fn columns_are_sorted_by_and_the_selection_stays_with_its_row() {
    let mut screen = screen(View::Endpoints);
    screen.press(KeyCode::Down.into());
    press(&mut screen, ">>>>");
    assert_eq!(screen.sort().map(|sort| (sort.column, sort.descending)), Some((3, true)));
    assert_eq!(first_column(&screen), ["10.0.0.1:1", "10.0.0.9:1", "10.0.0.2:1"]);
    assert_eq!(screen.selected, 2);
    press(&mut screen, "r");
    assert_eq!(first_column(&screen), ["10.0.0.2:1", "10.0.0.9:1", "10.0.0.1:1"]);
    press(&mut screen, "<<<<");
    assert_eq!(screen.sort(), None);
    press(&mut screen, "<");
    assert_eq!(screen.sort().map(|sort| sort.column), Some(screen.sheet.columns.len() - 1), "round");
}

#[test]
fn enter_shows_what_is_below() {
    let mut screen = screen(View::Upstreams);
    press(&mut screen, "j");
    assert_eq!(screen.press(KeyCode::Enter.into()), Wish::Nothing);
    assert_eq!((screen.view, screen.filter.as_str()), (View::Endpoints, "pg"));
    screen.press(KeyCode::Enter.into());
    assert_eq!((screen.view, screen.filter.as_str()), (View::Connections, "10.0.0.1:1"));
    assert_eq!(first_column(&screen), ["123456"]);
    screen.press(KeyCode::Enter.into());
    assert_eq!(screen.view, View::Connections);
}

#[test]
fn help_goes_with_any_key_and_q_and_control_c_quit() {
    let mut screen = screen(View::Upstreams);
    press(&mut screen, "?");
    assert!(screen.help);
    assert_eq!((press(&mut screen, "2"), screen.help, screen.view), (Wish::Nothing, false, View::Upstreams));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for before in ["p", "?", "/"] {
        press(&mut screen, before);
        assert_eq!(screen.press(control_c), Wish::Quit, "{before}");
    }
    screen.press(KeyCode::Esc.into());
    assert_eq!(press(&mut screen, "q"), Wish::Quit);
}

#[test]
fn ten_thousand_rows_are_scrolled_through() {
    let mut many = reading(10.0, 10.0);
    let endpoint = |number: u32| Endpoint { address: number.to_string().into(), ..Endpoint::default() };
    many.table.upstreams[1].endpoints = (0..10_000).map(endpoint).collect();
    many.table.upstreams[1].leaving.clear();
    let mut screen = Screen::new(View::Endpoints, many);
    screen.fit(40);
    for (code, selected, first) in [
        (KeyCode::Up, 0, 0),
        (KeyCode::PageDown, 40, 1),
        (KeyCode::End, 9_999, 9_960),
        (KeyCode::Down, 9_999, 9_960),
        (KeyCode::PageUp, 9_959, 9_959),
        (KeyCode::Home, 0, 0),
    ] {
        screen.press(code.into());
        assert_eq!((screen.selected, screen.first), (selected, first), "{code:?}");
    }
}

fn key() -> impl Strategy<Value = KeyCode> {
    let named = prop::sample::select(vec![
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Left,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::End,
        KeyCode::Home,
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Backspace,
    ]);
    prop_oneof![
        named,
        prop::sample::select("12345<>r/?pq 0gGé".chars().collect::<Vec<_>>()).prop_map(KeyCode::Char)
    ]
}

proptest! {
    #[test]
    fn any_keys_leave_a_selection_that_is_there_and_visible(
        keys in prop::collection::vec((key(), 1..20_usize), 0..60)
    ) {
        let mut screen = screen(View::Upstreams);
        for (code, page) in keys {
            screen.press(code.into());
            screen.fit(page);
            let rows = screen.sheet.rows.len();
            prop_assert!(screen.selected < rows.max(1));
            prop_assert!((screen.first..screen.first + page).contains(&screen.selected));
            screen.take(reading(20.0, 1.0));
        }
    }
}
