//! Bars of what is on the way, on standard error, for a person at a terminal.
//!
//! Owns the lines that come and go there. Never touches standard output; whoever prints there meanwhile does it through
//! [`Bars::apart`]. Draws on a thread of its own: a terminal that stands still holds up nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{progress, quantity};
use crate::event::escape::{shortened, visible};
use crate::event::state::{ChannelState, Flow, InFlight};

/// Most bars at once; the others are counted below them.
const MOST: usize = 8;
/// Longest name that a bar shows, in bytes.
const NAME: usize = 40;
/// Bars are drawn at most this often a second.
const HZ: u8 = 5;
/// A bar, of an item whose size is known.
const KNOWN: &str = "{prefix} [{bar:20}] {wide_msg}";
/// The line of an item whose size is not known, and of all that have no bar.
const UNKNOWN: &str = "{prefix} {wide_msg}";
/// At the end the bars get this long to go away: a terminal that stands still keeps them.
const LAST: Duration = Duration::from_millis(500);

/// Who sends an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Out,
    In,
}

/// What is to be shown, as one line.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    way: Way,
    id: u64,
    name: String,
    size: Option<u64>,
    done: u64,
    motion: String,
}

#[derive(Default)]
struct Slot {
    /// The newest, until it is drawn.
    state: Option<(Vec<Shown>, u64)>,
    /// Nothing more is shown.
    over: bool,
    /// All bars are away.
    done: bool,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(in crate::cli) struct Bars {
    all: MultiProgress,
    shared: Arc<Shared>,
}

impl Bars {
    /// Bars on this terminal.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(in crate::cli) fn on_terminal() -> std::io::Result<Self> {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(HZ));
        let shared = Arc::new(Shared::default());
        let (theirs, bars) = (Arc::clone(&shared), all.clone());
        thread::Builder::new().name("bars".into()).spawn(move || draw(&theirs, &bars))?;
        Ok(Self { all, shared })
    }

    /// Shows this state instead of the one before. Never waits.
    pub(in crate::cli) fn show(&self, state: &ChannelState) {
        let mut slot = self.shared.lock();
        if !slot.over {
            slot.state = Some(shown(state));
            self.shared.changed.notify_all();
        }
    }

    /// Prints something else: the bars are away meanwhile.
    pub(in crate::cli) fn apart<R>(&self, print: impl FnOnce() -> R) -> R {
        self.all.suspend(print)
    }

    /// Takes the bars away, for good.
    pub(in crate::cli) fn finish(&self) {
        let mut slot = self.shared.lock();
        slot.over = true;
        self.shared.changed.notify_all();
        drop(self.shared.changed.wait_timeout_while(slot, LAST, |slot| !slot.done));
    }
}

fn draw(shared: &Shared, all: &MultiProgress) {
    let mut bars: BTreeMap<(Way, u64), ProgressBar> = BTreeMap::new();
    let mut rest: Option<ProgressBar> = None;
    loop {
        let idle = |slot: &mut Slot| slot.state.is_none() && !slot.over;
        let waited = shared.changed.wait_while(shared.lock(), idle);
        let mut slot = waited.unwrap_or_else(PoisonError::into_inner);
        let over = slot.over;
        let (items, more) = slot.state.take().filter(|_| !over).unwrap_or_default();
        drop(slot);
        bars.retain(|key, bar| {
            let stays = items.iter().any(|item| (item.way, item.id) == *key);
            if !stays {
                remove(all, bar);
            }
            stays
        });
        for item in &items {
            let bar = bars.entry((item.way, item.id)).or_insert_with(|| all.add(line(item.size)));
            update(bar, item);
        }
        if let Some(bar) = rest.take_if(|_| more == 0) {
            remove(all, &bar);
        }
        if more > 0 {
            rest.get_or_insert_with(|| all.add(line(None))).set_message(format!("and {more} more"));
        }
        if over {
            shared.lock().done = true;
            shared.changed.notify_all();
            return;
        }
    }
}

fn remove(all: &MultiProgress, bar: &ProgressBar) {
    bar.finish_and_clear();
    all.remove(bar);
}

fn line(size: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(style(size.is_some()));
    bar
}

/// The templates are constants; one that could not be read would be shown as indicatif's own.
fn style(known: bool) -> ProgressStyle {
    let template = if known { KNOWN } else { UNKNOWN };
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}

fn update(bar: &ProgressBar, item: &Shown) {
    let arrow = match item.way {
        Way::Out => "->",
        Way::In => "<-",
    };
    let of = item.size.map(|size| format!("/{}", quantity::shown(size))).unwrap_or_default();
    bar.set_prefix(arrow);
    bar.set_message(format!("{}  {}{of}  {}", item.name, quantity::shown(item.done), item.motion));
    if let Some(size) = item.size {
        bar.set_length(size);
    }
    bar.set_position(item.done);
}

/// The items that get a line, and how many more there are.
fn shown(state: &ChannelState) -> (Vec<Shown>, u64) {
    let all = |flow: &Flow| flow.in_flight.len() as u64 + flow.in_flight_more;
    let ways = [(Way::Out, &state.outbox), (Way::In, &state.inbox)];
    let items: Vec<Shown> = ways
        .iter()
        .flat_map(|(way, flow)| flow.in_flight.iter().map(|item| of(*way, item)))
        .take(MOST)
        .collect();
    let more = all(&state.outbox) + all(&state.inbox) - items.len() as u64;
    (items, more)
}

fn of(way: Way, item: &InFlight) -> Shown {
    Shown {
        way,
        id: item.id,
        // What a peer calls it reaches a terminal.
        name: shortened(&visible(&item.name), NAME).into_owned(),
        size: item.size,
        done: item.done,
        motion: progress::motion(item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: u64) -> Vec<InFlight> {
        let item = |id| InFlight {
            id,
            name: format!("{id}\u{1b}[2J"),
            size: Some(9),
            done: id,
            ..InFlight::default()
        };
        (1..=count).map(item).collect()
    }

    #[test]
    fn both_ways_are_shown_and_what_is_too_much_is_counted() {
        let mut state = ChannelState::default();
        assert_eq!(shown(&state), (Vec::new(), 0));
        state.outbox.in_flight = items(6);
        state.inbox.in_flight = items(5);
        state.inbox.in_flight_more = 100;
        let (lines, more) = shown(&state);
        assert_eq!((lines.len(), more), (MOST, 103));
        assert_eq!((lines[5].way, lines[6].way), (Way::Out, Way::In));
        assert_eq!((lines[6].id, lines[6].name.as_str()), (1, "1\\u001b[2J"));
    }

    #[test]
    fn the_templates_are_understood() {
        for template in [KNOWN, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
