//! What the user reads: one line per step, with the time since the command was typed.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

struct Console {
    start: Instant,
    colour: bool,
    terminal: bool,
    /// Lines come from several threads; a line is written whole.
    out: Mutex<()>,
}

fn console() -> &'static Console {
    static CONSOLE: OnceLock<Console> = OnceLock::new();
    CONSOLE.get_or_init(|| {
        let terminal =
            std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        // https://no-color.org: set and not empty.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Console { start: Instant::now(), colour: terminal && !no_colour, terminal, out: Mutex::new(()) }
    })
}

/// Starts the clock that every step line shows.
pub fn init() {
    console();
}

/// Time since the command was typed.
pub fn since_start() -> Duration {
    console().start.elapsed()
}

fn paint(code: &str, text: &str) -> String {
    if console().colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub fn bold(text: &str) -> String {
    paint("1", text)
}

pub fn dim(text: &str) -> String {
    paint("2", text)
}

pub fn green(text: &str) -> String {
    paint("32", text)
}

pub fn red(text: &str) -> String {
    paint("31", text)
}

/// Prints a line as it is. A closed pipe (`| head`) is no reason to stop the shop.
pub fn line(text: &str) {
    let _whole_line = console().out.lock();
    let mut out = std::io::stdout().lock();
    // cargo's progress bar may stand in the line.
    let clear = if console().terminal { "\r\x1b[K" } else { "" };
    let _ = writeln!(out, "{clear}{text}");
    let _ = out.flush();
}

/// A step of a command: `  3.2s  postgres     ready in 0.4 s`.
pub fn step(what: &str, text: &str) {
    let at = format!("{:>6.1}s", console().start.elapsed().as_secs_f64());
    line(&format!("{}  {:<15} {text}", dim(&at), bold(&format!("{what:<15}")).trim_end()));
}

/// Something that happened while the shop ran, with the time of day (UTC).
pub fn event(what: &str, text: &str) {
    let secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    line(&format!("{}  {} {text}", dim(&clock(secs)), bold(what)));
}

fn clock(unix_seconds: u64) -> String {
    let day = unix_seconds % 86_400;
    format!("{:02}:{:02}:{:02}Z", day / 3600, day / 60 % 60, day % 60)
}

pub fn error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{} {text}", red("error:"));
}

/// What a program ends with; prints the error, where there is one.
pub fn end(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|e| {
        error(&format!("{e:#}"));
        ExitCode::FAILURE
    })
}

/// `0.42 s`, `3.1 s`, `2 min 05 s`.
pub fn seconds(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s < 1.0 => format!("{s:.2} s"),
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.42 s");
        assert_eq!(seconds(Duration::from_millis(3100)), "3.1 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
    }

    #[test]
    fn the_clock_is_utc_of_the_day() {
        assert_eq!(clock(86_400 * 3 + 3_725), "01:02:05Z");
    }
}
