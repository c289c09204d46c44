//! The only place that prints. Tables are plain, as wide as the terminal, coloured on a terminal alone, and never with
//! `NO_COLOR`.

use std::io::{IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table, TableStyle};

use super::Outcome;

/// What a cell means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Unsure,
    Plain,
}

/// A table without lines.
pub(super) struct Drawn(Table);

impl Drawn {
    pub(super) fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        // Programs read whole lines; only a terminal has a width.
        let is_terminal = std::io::stdout().is_terminal();
        let arrangement = if is_terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
        table.load_style(TableStyle::new()).set_content_arrangement(arrangement);
        table.set_header(header.iter().map(Cell::new));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    pub(super) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = (S, Mood)>) {
        let coloured = is_coloured();
        self.0.add_row(cells.into_iter().map(|(text, mood)| {
            let cell = Cell::new(text.into());
            match mood {
                Mood::Good if coloured => cell.fg(Color::Green),
                Mood::Bad if coloured => cell.fg(Color::Red),
                Mood::Unsure if coloured => cell.fg(Color::Yellow),
                _ => cell,
            }
        }));
    }

    /// The table, without the blanks that fill the last column.
    pub(super) fn text(&self) -> String {
        self.0.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// A plain cell.
pub(super) fn plain(text: impl Into<String>) -> (String, Mood) {
    (text.into(), Mood::Plain)
}

fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints a result; over the one before when `again`.
pub(super) fn page(text: &str, again: bool) {
    let mut out = std::io::stdout().lock();
    let clear = if again && out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    // Whoever reads may have gone away: `tidegate status | head`.
    let _ = write!(out, "{clear}{text}").and_then(|()| out.flush());
}

/// Prints a message.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a message, and ends so.
pub(super) fn fail(text: &str, outcome: Outcome) -> Outcome {
    say(text);
    outcome
}
