//! The table of `agent-wormhole status`: one line a channel, columns aligned, as wide as the terminal.
//!
//! Owns which columns there are, and which give way where there is no room. Reads nothing.

use console::{measure_text_width, truncate_str};

use super::{Row, on_the_way};
use crate::cli::output::{Look, Tone};
use crate::cli::quantity;
use crate::event::escape::visible;
use crate::event::state::{ChannelState, Flow};

/// Columns, in their order.
const TITLES: [&str; 8] =
    ["CHANNEL", "END", "STATE", "VIA", "DELIVERED", "ON THE WAY", "RECEIVED", "DIRECTORY"];
/// The column of the directory, which is shortened first.
const DIRECTORY: usize = 7;
/// Columns that are left out where the terminal is narrow, the first of them first.
const GIVING_WAY: [usize; 4] = [3, 6, 4, DIRECTORY];
/// A directory is not shortened to less than this.
const SHORTEST: usize = 18;
/// Between two columns.
const GAP: usize = 2;

/// One field of the table.
struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    fn width(&self) -> usize {
        measure_text_width(&self.text)
    }
}

/// One line a channel; below it, where to look for what was left out or refused.
pub(super) fn table(rows: &[Row], look: Look) -> String {
    let titles = TITLES.map(|title| Cell { text: title.to_owned(), tone: Tone::Faint });
    let mut lines: Vec<[Cell; 8]> = std::iter::once(titles).chain(rows.iter().map(cells)).collect();
    let columns = fit(&mut lines, look.width);
    let mut out: Vec<String> = lines.iter().map(|line| aligned(line, &columns, look)).collect();
    let notes: Vec<String> = rows.iter().filter_map(note).collect();
    if !notes.is_empty() {
        out.push(String::new());
        out.extend(notes);
    }
    out.join("\n")
}

fn cells(row: &Row) -> [Cell; 8] {
    let empty = ChannelState::default();
    let status = row.status.as_ref().unwrap_or(&empty);
    [
        Cell::plain(&row.nameplate),
        Cell::plain(row.role),
        Cell { text: row.state.as_str().to_owned(), tone: row.state.tone() },
        Cell::plain(visible(&row.transport)),
        Cell::plain(status.outbox.items.to_string()),
        way(status),
        Cell::plain(status.inbox.items.to_string()),
        Cell::plain(visible(&row.dir.to_string_lossy())),
    ]
}

/// How many items are on the way, both ways together, and how fast.
fn way(status: &ChannelState) -> Cell {
    let count = on_the_way(&status.outbox) + on_the_way(&status.inbox);
    let rate = status.outbox.rate + status.inbox.rate;
    let stands = |flow: &Flow| flow.in_flight.iter().all(|item| item.waits.is_some());
    if rate > 0 {
        Cell::plain(format!("{count}, {}/s", quantity::shown(rate)))
    } else if count > 0 && stands(&status.outbox) && stands(&status.inbox) {
        Cell { text: format!("{count}, waiting"), tone: Tone::Wary }
    } else {
        Cell::plain(count.to_string())
    }
}

/// Which columns are shown, and how wide each is: all that fits, the directory shortened, then some left out.
fn fit(lines: &mut [[Cell; 8]], most: Option<usize>) -> Vec<(usize, usize)> {
    let mut columns: Vec<(usize, usize)> = (0..TITLES.len())
        .map(|at| (at, lines.iter().map(|line| line[at].width()).max().unwrap_or(0)))
        .collect();
    let Some(most) = most else { return columns };
    let total =
        |columns: &[(usize, usize)]| columns.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
    let mut giving_way = GIVING_WAY.into_iter();
    loop {
        let over = total(&columns).saturating_sub(most);
        if over == 0 {
            break;
        }
        if let Some((_, width)) = columns.iter_mut().find(|(at, _)| *at == DIRECTORY)
            && *width - SHORTEST.min(*width) >= over
        {
            *width -= over;
            break;
        }
        let Some(column) = giving_way.next() else { break };
        columns.retain(|(at, _)| *at != column);
    }
    for (at, width) in &columns {
        if *at == DIRECTORY {
            lines.iter_mut().for_each(|line| line[DIRECTORY].text = tail(&line[DIRECTORY].text, *width));
        }
    }
    columns
}

/// The end of a path tells more than its beginning.
fn tail(path: &str, width: usize) -> String {
    let mut rest = path;
    while measure_text_width(rest) + 1 > width && measure_text_width(path) > width {
        let mut chars = rest.chars();
        if chars.next().is_none() {
            break;
        }
        rest = chars.as_str();
    }
    if rest.len() == path.len() { path.to_owned() } else { format!("…{rest}") }
}

fn aligned(line: &[Cell; 8], columns: &[(usize, usize)], look: Look) -> String {
    let mut out = String::new();
    for (at, width) in columns {
        let cell = &line[*at];
        out.push_str(&look.paint(&cell.text, cell.tone));
        out.push_str(&" ".repeat((width + GAP).saturating_sub(cell.width())));
    }
    let out = out.trim_end();
    // Where even the narrowest table is too wide.
    look.width.map_or_else(|| out.to_owned(), |width| truncate_str(out, width, "…").into_owned())
}

fn note(row: &Row) -> Option<String> {
    let status = row.status.as_ref()?;
    let left_out = status.left_out.len() as u64 + status.left_out_more;
    let refused = status.outbox.refused + status.inbox.refused;
    let parts: Vec<String> = [(left_out, "left out"), (refused, "refused")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let (plate, role) = (&row.nameplate, row.role);
    (!parts.is_empty()).then(|| {
        format!(
            "{plate} {role}: {}; `agent-wormhole status {plate} --role {role}` says why",
            parts.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Standing, tests::row};
    use super::*;
    use crate::event::state::{InFlight, Phase};

    const PLAIN: Look = Look { width: None, colour: false };

    fn rows() -> [Row; 2] {
        let waiting = Row {
            nameplate: "12".into(),
            role: "peer",
            state: Standing::Phase(Phase::Starting),
            status: None,
            dir: "/run/user/1000/agent-wormhole/12-peer".into(),
            ..row()
        };
        [row(), waiting]
    }

    #[test]
    fn a_table_for_people() {
        assert_eq!(
            table(&rows(), PLAIN),
            "CHANNEL  END   STATE      VIA    DELIVERED  ON THE WAY  RECEIVED  DIRECTORY\n\
             9471     host  connected  relay  3          1, 512 B/s  0         /r/9471-host\n\
             12       peer  starting   relay  0          0           0         /run/user/1000/agent-wormhole/12-peer\n\
             \n\
             9471 host: 1 left out, 1 refused; `agent-wormhole status 9471 --role host` says why"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_what_fits() {
        let at = |width| table(&rows()[1..], Look { width: Some(width), colour: false });
        assert_eq!(at(200), table(&rows()[1..], PLAIN));
        assert_eq!(
            at(90),
            "CHANNEL  END   STATE     VIA    DELIVERED  ON THE WAY  RECEIVED  DIRECTORY\n\
             12       peer  starting  relay  0          0           0         …0/agent-wormhole/12-peer"
        );
        assert_eq!(
            at(70),
            "CHANNEL  END   STATE     DELIVERED  ON THE WAY  DIRECTORY\n\
             12       peer  starting  0          0           …gent-wormhole/12-peer"
        );
        for width in 1..200 {
            for line in at(width).lines() {
                assert!(measure_text_width(line) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn colours_change_no_width() {
        let painted = table(&rows(), Look { width: Some(80), colour: true });
        let plain = table(&rows(), Look { width: Some(80), colour: false });
        assert!(painted.contains("\u{1b}["), "{painted}");
        assert_eq!(console::strip_ansi_codes(&painted), plain);
    }

    #[test]
    fn what_stands_still_is_told_from_what_moves() {
        let mut row = row();
        let status = row.status.as_mut().unwrap();
        status.outbox.rate = 0;
        assert_eq!(way(status).text, "1", "it has only begun");
        status.outbox.in_flight[0].waits = Some("the connection is down".into());
        assert_eq!(way(status).text, "1, waiting");
        status.inbox.in_flight.push(InFlight::default());
        assert_eq!(way(status).text, "2");
        status.inbox.rate = 3 << 20;
        assert_eq!(way(status).text, "2, 3.0 MiB/s");
    }

    #[test]
    fn wide_characters_count_as_they_are_shown() {
        assert_eq!(tail("/資料/資料", 6), "…/資料");
        assert_eq!(tail("/資料/資料", 10), "/資料/資料");
        assert_eq!(tail("abc", 0), "…");
    }
}
