//! What is on the screen.

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState, Wrap};

use crate::data::{Dump, Work, duration, words};
use crate::source::Answer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Age,
    Place,
    Name,
    Polls,
}

impl Order {
    const fn next(self) -> Self {
        match self {
            Self::Age => Self::Place,
            Self::Place => Self::Name,
            Self::Name => Self::Polls,
            Self::Polls => Self::Age,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Place => "place",
            Self::Name => "name",
            Self::Polls => "polls",
        }
    }
}

pub(crate) struct Screen {
    source: String,
    dump: Dump,
    problem: Option<String>,
    by_place: bool,
    order: Order,
    filter: String,
    is_typing: bool,
    is_stopped: bool,
    table: TableState,
}

impl Screen {
    pub(crate) fn new(source: String) -> Self {
        let (dump, problem) = (Dump::default(), Some("asking …".to_owned()));
        let (filter, table) = (String::new(), TableState::default().with_selected(0));
        let (by_place, is_typing, is_stopped) = (false, false, false);
        Self { source, dump, problem, by_place, order: Order::Age, filter, is_typing, is_stopped, table }
    }

    pub(crate) fn is_typing(&self) -> bool {
        self.is_typing
    }

    /// Takes news. Returns whether there is something to draw.
    pub(crate) fn take(&mut self, answer: Answer) -> bool {
        if self.is_stopped {
            return false;
        }
        match answer {
            Ok(dump) => (self.dump, self.problem) = (dump, None),
            // What was known stays on the screen.
            Err(problem) => self.problem = Some(problem),
        }
        true
    }

    pub(crate) fn press(&mut self, key: KeyCode) {
        if self.is_typing {
            match key {
                KeyCode::Enter | KeyCode::Esc => self.is_typing = false,
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(c) => self.filter.push(c),
                _ => {}
            }
            return;
        }
        match key {
            KeyCode::Char('p') => self.by_place = !self.by_place,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char(' ') => self.is_stopped = !self.is_stopped,
            KeyCode::Char('/') => {
                self.filter.clear();
                self.is_typing = true;
            }
            KeyCode::Down => self.table.select_next(),
            KeyCode::Up => self.table.select_previous(),
            KeyCode::PageDown => self.table.scroll_down_by(20),
            KeyCode::PageUp => self.table.scroll_up_by(20),
            KeyCode::Home => self.table.select_first(),
            KeyCode::End => self.table.select_last(),
            _ => {}
        }
    }

    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(3),
            Constraint::Fill(1),
            Constraint::Length(1),
        ]);
        let [top, lead, body, bottom] = areas.areas(frame.area());
        let process = &self.dump.process;
        let name = process.executable.rsplit('/').next().unwrap_or_default();
        let mut line = vec![Span::raw(name.to_owned()).bold()];
        if process.pid > 0 {
            line.push(Span::raw(format!(" pid {} on {}", process.pid, process.hostname)));
        }
        line.push(Span::raw(format!("  {}", self.source)).dim());
        for runtime in &self.dump.runtimes {
            line.push(match runtime.stalled_for_ms {
                Some(ms) => Span::raw(format!("  {} STALLED {}", runtime.name, duration(ms))).red().bold(),
                None => Span::raw(format!(
                    "  {} p99 {} max {}",
                    runtime.name,
                    duration(runtime.delay_p99_ms),
                    duration(runtime.delay_max_ms)
                )),
            });
        }
        frame.render_widget(Line::from(line), top);
        let style = if self.dump.deadlocks.is_empty() { Style::new() } else { Style::new().fg(Color::Red) };
        frame.render_widget(Paragraph::new(self.dump.sentence.clone()).style(style).wrap(Wrap { trim: true }), lead);
        let table = if self.by_place { self.places() } else { self.lines() };
        let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, body, &mut self.table);
        let mut help = vec![Span::raw(format!("{} in flight", self.dump.in_flight))];
        if self.dump.omitted > 0 {
            help.push(Span::raw(format!(", {} not shown", self.dump.omitted)));
        }
        help.push(Span::raw(format!("  by {}  ", if self.by_place { "place" } else { self.order.as_str() })));
        match (&self.problem, self.is_typing, self.is_stopped) {
            (_, true, _) => help.push(Span::raw(format!("/{}▏", self.filter)).bold()),
            (Some(problem), ..) => help.push(Span::raw(problem.clone()).red()),
            (None, _, true) => help.push(Span::raw("stopped: space goes on").yellow()),
            _ => help.push(Span::raw("q quit  p places  s sort  / filter  space stop").dim()),
        }
        if !self.filter.is_empty() && !self.is_typing {
            help.push(Span::raw(format!("  filter: {}", self.filter)).bold());
        }
        frame.render_widget(Line::from(help), bottom);
    }

    fn is_shown(&self, text: &[&str]) -> bool {
        let filter = self.filter.to_lowercase();
        filter.is_empty() || text.iter().any(|text| text.to_lowercase().contains(&filter))
    }

    fn lines(&self) -> Table<'static> {
        let place = |work: &Work| self.dump.groups.get(work.group).map(crate::data::Group::place).unwrap_or_default();
        let mut all: Vec<(&Work, String)> = self.dump.work.iter().map(|work| (work, place(work))).collect();
        all.retain(|(work, place)| {
            self.is_shown(&[&work.name, &work.id, words(&work.state), place, &work.holds.join(" ")])
        });
        match self.order {
            // As they are.
            Order::Age => {}
            Order::Place => all.sort_by_key(|(work, _)| work.group),
            Order::Name => all.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name)),
            Order::Polls => all.sort_by_key(|(work, _)| std::cmp::Reverse(work.polls)),
        }
        let rows = all.into_iter().map(|(work, place)| {
            let name =
                if work.kind == "request" { work.name.clone() } else { format!("{} ({})", work.name, work.kind) };
            let mut place = place;
            for (verb, names) in [("holds", &work.holds), ("waits for", &work.awaits)] {
                for name in names {
                    place.push_str(&format!(" [{verb} {name}]"));
                }
            }
            Row::new([
                Cell::new(format!("{:>9}", duration(work.elapsed_ms))),
                Cell::new(words(&work.state).to_owned()).style(color(&work.state)),
                Cell::new(name),
                Cell::new(place),
                Cell::new(format!("{:>6}", work.polls)),
                Cell::new(work.left_ms.map(duration).unwrap_or_default()),
            ])
        });
        let widths = [
            Constraint::Length(9),
            Constraint::Length(17),
            Constraint::Fill(2),
            Constraint::Fill(4),
            Constraint::Length(6),
            Constraint::Length(10),
        ];
        let header = Row::new(["      age", "state", "work", "where", " polls", "left"])
            .style(Style::new().add_modifier(Modifier::DIM));
        Table::new(rows, widths).header(header)
    }

    fn places(&self) -> Table<'static> {
        let shown = self.dump.groups.iter().filter(|group| self.is_shown(&[&group.place(), words(&group.state)]));
        let rows = shown.map(|group| {
            let routes: Vec<String> = group.routes.iter().map(|(route, many)| format!("{many} {route}")).collect();
            Row::new([
                Cell::new(format!("{:>6}", group.count)),
                Cell::new(format!("{:>9}", duration(group.oldest_ms))),
                Cell::new(words(&group.state).to_owned()).style(color(&group.state)),
                Cell::new(group.place()),
                Cell::new(routes.join(", ")),
            ])
        });
        let widths = [
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Length(17),
            Constraint::Fill(3),
            Constraint::Fill(2),
        ];
        let header = Row::new([" count", "   oldest", "state", "where", "routes"])
            .style(Style::new().add_modifier(Modifier::DIM));
        Table::new(rows, widths).header(header)
    }
}

fn color(state: &str) -> Style {
    Style::new().fg(match state {
        "blocked" | "no_waker" => Color::Red,
        "running" | "polled" => Color::Yellow,
        "woken" | "yielding" => Color::Magenta,
        "waiting" => Color::Cyan,
        _ => Color::Reset,
    })
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    const ANSWER: &str = r#"{
        "sentence": "3 in flight: 2 waiting for a lock in photos::wait_for_import at src/slow.rs:88",
        "in_flight": 3, "process": {"hostname": "web1", "pid": 4711, "executable": "/opt/photos"},
        "groups": [
            {"count": 2, "state": "waiting", "awaiting": "a lock", "oldest_ms": 12300.0,
             "location": {"function": "photos::wait_for_import", "file": "/build/photos/src/slow.rs", "line": 88},
             "routes": [["GET /slow/lock", 2]]},
            {"count": 1, "state": "blocked", "location": {"function": "photos::sync", "file": "src/db.rs", "line": 7},
             "oldest_ms": 340.0, "routes": [["nightly import", 1]]}
        ],
        "work": [
            {"id": "a1", "name": "GET /slow/lock?a", "kind": "request", "elapsed_ms": 12300.0, "state": "waiting", "polls": 2, "group": 0, "awaits": ["ledger"]},
            {"id": "a2", "name": "GET /slow/lock?b", "kind": "request", "elapsed_ms": 900.4, "state": "waiting", "polls": 1, "group": 0},
            {"id": "a3", "name": "nightly import", "kind": "job", "elapsed_ms": 340.0, "state": "blocked", "polls": 90, "group": 1, "holds": ["ledger"], "left_ms": 59999.0}
        ],
        "runtimes": [{"name": "main", "delay_p99_ms": 2.0, "delay_max_ms": 30.0, "stalled_for_ms": 412.0}],
        "added_by_a_later_version": [1]
    }"#;

    fn drawn(screen: &mut Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(150, 9)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let lines: Vec<String> =
            terminal.backend().to_string().lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect();
        lines.join("\n")
    }

    fn screen() -> Screen {
        let mut screen = Screen::new("http://web1:3001/".to_owned());
        assert!(screen.take(Ok(serde_json::from_str(ANSWER).unwrap())));
        screen
    }

    #[test]
    fn the_table_is_drawn() {
        assert_eq!(
            drawn(&mut screen()),
            "\
photos pid 4711 on web1  http://web1:3001/  main STALLED 412 ms
3 in flight: 2 waiting for a lock in photos::wait_for_import at src/slow.rs:88


      age state             work                               where                                                                  polls left
   12.3 s waiting           GET /slow/lock?a                   for a lock in photos::wait_for_import src/slow.rs:88 [waits for ledge      2
   900 ms waiting           GET /slow/lock?b                   for a lock in photos::wait_for_import src/slow.rs:88                       1
   340 ms blocked           nightly import (job)               in photos::sync db.rs:7 [holds ledger]                                    90 60.0 s
3 in flight  by age  q quit  p places  s sort  / filter  space stop"
        );
    }

    #[test]
    fn keys_sort_filter_and_group() {
        let mut screen = screen();
        for _ in 0..3 {
            screen.press(KeyCode::Char('s'));
        }
        let text = drawn(&mut screen);
        assert!(text.find("nightly import").unwrap() < text.find("GET /slow/lock?a").unwrap(), "{text}");
        screen.press(KeyCode::Char('/'));
        "lock?B".chars().for_each(|c| screen.press(KeyCode::Char(c)));
        assert!(screen.is_typing());
        screen.press(KeyCode::Enter);
        let text = drawn(&mut screen);
        assert!(text.contains("lock?b") && !text.contains("lock?a") && text.contains("filter: lock?B"), "{text}");
        screen.press(KeyCode::Char('/'));
        screen.press(KeyCode::Enter);
        screen.press(KeyCode::Char('p'));
        let text = drawn(&mut screen);
        assert!(text.contains("     2    12.3 s waiting           for a lock in photos::wait_for_import"), "{text}");
    }

    /// Guards: what was known stays on the screen when there is no answer any more.
    #[test]
    fn a_problem_is_said() {
        let mut screen = screen();
        assert!(screen.take(Err("connection refused".to_owned())));
        let text = drawn(&mut screen);
        assert!(text.contains("connection refused") && text.contains("GET /slow/lock?a"), "{text}");
        screen.press(KeyCode::Char(' '));
        assert!(!screen.take(Ok(Dump::default())), "it is stopped");
    }

    #[test]
    fn an_empty_table_is_drawn() {
        let mut screen = Screen::new("x".to_owned());
        assert!(drawn(&mut screen).contains("asking …"));
        assert!(screen.take(Ok(Dump::default())));
        screen.press(KeyCode::Down);
        assert!(drawn(&mut screen).contains("0 in flight"));
    }
}
