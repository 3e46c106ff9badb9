//! What is in flight in a service, in a terminal: the table of heeler's console.
//!
//! ```text
//! heeler-top http://127.0.0.1:3001        # with the token in HEELER_TOKEN
//! heeler-top /run/my-service/heeler/console.sock
//! heeler-top ssh:web1:/run/my-service/heeler/console.sock   # by curl there
//! ```
//!
//! | key | |
//! |---|---|
//! | `q`, Escape | ends |
//! | `p` | by place, and back |
//! | `s` | the next order: age, place, name, polls |
//! | `/` | shows the lines with a text; Enter ends typing |
//! | up, down, page up, page down | move |
//! | space | stops the clock, and goes on |

mod data;
mod screen;
mod source;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::screen::Screen;
use crate::source::Source;

/// How often the table is asked for.
const PERIOD: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let source = match (arguments.next(), arguments.next()) {
        (Some(name), None) if !name.starts_with('-') => Source::parse(&name),
        _ => Err("usage: heeler-top http://host:port | path of a socket | ssh:host:path of a socket".to_owned()),
    };
    let source = match source {
        Ok(source) => source,
        Err(problem) => {
            eprintln!("heeler-top: {problem}");
            return ExitCode::from(2);
        }
    };
    let mut terminal = ratatui::init();
    let outcome = run(&mut terminal, &source);
    ratatui::restore();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("heeler-top: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(terminal: &mut ratatui::DefaultTerminal, source: &Source) -> std::io::Result<()> {
    let mut screen = Screen::new(source.to_string());
    let news = source.watch(PERIOD);
    let mut drawn = Instant::now();
    let mut is_stale = true;
    loop {
        while let Ok(answer) = news.try_recv() {
            is_stale |= screen.take(answer);
        }
        if is_stale || drawn.elapsed() > PERIOD {
            terminal.draw(|frame| screen.draw(frame))?;
            (drawn, is_stale) = (Instant::now(), false);
        }
        if event::poll(Duration::from_millis(50))? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if ends(key, screen.is_typing()) {
                        return Ok(());
                    }
                    screen.press(key.code);
                    is_stale = true;
                }
                Event::Resize(..) => is_stale = true,
                _ => {}
            }
        }
    }
}

fn ends(key: KeyEvent, is_typing: bool) -> bool {
    let interrupts = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    interrupts || !is_typing && matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}
