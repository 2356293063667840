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
from ledger.fetching import Claim, Settled, claim, defer, give_back, lease_ends, reject, release, settle, show_waiting
from ledger.finishing import Finished, Progress, finalize, finish_unchanged, ready_to_finish, sync_progress
from ledger.hashes import try_other_hash
from ledger.listing import (
    ClaimedSync,
    PageAdded,
    add_page,
    claim_sync,
    end_listing,
    fail_sync,
    links_of,
    priority_of,
    wait_with_sync,
)
from ledger.opening import Opened, Outcome, open_due_syncs, open_sync, retry_given_up
from ledger.refusals import PutBehind, count_refusal
from ledger.repair import (
    SyncToSend,
    fail_abandoned,
    mark_unsent,
    reset_unfinished,
    syncs_to_send,
    take_back_expired,
)
from ledger.unlinking import Unlinked, unlink

__all__ = [
    "Allowed",
    "Claim",
    "ClaimedSync",
    "Finished",
    "Opened",
    "Outcome",
    "Outgoing",
    "PageAdded",
    "Progress",
    "PutBehind",
    "Settled",
    "SyncToSend",
    "Unlinked",
    "add_page",
    "claim",
    "claim_sync",
    "count_refusal",
    "defer",
    "dispatch",
    "end_listing",
    "fail_abandoned",
    "fail_sync",
    "finalize",
    "finish_unchanged",
    "forget_wake",
    "give_back",
    "has_pending",
    "lease_ends",
    "links_of",
    "mark_unsent",
    "next_due",
    "open_due_syncs",
    "open_sync",
    "priority_of",
    "ready_to_finish",
    "reject",
    "release",
    "reset_unfinished",
    "retry_given_up",
    "set_wake",
    "settle",
    "show_waiting",
    "sync_progress",
    "syncs_to_send",
    "take_back_expired",
    "try_other_hash",
    "unlink",
    "upcoming",
    "wait_with_sync",
]
