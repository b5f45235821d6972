//! What every broker must do: one case for each sentence of the contracts. Behind feature `testing`.
//!
//! [`conformance_tests!`](crate::conformance_tests) makes a test of each case. A case knows only the traits of this
//! crate; names of streams, subjects, queues and buckets are its own, so that cases may share one server.
#![allow(clippy::unwrap_used, reason = "these are tests, in a library so that other crates can run them")]
#![allow(missing_docs, reason = "the name of a case is its claim")]

pub mod examine;
pub mod fresh;
pub mod kv;
pub mod log;
pub mod queue;
pub mod read;
pub mod rpc;
pub mod run;
pub mod tail;
pub mod usage;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Append, Appended, Bucket, Entry, EntryId, ExpectLast, Filter, Page, QueueName, ReadFrom, ReadLimit, Seq,
    SharedBroker, StreamSpec, Subject, Tail,
};

/// A case that takes longer hangs.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

/// Where the broker under test comes from.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The broker, open.
    fn broker(&self) -> SharedBroker;

    /// Closes the broker and opens it again, as a process that starts anew does. `None` if this one cannot be.
    async fn reopen(&mut self) -> Option<SharedBroker>;
}

/// What a case works with.
pub struct Cx {
    pub broker: SharedBroker,
    harness: Box<dyn Harness>,
    /// Begins every name.
    prefix: String,
}

/// Runs one case.
pub async fn run<F>(harness: Box<dyn Harness>, case: F)
where
    F: for<'a> FnOnce(&'a mut Cx) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
{
    let prefix = format!("t{}", uuid::Uuid::now_v7().simple());
    let mut cx = Cx { broker: harness.broker(), harness, prefix };
    tokio::time::timeout(CASE_TIMEOUT, case(&mut cx)).await.expect("the case ends in time");
    cx.broker.close().await;
}

impl Cx {
    /// Opens the broker anew; whether that could be done.
    pub async fn reopen(&mut self) -> bool {
        match self.harness.reopen().await {
            Some(broker) => {
                self.broker = broker;
                true
            }
            None => false,
        }
    }

    pub fn subject(&self, name: &str) -> Subject {
        Subject::new(format!("case.{}.{name}", self.prefix)).unwrap()
    }

    pub fn filter(&self, name: &str) -> Filter {
        Filter::new(format!("case.{}.{name}", self.prefix)).unwrap()
    }

    pub fn spec(&self, name: &str, filter: &str, entries_per_subject_max: Option<u64>) -> StreamSpec {
        StreamSpec {
            name: format!("{}_{name}", self.prefix),
            filters: vec![self.filter(filter)],
            entries_per_subject_max,
        }
    }

    /// Opens a stream that keeps all subjects of the case that begin with `log.`.
    pub async fn log(&self) {
        self.broker.open_stream(&self.spec("LOG", "log.>", None)).await.unwrap();
    }

    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::new(&format!("{}_{name}", self.prefix)).unwrap()
    }

    pub fn queue_name(&self, name: &str) -> QueueName {
        QueueName::new(&format!("{}_{name}", self.prefix)).unwrap()
    }

    /// Appends and waits.
    pub async fn put(&self, subject: &str, body: &str) -> Appended {
        self.append(one(&self.subject(subject), body)).await.unwrap()
    }

    /// Appends bodies `0`, `1`, … and waits for all; their sequences.
    pub async fn put_many(&self, subject: &str, count: usize) -> Vec<Seq> {
        let mut pending = Vec::new();
        for n in 0..count {
            pending.push(self.broker.append(one(&self.subject(subject), &n.to_string())).await.unwrap());
        }
        let mut seqs = Vec::new();
        for append in pending {
            seqs.push(append.await.unwrap().seq);
        }
        seqs
    }

    pub async fn append(&self, append: Append) -> Result<Appended, crate::AppendError> {
        self.broker.append(append).await?.await
    }

    pub async fn read(&self, filter: &str, from: ReadFrom, entries_max: usize) -> Page {
        self.broker.read(&self.filter(filter), from, ReadLimit::entries(entries_max)).await.unwrap()
    }

    /// Everything that matches, from the beginning.
    pub async fn all(&self, filter: &str) -> Vec<Arc<Entry>> {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        loop {
            let after = entries.last().map_or(Seq::ZERO, |entry| entry.seq);
            let page = self.read(filter, ReadFrom::After(after), 1000).await;
            entries.extend(page.entries);
            if !page.more {
                return entries;
            }
        }
    }
}

/// An append with an id of its own.
pub fn one(subject: &Subject, body: &str) -> Append {
    Append::new(subject.clone(), EntryId::unique(), Bytes::copy_from_slice(body.as_bytes()))
}

/// That the last sequence of a subject is this one.
pub fn expect(subject: &Subject, seq: Seq) -> Option<ExpectLast> {
    Some(ExpectLast { subject: subject.clone(), seq })
}

pub fn id(text: &str) -> EntryId {
    EntryId::new(text).unwrap()
}

pub fn bodies(entries: &[Arc<Entry>]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8(entry.body.to_vec()).unwrap()).collect()
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

pub fn seqs(entries: &[Arc<Entry>]) -> Vec<Seq> {
    entries.iter().map(|entry| entry.seq).collect()
}

pub fn growing(seqs: &[Seq]) -> bool {
    seqs.windows(2).all(|pair| pair[0] < pair[1])
}

/// The next `count` entries of a tail, however they come.
pub async fn take(tail: &mut Tail, count: usize) -> Vec<Arc<Entry>> {
    let mut entries = Vec::new();
    while entries.len() < count {
        entries.extend(tail.next_batch(ReadLimit::entries(count - entries.len())).await.unwrap());
    }
    entries
}

/// Makes a test of every case. The argument names an async function that makes a
/// [`Harness`](crate::conformance::Harness), boxed.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:path) => {
        $crate::conformance_tests! { @ $harness =>
            log::appends_of_one_caller_keep_their_order
            log::a_dropped_acknowledgement_does_not_take_the_append_back
            log::an_entry_is_read_back_as_it_was_appended
            log::acknowledged_entries_are_there_after_reopening
            log::a_repeated_id_stores_nothing_and_gets_the_first_sequence
            log::a_repeated_id_in_flight_is_stored_once
            log::ids_repeated_among_many_in_flight_are_each_stored_once
            log::of_many_callers_with_one_id_one_stores
            log::a_repeated_id_is_known_after_reopening
            log::a_repeated_id_is_known_after_its_entry_was_trimmed
            log::the_same_id_in_another_stream_is_another_append
            log::several_subjects_get_the_entry_in_the_order_given
            log::the_most_subjects_of_one_append_are_taken
            log::an_expected_last_sequence_is_compared_and_set
            log::a_repetition_is_answered_whatever_it_expects
            log::a_fence_stops_who_was_replaced
            log::of_racing_expectations_one_is_met
            log::a_full_subject_refuses_until_it_is_trimmed
            log::a_full_subject_of_several_is_left_out
            log::copies_of_many_appends_are_all_there_in_order
            log::what_can_never_be_stored_is_refused
            log::a_failed_append_leaves_those_beside_it_alone
            log::a_stream_with_other_settings_is_refused_and_left_alone
            log::the_limit_of_a_stream_can_be_raised
            log::streams_that_make_no_sense_are_invalid
            log::sequences_grow_on_after_everything_was_trimmed
            log::closing_finishes_what_is_queued_and_refuses_the_rest
            read::a_read_goes_on_where_the_one_before_ended
            read::a_read_backward_is_newest_first
            read::whichever_limit_comes_first_ends_a_page
            read::a_read_by_time_begins_with_the_first_stored_then_or_later
            read::wildcards_find_their_subjects_in_the_order_of_the_stream
            read::paging_through_entries_with_several_subjects_shows_each_once
            read::a_read_sees_every_acknowledged_append
            read::a_filter_over_no_stream_or_several_is_an_error
            read::the_last_of_a_subject_is_its_newest_entry
            read::a_trim_removes_and_counts_what_is_old_enough
            read::a_trim_of_one_subject_leaves_the_entry_on_the_others
            read::a_long_trim_is_complete
            read::the_names_of_streams_are_listed_in_order
            tail::a_tail_gives_what_is_stored_and_then_what_comes
            tail::a_waiting_tail_is_woken
            tail::tails_opened_amid_appends_have_no_gap_and_nothing_twice
            tail::a_slow_tail_holds_nobody_up_and_loses_nothing
            tail::a_batch_keeps_its_limit
            tail::a_cancelled_wait_loses_nothing
            tail::a_tail_sees_subjects_that_did_not_exist
            tail::every_tail_gets_its_own_of_an_entry_with_several_subjects
            tail::a_tail_ends_when_the_broker_closes
            queue::entries_are_handed_out_in_order_and_not_again_after_their_ack
            queue::nothing_is_handed_out_while_a_lease_is_held
            queue::what_was_given_back_comes_again_first_and_after_its_delay
            queue::tries_count_how_often_an_entry_was_handed_out
            queue::an_expired_lease_is_lost_and_its_entries_go_to_another_worker
            queue::an_extended_lease_lasts_longer
            queue::what_was_not_acknowledged_of_a_lease_comes_again_at_once
            queue::the_position_is_kept_over_reopening
            queue::a_waiting_worker_is_woken_by_a_new_entry
            queue::queues_over_one_subject_are_independent
            queue::the_state_of_a_queue_tells_what_waits
            queue::workers_share_a_queue_without_overlap
            queue::a_cancelled_wait_leases_nothing_for_long
            queue::trimmed_entries_are_not_handed_out
            queue::a_queue_over_no_stream_is_an_error
            queue::a_waiting_worker_is_told_when_the_broker_closes
            examine::what_was_just_made_has_no_flaw
            examine::what_is_missing_is_found
            examine::looking_for_flaws_stores_nothing
            examine::a_lower_limit_than_was_promised_is_a_flaw
            examine::a_closed_broker_examines_nothing
            fresh::fresh_appends_are_found_at_the_sequences_that_were_told
            fresh::fresh_and_other_appends_keep_their_order
            fresh::fresh_appends_have_their_copies
            fresh::fresh_appends_to_several_subjects_are_on_all
            fresh::a_fresh_append_is_refused_like_any_other
            fresh::of_fresh_appends_that_nobody_gets_no_copy_stays
            fresh::closing_finishes_fresh_appends
            run::a_run_is_stored_in_its_order_where_it_was_told
            run::a_run_has_entries_with_several_subjects
            run::a_run_behind_a_fence_that_fell_stores_nothing
            run::what_is_full_or_refused_in_a_run_holds_up_nobody
            run::an_empty_run_has_no_answers
            run::a_closed_broker_stores_no_run
            kv::a_key_has_the_value_last_put
            kv::a_deleted_key_is_gone_until_it_is_put_again
            kv::a_write_happens_only_if_its_expectation_is_met
            kv::racing_compare_and_sets_lose_no_count
            kv::what_is_no_key_or_too_large_is_refused
            kv::keys_are_there_after_reopening_and_revisions_go_on
            kv::a_watch_gives_what_is_there_and_then_every_change
            kv::watches_opened_amid_writes_end_with_what_is_there
            kv::a_key_with_a_time_to_live_goes_away_by_itself
            kv::a_time_to_live_goes_on_over_reopening
            rpc::a_request_that_nobody_serves_has_no_responder
            rpc::a_request_is_answered_by_who_serves_its_subject
            rpc::who_begins_to_serve_is_found_at_once
            rpc::a_request_that_is_not_answered_times_out
            rpc::servers_of_one_subject_share_its_requests
            rpc::who_stopped_serving_gets_no_requests
            rpc::serving_ends_when_the_broker_closes
            usage::usage_counts_what_is_in_each_stream_that_is_there
            usage::a_closed_broker_tells_no_usage
        }
    };
    (@ $harness:path => $($group:ident :: $case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::run($harness().await, |cx| Box::pin($crate::conformance::$group::$case(cx))).await;
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_in_the_list() {
        let list = include_str!("mod.rs");
        let groups = [
            ("examine", include_str!("examine.rs")),
            ("fresh", include_str!("fresh.rs")),
            ("kv", include_str!("kv.rs")),
            ("log", include_str!("log.rs")),
            ("queue", include_str!("queue.rs")),
            ("read", include_str!("read.rs")),
            ("rpc", include_str!("rpc.rs")),
            ("run", include_str!("run.rs")),
            ("tail", include_str!("tail.rs")),
            ("usage", include_str!("usage.rs")),
        ];
        for (group, source) in groups {
            for case in source.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
                let name = case.split('(').next().unwrap();
                assert!(
                    list.contains(&format!("{group}::{name}\n")),
                    "{group}::{name} is not in conformance_tests!"
                );
            }
        }
    }
}
