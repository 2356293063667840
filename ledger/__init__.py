"""The ledger: what is to be fetched, who is fetching it, and when a sync is done. SQL and nothing else.

What has to be done is written down before anything is done; a message only says "there is something to do". So a
message may be lost, doubled or late, and a process may die anywhere: what is left in these tables is always enough to
go on. Nothing here sends a message, calls ESI or reads a setting: callers pass what is needed and act on what comes
back, after the commit.

A sync:     open -> claim -> add page, ... -> end listing -> finalize
A killmail: (added by a page) pending -> sent -> fetching -> stored
                                                          \\-> deferred -> pending, or rejected
"""

from ledger.dispatching import (
    Allowed,
    Outgoing,
    dispatch,
    forget_wake,
    has_pending,
    next_due,
    set_wake,
    upcoming,
)
from ledger.fetching import (
    Claim,
    Settled,
    claim,
    defer,
    give_back,
    lease_ends,
    put_with_slow,
    reject,
    release,
    release_behind,
    settle,
)
from ledger.finishing import (
    Finished,
    Progress,
    finalize,
    finish_unchanged,
    ready_to_finish,
    sync_progress,
    waiting_for_retries,
)
from ledger.hashes import try_other_hash
from ledger.listing import (
    ClaimedSync,
    PageAdded,
    add_page,
    attempts_of,
    claim_sync,
    end_listing,
    fail_sync,
    has_links,
    links_of,
    priority_of,
    put_off_unclaimed,
    wait_with_sync,
)
from ledger.opening import Opened, Outcome, open_due_syncs, open_sync, retry_given_up
from ledger.pending_syncs import more_to_look_at, needing_refresh
from ledger.refusals import PutBehind, count_refusal
from ledger.repair import (
    fail_abandoned,
    reset_unfinished,
    take_back_expired,
)
from ledger.sync_window import (
    OutgoingSync,
    SyncRoom,
    any_sync_to_read,
    choose_syncs,
    forget_sync_wake,
    has_pending_sync,
    interactive_fetches,
    mark_unsent,
    next_share,
    next_sync_wait,
    overdue_messages,
    pending_background,
    set_sync_wake,
    take_back_lost,
)
from ledger.unlinking import Unlinked, unlink
from ledger.wrong_bodies import doubt

__all__ = [
    "Allowed",
    "Claim",
    "ClaimedSync",
    "Finished",
    "Opened",
    "Outcome",
    "Outgoing",
    "OutgoingSync",
    "PageAdded",
    "Progress",
    "PutBehind",
    "Settled",
    "SyncRoom",
    "Unlinked",
    "add_page",
    "any_sync_to_read",
    "attempts_of",
    "choose_syncs",
    "claim",
    "claim_sync",
    "count_refusal",
    "defer",
    "dispatch",
    "doubt",
    "end_listing",
    "fail_abandoned",
    "fail_sync",
    "finalize",
    "finish_unchanged",
    "forget_sync_wake",
    "forget_wake",
    "give_back",
    "has_links",
    "has_pending",
    "has_pending_sync",
    "interactive_fetches",
    "lease_ends",
    "links_of",
    "mark_unsent",
    "more_to_look_at",
    "needing_refresh",
    "next_due",
    "next_share",
    "next_sync_wait",
    "open_due_syncs",
    "open_sync",
    "overdue_messages",
    "pending_background",
    "priority_of",
    "put_off_unclaimed",
    "put_with_slow",
    "ready_to_finish",
    "reject",
    "release",
    "release_behind",
    "reset_unfinished",
    "retry_given_up",
    "set_sync_wake",
    "set_wake",
    "settle",
    "sync_progress",
    "take_back_expired",
    "take_back_lost",
    "try_other_hash",
    "unlink",
    "upcoming",
    "wait_with_sync",
    "waiting_for_retries",
]
