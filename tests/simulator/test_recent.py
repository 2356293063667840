"""GET /characters/{character_id}/killmails/recent: who may read, pages, cache."""

import time

import pytest

from tests.simulator.client import SCOPE


def test_a_pilot_reads_the_true_list(simulate):
    """esi/README.md §1: an array of killmail_id and killmail_hash, newest first (§5)."""
    client = simulate()
    pilot, truth = next(iter(client.truth().items()))

    answer = client.recent(pilot, client.access(pilot))

    assert answer.status_code == 200
    assert [[row["killmail_id"], row["killmail_hash"]] for row in answer.json()] == truth
    assert truth == sorted(truth, reverse=True)


@pytest.mark.parametrize("token", [None, "nonsense", "a.b.c"])
def test_without_a_good_token_there_is_401(simulate, token):
    """esi/README.md §4, "ESI with a bad token"."""
    client = simulate()
    assert client.recent(next(iter(client.truth())), token).status_code == 401


def test_an_expired_token_is_401(simulate):
    """esi/README.md §4."""
    client = simulate(token_seconds=1, limits={"char-killmail": "9999/1m"})
    pilot = next(iter(client.truth()))
    token = client.access(pilot)

    deadline = time.monotonic() + 5
    while (answer := client.recent(pilot, token)).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)

    assert answer.status_code == 401
    assert answer.json()["error"] == "token is expired"


def test_another_scope_is_403(simulate):
    """esi/README.md §4: 403 "token is not valid for scope"."""
    client = simulate()
    pilot = next(iter(client.truth()))

    answer = client.recent(pilot, client.access(pilot, "publicData"))

    assert (answer.status_code, answer.json()["error"]) == (403, "token is not valid for scope")


def test_the_scope_may_stand_among_others(simulate):
    """esi/README.md §4."""
    client = simulate()
    pilot = next(iter(client.truth()))
    assert client.recent(pilot, client.access(pilot, f"publicData {SCOPE}")).status_code == 200


def test_another_pilots_list_is_403(simulate):
    """esi/README.md §4."""
    client = simulate()
    one, other = client.truth()
    assert client.recent(other, client.access(one)).status_code == 403


def test_the_corporation_list_needs_a_role(simulate):
    """esi/README.md §4: 403 "Character does not have required role(s)"."""
    client = simulate()
    token = client.access(next(iter(client.truth())), "esi-killmails.read_corporation_killmails.v1")

    answer = client.get("/corporations/98370861/killmails/recent", token)

    assert (answer.status_code, answer.json()["error"]) == (403, "Character does not have required role(s)")


def test_pages_cover_the_list_and_end_with_404(simulate):
    """esi/README.md §1 (X-Pages) and §5 "End of list"."""
    client = simulate(page_size=5, pilots=1)
    pilot, truth = next(iter(client.truth().items()))
    token = client.access(pilot)

    pages = [client.recent(pilot, token, number) for number in (1, 2, 3)]

    assert [page.headers["X-Pages"] for page in pages] == ["3", "3", "3"]
    assert [len(page.json()) for page in pages] == [5, 5, 2]
    assert [row["killmail_id"] for page in pages for row in page.json()] == [one for one, _ in truth]
    assert len({page.headers["ETag"] for page in pages}) == 3
    past = client.recent(pilot, token, 4)
    assert (past.status_code, past.json()) == (404, {"error": "Requested page does not exist!"})


def test_last_modified_is_one_for_all_pages_until_the_list_changes(simulate):
    """esi/README.md §3, "Pages": if it is not equal, the list changed between pages."""
    client = simulate(page_size=5, pilots=1)
    pilot = next(iter(client.truth()))
    token = client.access(pilot)
    before = {client.recent(pilot, token, number).headers["Last-Modified"] for number in (1, 2, 3)}
    time.sleep(1.1)  # the header counts whole seconds
    client.control("POST", f"characters/{pilot}/killmails", {"bust_cache": True})
    after = {client.recent(pilot, token, number).headers["Last-Modified"] for number in (1, 2, 3)}
    assert len(before) == len(after) == 1
    assert before != after


@pytest.mark.parametrize("page", ["0", "-1", "x", "9" * 5000])
def test_a_page_that_is_no_page_is_400(simulate, page):
    client = simulate()
    pilot = next(iter(client.truth()))
    answer = client.get(f"/characters/{pilot}/killmails/recent?page={page}", client.access(pilot))
    assert answer.status_code == 400


def test_a_page_holds_a_thousand(simulate):
    """esi/README.md §0: up to 1000 a page."""
    client = simulate(pilots=1, killmail_count=1001, items=1, attackers=1)
    pilot = next(iter(client.truth()))

    answer = client.recent(pilot, client.access(pilot))

    assert (len(answer.json()), answer.headers["X-Pages"]) == (1000, "2")


@pytest.mark.parametrize(("status", "body"), [(200, []), (404, {"error": "Requested page does not exist!"})])
def test_an_empty_list_is_empty_or_404(simulate, status, body):
    """esi/README.md §5 "End of list": both were seen."""
    client = simulate(killmail_count=0, empty_list_status=status)
    pilot = next(iter(client.truth()))

    answer = client.recent(pilot, client.access(pilot))

    assert (answer.status_code, answer.json()) == (status, body)


def test_an_etag_belongs_to_one_address(simulate):
    """esi/README.md §3: one ETag per URL, even where two lists are equal."""
    client = simulate(killmail_count=0)
    etags = [client.recent(pilot, client.access(pilot)).headers["ETag"] for pilot in client.truth()]
    assert len(set(etags)) == 2


def test_an_etag_gives_304_without_a_body(simulate):
    """esi/README.md §3: If-None-Match gives 304, one token; one ETag per address."""
    client = simulate()
    one, other = client.truth()
    token = client.access(one)
    etag = client.recent(one, token).headers["ETag"]

    again = client.recent(one, token, If_None_Match=etag)

    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    assert again.headers["X-Ratelimit-Used"] == "1"
    assert client.recent(other, client.access(other), If_None_Match=etag).status_code == 200


def test_if_modified_since_gives_304_too(simulate):
    """esi/README.md §3."""
    client = simulate()
    pilot = next(iter(client.truth()))
    token = client.access(pilot)
    changed = client.recent(pilot, token).headers["Last-Modified"]

    assert client.recent(pilot, token, If_Modified_Since=changed).status_code == 304
    assert client.recent(pilot, token, If_Modified_Since="Sun, 06 Nov 1994 08:49:37 GMT").status_code == 200


def test_a_list_does_not_change_until_its_cache_expires(simulate):
    """esi/README.md §3: ttl-based; Cache-Control tells the time left."""
    client = simulate(cache_seconds=300)
    pilot, before = next(iter(client.truth().items()))
    token = client.access(pilot)
    first = client.recent(pilot, token)
    [added] = client.control("POST", f"characters/{pilot}/killmails", {"count": 1})["added"]

    second = client.recent(pilot, token)

    assert second.json() == first.json()
    assert second.headers["ETag"] == first.headers["ETag"]
    assert 290 <= int(second.headers["Cache-Control"].removeprefix("public, max-age=")) <= 300
    assert second.headers["Expires"] == first.headers["Expires"]
    assert client.truth()[pilot] == [added, *before]


def test_a_busted_cache_shows_the_new_list_at_once(simulate):
    """esi/README.md §3."""
    client = simulate(cache_seconds=300)
    pilot = next(iter(client.truth()))
    token = client.access(pilot)
    etag = client.recent(pilot, token).headers["ETag"]

    [added] = client.control("POST", f"characters/{pilot}/killmails", {"bust_cache": True})["added"]

    answer = client.recent(pilot, token, If_None_Match=etag)
    assert answer.status_code == 200
    assert answer.json()[0] == {"killmail_id": added[0], "killmail_hash": added[1]}


def test_only_ninety_days_are_listed(simulate):
    """esi/README.md §5: "90 days only"."""
    client = simulate()
    pilot, listed = next(iter(client.truth().items()))
    body = client.control("GET", f"killmails/{listed[0][0]}") | {
        "killmail_id": 77,
        "killmail_time": "2020-01-01T00:00:00Z",
    }
    client.control("POST", f"characters/{pilot}/killmails", {"body": body})

    ids = [row["killmail_id"] for row in client.recent(pilot, client.access(pilot)).json()]

    assert 77 not in ids
    assert len(ids) == len(listed)


def test_a_trailing_slash_is_accepted(simulate):
    """esi/README.md §1."""
    client = simulate()
    pilot = next(iter(client.truth()))
    assert client.get(f"/characters/{pilot}/killmails/recent/", client.access(pilot)).status_code == 200
