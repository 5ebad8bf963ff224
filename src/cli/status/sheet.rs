//! The sheet of `agent-wormhole status CHANNEL`: everything about one channel, a line each.
//!
//! Owns the words. Reads nothing, and shortens nothing: a reason is worth its line.

use super::{Row, Standing, on_the_way};
use crate::cli::output::{Look, Tone};
use crate::cli::progress;
use crate::cli::quantity;
use crate::event::escape::visible;
use crate::event::state::{ChannelState, Flow, SecretsState};

/// Where values begin.
const INDENT: usize = 11;

/// Lines of a name and a value.
struct Sheet {
    look: Look,
    lines: Vec<String>,
}

impl Sheet {
    fn line(&mut self, title: &str, value: &str) {
        self.toned(title, value, Tone::Plain);
    }

    fn toned(&mut self, title: &str, value: &str, tone: Tone) {
        let title = format!("{title:INDENT$}");
        self.lines.push(self.look.paint(&title, Tone::Faint) + &self.look.paint(value, tone));
    }
}

/// Everything about one channel.
pub(super) fn sheet(row: &Row, look: Look) -> String {
    let mut sheet = Sheet { look, lines: Vec::new() };
    sheet.line("channel", &format!("{} ({})", row.nameplate, row.role));
    let hint = match row.state {
        Standing::Hangs => {
            format!(": process {0} is stopped or hangs; `kill -CONT {0}` lets it go on", row.pid)
        }
        Standing::Phase(_) => String::new(),
    };
    sheet.toned("state", &(row.state.as_str().to_owned() + &hint), row.state.tone());
    sheet.line("directory", &visible(&row.dir.to_string_lossy()));
    let cwd = visible(&row.cwd.to_string_lossy());
    sheet.line("started", &format!("{} by process {} in {cwd}", row.started, row.pid));
    let Some(status) = &row.status else {
        sheet.line("transport", &visible(&row.transport));
        return sheet.lines.join("\n");
    };
    let address = Some(visible(&status.address)).filter(|address| !address.is_empty());
    let address = address.map(|address| format!(", {address}")).unwrap_or_default();
    sheet.line("transport", &format!("{}{address}", visible(&row.transport)));
    let why = status.backend_why.as_ref().map(|why| format!(" ({})", visible(why))).unwrap_or_default();
    sheet.line("mailbox", &format!("{}{why}, {}", visible(&status.backend), visible(&status.at_rest)));
    if let Some(peer) = &status.peer {
        sheet.line("peer", &format!("{}, protocol {}", visible(&peer.agent), peer.protocol));
        if let Some(heard) = &peer.heard {
            let opened = match &peer.opened {
                Some(at) => format!("its owner opened something {}", visible(at)),
                None => "nothing is known to be opened".to_owned(),
            };
            sheet.line("", &format!("its program was heard {}; {opened}", visible(heard)));
        }
    }
    if let Some(limit) = status.limits.messages_per_minute {
        sheet.line("limit", &format!("the relay takes {limit} messages a minute"));
    }
    flow(&mut sheet, "sent", "delivered", &status.outbox);
    flow(&mut sheet, "received", "saved", &status.inbox);
    secrets(&mut sheet, &status.secrets);
    sent(&mut sheet, status);
    for left in &status.left_out {
        sheet.line("left out", &format!("{}: {}", visible(&left.name), visible(&left.reason)));
    }
    more(&mut sheet, "left out", status.left_out_more);
    for found in &status.credentials {
        sheet.line(
            "credential",
            &format!("{}: {}, and went as plain content", visible(&found.name), visible(&found.reason)),
        );
    }
    more(&mut sheet, "credential", status.credentials_more);
    sheet.lines.join("\n")
}

fn secrets(sheet: &mut Sheet, secrets: &SecretsState) {
    for one in &secrets.waiting {
        let readable = if one.readable { ", can be read as a file" } else { "" };
        let (name, length, until) = (visible(&one.name), visible(&one.length), visible(&one.expires));
        sheet.line("secret", &format!("{name}: {length} bytes, waits until {until}{readable}"));
    }
    for one in &secrets.gone {
        sheet.line("secret", &format!("{}: {}, wiped", visible(&one.name), visible(&one.why)));
    }
    if let Some(why) = &secrets.unlocked_memory {
        sheet.toned("secrets", &visible(why), Tone::Wary);
    }
}

fn flow(sheet: &mut Sheet, title: &str, done: &str, flow: &Flow) {
    let (bytes, way) = (quantity::shown(flow.bytes), on_the_way(flow));
    sheet
        .line(title, &format!("{} {done} ({bytes}), {way} on the way, {} refused", flow.items, flow.refused));
    for item in &flow.in_flight {
        let tone = if item.waits.is_some() { Tone::Wary } else { Tone::Plain };
        sheet.toned("", &format!("{}: {}", visible(&item.name), progress::words(item)), tone);
    }
    more(sheet, "", flow.in_flight_more);
    for refusal in &flow.refusals {
        sheet.toned(
            "refused",
            &format!("{}: {}", visible(&refusal.name), visible(&refusal.reason)),
            Tone::Bad,
        );
    }
    more(sheet, "refused", flow.refusals_more);
}

/// What the other end has stored, and whether its owner has opened it, as far as that is told.
fn sent(sheet: &mut Sheet, status: &ChannelState) {
    let tells = status.peer.as_ref().is_some_and(|peer| peer.tells_opened);
    if status.sent_more > 0 {
        sheet.line("stored", &format!("{} earlier", status.sent_more));
    }
    for item in &status.sent {
        let opened = match &item.opened {
            Some(at) => format!("opened {}", visible(at)),
            None if tells => "not opened yet, as far as the other end tells".to_owned(),
            None => "the other end does not tell whether it was opened".to_owned(),
        };
        let (name, at) = (visible(&item.name), visible(&item.stored));
        sheet.line("stored", &format!("{} {name}: stored {at}, {opened}", visible(&item.kind)));
    }
}

fn more(sheet: &mut Sheet, title: &str, count: u64) {
    if count > 0 {
        sheet.line(title, &format!("and {count} more"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    const PLAIN: Look = Look { width: None, colour: false };

    #[test]
    fn a_sheet_for_one_channel() {
        assert_eq!(
            sheet(&row(), PLAIN),
            "channel    9471 (host)\n\
             state      connected\n\
             directory  /r/9471-host\n\
             started    2026-03-01T12:00:00.250Z by process 5 in /w\n\
             transport  relay, wss://relay.example.org\n\
             mailbox    dir (no mount: there is no /dev/fuse), plaintext in memory\n\
             peer       agent-wormhole/0.2.0, protocol 2\n\
             sent       3 delivered (2.0 KiB), 1 on the way, 1 refused\n           \
             a\\u001b[2J: 1.0 KiB of 4.0 KiB (25 %), 512 B/s, 6 s left\n\
             refused    huge.iso: no space\n\
             received   0 saved (0 B), 0 on the way, 0 refused\n\
             left out   b~: a backup copy"
        );
    }

    #[test]
    fn a_channel_that_does_not_answer_shows_what_is_known() {
        let hanging = Row { state: Standing::Hangs, status: None, ..row() };
        assert_eq!(
            sheet(&hanging, PLAIN),
            "channel    9471 (host)\n\
             state      not_answering: process 5 is stopped or hangs; `kill -CONT 5` lets it go on\n\
             directory  /r/9471-host\n\
             started    2026-03-01T12:00:00.250Z by process 5 in /w\n\
             transport  relay"
        );
    }

    #[test]
    fn colours_add_nothing_but_themselves() {
        let painted = sheet(&row(), Look { width: None, colour: true });
        assert!(painted.contains("\u{1b}["), "{painted}");
        assert_eq!(console::strip_ansi_codes(&painted), sheet(&row(), PLAIN));
    }
}
