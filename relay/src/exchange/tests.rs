//! The contract test suite: what every store has to do, on virtual time.
//!
//! Generic over the store; [`suite`] makes one test of each function for a store.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Bell, Caller, Due, Exchange, Pushed, Refusal, Seated};
use crate::options::Options;
use crate::rules::Source;
use crate::wire::{ErrorCode, Id, Resume, Role, Status};

pub(super) mod flow;
pub(super) mod legacy;
pub(super) mod memory_loss;
#[path = "../../tests/common/redis_server.rs"]
pub(super) mod redis_server;
pub(super) mod seats;

/// Makes the suite for the stores that `$make`, an `AsyncFn(Options, Instant) -> impl Exchange`, makes.
macro_rules! suite {
    ($make:expr; $($module:ident :: $test:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            let now = std::time::Instant::now();
            $crate::exchange::tests::$module::$test($make, now).await;
        })+
    };
    ($make:expr) => {
        $crate::exchange::tests::suite!($make;
            seats::a_join_pairs_with_a_fresh_channel,
            seats::a_third_party_is_refused_like_a_stranger,
            seats::both_ends_share_a_slot_and_channels_do_not,
            seats::a_sweep_tells_what_the_store_holds,
            seats::the_host_may_be_away_when_it_is_joined,
            seats::a_resume_replaces_the_socket_before_it,
            seats::a_wrong_seat_resumes_nothing,
            seats::wrong_seats_count_as_failed_joins,
            seats::presence_is_told,
            seats::release_frees_the_nameplate,
            seats::a_released_peer_is_told_so,
            seats::only_a_host_releases,
            seats::bye_frees_the_nameplate,
            seats::scary_counts_once,
            seats::failed_joins_are_limited,
            seats::channels_are_limited,
            seats::an_unclaimed_nameplate_expires_in_absence_only,
            seats::a_channel_without_frames_expires,
            flow::frames_arrive_in_order,
            flow::a_frame_before_the_pairing_is_refused,
            flow::what_was_not_written_is_due_again,
            flow::frames_wait_for_an_absent_end,
            flow::a_long_frame_swallows_no_status,
            flow::a_full_direction_stops_its_sender_only,
            flow::an_empty_direction_takes_any_frame,
            flow::frames_outlive_their_sender,
            flow::release_empties_both_queues,
            flow::memory_is_bounded_and_freed,
            flow::a_source_cannot_hold_the_memory_of_others,
            flow::the_rate_delays_and_loses_nothing,
            flow::throttled_is_said_once_to_both,
            flow::random_drops_lose_and_repeat_nothing,
            legacy::a_host_and_a_peer_meet_under_a_code,
            legacy::a_peer_needs_a_host,
            legacy::a_code_has_two_ends,
            legacy::frames_before_the_peer_wait_for_it,
            legacy::a_seat_that_is_away_is_taken_back_by_anybody_with_the_code,
            legacy::a_seat_in_use_is_taken_back_by_its_own_source_only,
            legacy::what_was_not_written_is_due_again_one_frame_at_a_time,
            legacy::a_direction_holds_sixteen_mebibytes,
            legacy::a_bye_of_the_host_frees_the_code,
            legacy::a_bye_of_the_peer_keeps_the_code,
            legacy::a_release_lets_another_peer_in,
            legacy::a_code_expires_with_its_host_away,
            legacy::a_channel_under_a_code_expires_without_frames,
            legacy::it_counts_as_a_channel_and_its_failures_as_failed_joins,
            legacy::its_seats_are_resumed_as_others,
            memory_loss::a_lost_channel_is_made_again,
            memory_loss::the_first_resume_fixes_the_seat,
            memory_loss::our_own_boot_is_not_made_again,
            memory_loss::too_late_is_not_made_again,
            memory_loss::a_tombstone_stays_shut,
            memory_loss::it_counts_as_an_allocation,
            memory_loss::an_unpaired_host_keeps_its_nameplate,
            memory_loss::a_host_that_missed_the_pairing_learns_of_it,
            memory_loss::a_malformed_claim_is_refused,
        );
    };
}
pub(super) use suite;

const MIB: usize = 1 << 20;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A source with this number.
fn source(n: u8) -> Source {
    Source::V4([192, 0, 2, n])
}

/// A caller of this source.
pub(super) fn caller(n: u8) -> Caller {
    Caller { source: source(n), bell: Arc::default() }
}

/// A frame of this many bytes.
pub(super) fn frame(len: usize) -> Bytes {
    Bytes::from(vec![7; len])
}

/// Whether the bell rang since the last look.
pub(super) fn rang(bell: &Bell) -> bool {
    bell.poll_rung(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// One seat, as a client and its socket know it.
pub(super) struct End<E: Exchange> {
    pub(super) hold: E::Hold,
    pub(super) bell: Arc<Bell>,
    role: Role,
    seat: Id,
    boot: Id,
}

impl<E: Exchange> End<E> {
    fn new(role: Role, seated: Seated<E::Hold>, caller: &Caller, boot: Id) -> Self {
        Self { hold: seated.hold, bell: caller.bell.clone(), role, seat: seated.seat, boot }
    }

    pub(super) fn claim(&self, channel: Id) -> Resume {
        Resume { role: self.role, seat: self.seat, channel: Some(channel), nameplate: None, boot: self.boot }
    }

    /// Takes the seat back with another socket; returns the hold of the earlier one.
    pub(super) async fn resume(&mut self, store: &E, channel: Id, n: u8, now: Instant) -> E::Hold {
        let caller = caller(n);
        let seated = store.resume(&self.claim(channel), caller.clone(), now).await.expect("resumed");
        self.bell = caller.bell;
        std::mem::replace(&mut self.hold, seated.hold)
    }

    /// Pushes a frame that must be taken.
    pub(super) async fn push(&self, store: &E, frame: impl Into<Bytes>, now: Instant) {
        assert_eq!(store.push(&self.hold, frame.into(), now).await, Ok(Pushed::Taken));
    }

    pub(super) async fn pop(&self, store: &E, written: usize, now: Instant) -> Due {
        store.pop(&self.hold, written, now).await.expect("seated")
    }

    /// Pops and writes until nothing is due; returns all frames.
    pub(super) async fn drain(&self, store: &E, now: Instant) -> Vec<Bytes> {
        let mut all = Vec::new();
        let mut written = 0;
        loop {
            let due = self.pop(store, written, now).await;
            written = due.frames.len();
            all.extend(due.frames);
            if written == 0 {
                return all;
            }
        }
    }
}

/// A host at a fresh nameplate.
pub(super) async fn host<E: Exchange>(store: &E, n: u8, now: Instant) -> (End<E>, String) {
    let caller = caller(n);
    let seated = store.allocate(caller.clone(), now).await.expect("allocated");
    let nameplate = seated.nameplate.expect("a nameplate").to_string();
    (End::new(Role::Host, seated, &caller, store.boot()), nameplate)
}

/// A peer at a nameplate.
pub(super) async fn peer<E: Exchange>(store: &E, nameplate: &str, n: u8, now: Instant) -> End<E> {
    let caller = caller(n);
    let seated = store.join(nameplate, caller.clone(), now).await.expect("joined");
    End::new(Role::Peer, seated, &caller, store.boot())
}

/// Two paired ends that know it: host of source 1, peer of source 2.
pub(super) async fn pair<E: Exchange>(store: &E, now: Instant) -> (End<E>, End<E>, Id) {
    let (host, nameplate) = host(store, 1, now).await;
    let peer = peer(store, &nameplate, 2, now).await;
    let channel = paired(&host.pop(store, 0, now).await);
    assert_eq!(paired(&peer.pop(store, 0, now).await), channel);
    (host, peer, channel)
}

/// The channel of the one status `paired`.
pub(super) fn paired(due: &Due) -> Id {
    match due.statuses.first() {
        Some(Status::Paired { channel, .. }) => *channel,
        other => panic!("not paired: {other:?}"),
    }
}

/// The code of a refusal.
fn refused<S>(result: Result<Seated<S>, Refusal>) -> ErrorCode {
    match result {
        Ok(_) => panic!("seated"),
        Err(Refusal::Code(code)) => code,
        Err(Refusal::Crowded) => ErrorCode::UnableToJoin,
        Err(Refusal::Away) => panic!("the store is away"),
    }
}
