use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use crate::top::rows::View;
use crate::top::screen::Screen;
use crate::top::view::{Look, draw, page};

use super::reading;

fn screen(view: View) -> Screen {
    let mut screen = Screen::new(view, reading(10.0, 10.0));
    screen.take(reading(11.0, 10.0));
    screen
}

fn drawn(screen: &mut Screen, width: u16, height: u16, colours: bool) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    screen.fit(page(screen, area));
    draw(screen, Look { colours }, area, &mut buffer);
    buffer
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let text: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned()
    };
    buffer.content.chunks(width).map(line).collect()
}

#[test]
fn the_whole_screen() {
    let buffer = drawn(&mut screen(View::Upstreams), 132, 14, true);
    let expected = "\
sheave 1.2.3   phase serving   up 1m 51s   generation 7   cluster synced   live 5   places 1000   new/s 20   ended/s 40
errors/s 10   error share 25 %   received/s 10 KiB   sent/s 0 B
! 1 of 2 workers have not taken the newest table
 1 upstreams   2 endpoints   3 connections   4 listeners   5 workers  2 rows
upstream   state      usable   endpoints    live   conn/s   errors/s   connect p99  why
empty      empty           0           0       0        -          -             -  service_missing: there is no Service db/pg
pg         degraded        1           2       5       10         10        990 us  1 open





empty: service_missing: there is no Service db/pg
q quit  ? help  tab views  / filter  < > sort  r reverse  space pause  enter what is below";
    assert_eq!(lines(&buffer).join("\n"), expected);
}

#[test]
fn a_narrow_terminal_keeps_what_matters_most() {
    let lines = lines(&drawn(&mut screen(View::Upstreams), 40, 8, true));
    assert!(lines[0].starts_with("sheave 1.2.3   phase serving"), "{lines:?}");
    assert!(lines[1].contains("1 upstreams") && !lines[1].contains("endpoints"), "{lines:?}");
    for column in ["upstream", "state", "usable", "live"] {
        assert!(lines[2].contains(column), "{column}: {lines:?}");
    }
    assert!(lines.iter().all(|line| line.chars().count() <= 40));
}

#[test]
fn help_lies_over_the_rest() {
    let mut screen = screen(View::Upstreams);
    screen.press(KeyCode::Char('?').into());
    let lines = lines(&drawn(&mut screen, 100, 24, true)).join("\n");
    assert!(lines.contains(" sheave top ") && lines.contains("esc drops it"), "{lines}");
}

#[test]
fn trouble_pause_and_filter_are_seen() {
    let mut screen = screen(View::Endpoints);
    screen.trouble = Some("no answer from the admin port at 127.0.0.1:9901".into());
    for key in "p/10.0".chars() {
        screen.press(KeyCode::Char(key).into());
    }
    let lines = lines(&drawn(&mut screen, 120, 20, true)).join("\n");
    for text in ["! no answer from the admin port", " PAUSED ", "/10.0_", "3 rows"] {
        assert!(lines.contains(text), "{text}: {lines}");
    }
}

#[test]
fn without_colours_there_are_none_and_the_words_are_the_same() {
    for view in View::ALL {
        let (with, without) =
            (drawn(&mut screen(view), 140, 20, true), drawn(&mut screen(view), 140, 20, false));
        assert_eq!(lines(&with), lines(&without));
        let is_plain = |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
        assert!(without.content.iter().all(is_plain));
        assert!(!with.content.iter().all(is_plain), "{view:?}");
        assert!(
            without.content.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)),
            "the selection"
        );
    }
}

#[test]
fn hostile_names_are_spelled_out() {
    let mut evil = reading(11.0, 10.0);
    let json = r#"{"name": "\u001b[2Jpg\u202e", "loadBalancer": "\u0007", "problem": {"reason": "\r", "text": "\u009b31m"},
        "pending": 0, "panics": false, "leaving": [], "endpoints": [{"address": "10.0.0.1:1\n", "weight": 1, "active": 1,
        "unhealthyBy": ["active"], "probeFailure": "\u001b]0;title\u0007"}]}"#;
    evil.table.upstreams = vec![serde_json::from_str(json).unwrap()];
    for (view, expected) in
        [(View::Upstreams, "\\u{1b}[2Jpg\\u{202e}"), (View::Endpoints, "probe: \\u{1b}]0;title\\u{7}")]
    {
        let mut screen = Screen::new(view, evil.clone());
        let text = lines(&drawn(&mut screen, 200, 20, true)).concat();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_size_can_be_drawn(
        width in 0..220_u16, height in 0..60_u16, view in prop::sample::select(View::ALL.to_vec()), help in any::<bool>()
    ) {
        let mut screen = screen(view);
        screen.help = help;
        screen.trouble = Some("x".repeat(300).into());
        let buffer = drawn(&mut screen, width, height, true);
        prop_assert_eq!(buffer.content.len(), usize::from(width) * usize::from(height));
    }
}
