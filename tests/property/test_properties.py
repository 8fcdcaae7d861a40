"""Laws for any input: bytes, answers, times and random numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import attrs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from equos_async import (
    ConfigurationError,
    CreateSessionPassRequest,
    EquosClient,
    EquosError,
    EquosParticipantIdentity,
    Limits,
    RetryPolicy,
    _validate,
    models,
)
from equos_async._api import answers, codec
from equos_async._api.codec import Structured
from equos_async._api.effects import CREATE, END, READ
from equos_async._api.operations import (
    PING,
    RESOURCES,
    START_SESSION,
    Resource,
    resource_of,
)
from equos_async._retry.backoff import delay, parse_retry_after
from equos_async._retry.classify import Outcome, RetryRules, Verdict, classify
from equos_async._retry.throttle import AdaptiveLimit, Again, ClientThrottle, RetryBudget, RetryGate
from equos_async.errors import ResourceName
from tests.clocks import SkippingClock
from tests.conftest import KEY
from tests.faults.server import Connection, RawServer
from tests.faults.test_matrix import GONE, TIMEOUTS, outcome
from tests.unit.test_wire import CONVERSATION, SESSION, STARTED, dump

laws = settings(derandomize=True, max_examples=200, deadline=None, database=None)
few = settings(derandomize=True, max_examples=60, deadline=None, database=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def mangled(field: str, value: object) -> bytes:
    """The answer to a start with one field changed of what it began."""
    return dump(
        {"session": {**SESSION, field: value}, "conversation": {**CONVERSATION, field: value}}
    )


MANGLED = st.builds(mangled, st.sampled_from(sorted({*SESSION, *CONVERSATION})), JSON)
ITEMS = JSON | st.fixed_dictionaries({"id": st.text(max_size=5) | JSON, "name": JSON})
BODIES = st.one_of(st.binary(max_size=200), JSON.map(lambda v: json.dumps(v).encode()), MANGLED)
STATUSES = st.one_of(st.integers(100, 999), st.sampled_from([200, 201, 204, 400, 429, 500, 503]))
OUTCOMES = st.builds(
    Outcome,
    status=st.none() | STATUSES,
    sent=st.booleans(),
    fatal=st.booleans(),
    retry_after=st.none() | st.floats(0, 1e9),
)


@laws
@given(BODIES)
def test_decoding_raises_nothing_but_ours(body: bytes) -> None:
    """Any bytes are a value, None, or unreadable, maybe with an id that can be stopped."""
    answers.is_foreign(body, "s-1")
    PING.decode(body)
    for resource in RESOURCES.values():
        for end in resource.ends:
            end.decode(body)
        resource.get.decode(body)
        started = resource.create.decode(body)
        if not isinstance(started, answers.Unreadable):
            session_id = resource.id_of(started.value)
            assert _validate.session_id(session_id) == session_id
        elif started.session_id is not None:
            assert _validate.session_id(started.session_id) == started.session_id


@laws
@given(st.sampled_from(["sessions", "conversations"]), JSON | st.lists(ITEMS), JSON)
def test_a_page_is_what_of_it_can_be_read(name: str, items: object, total: object) -> None:
    """Whatever it contains, each item has an id, and the paths of the others are reported."""
    row = RESOURCES["session" if name == "sessions" else "conversation"].list
    decoded = row.decode(json.dumps({name: items, "total": total}).encode())
    if isinstance(decoded, Structured):
        page = decoded.value
        for item in page.items:
            assert _validate.session_id(item.id) == item.id
        assert len(page.items) == page.count or decoded.unreadable
        assert page.total is None or page.total >= 0
        assert len(set(decoded.unreadable)) == len(decoded.unreadable)
    else:  # a number that is none, or no list
        assert isinstance(decoded, answers.Unreadable)


FULL: dict[str, Any] = {
    **STARTED,
    "session": {
        **SESSION,
        "agent": {"id": "ag_1", "search": True, "createdAt": "2025-12-10T09:11:47.123Z"},
        "knowledgeBase": {"id": "kb_1"},
        "maxDuration": 600,
        "templateVars": {"a": "b"},
    },
}


FULL_TALK: dict[str, Any] = {"conversation": CONVERSATION, "consumerAccessToken": "eyJ.a.b"}

Path = tuple[str | int, ...]


def paths(value: object, before: Path = ()) -> Iterator[Path]:
    """The path of each field and element of an answer."""
    inner: dict[Any, object] = {}
    if isinstance(value, dict):
        inner = cast("dict[Any, object]", value)
    elif isinstance(value, list):
        inner = dict(enumerate(cast("list[object]", value)))
    for name, one in inner.items():
        yield (*before, name)
        yield from paths(one, (*before, name))


ESSENTIAL: dict[str, set[Path]] = {
    "session": {
        *(("session",), ("session", "id")),
        *(("session", "host"), ("session", "host", "serverUrl")),
    },
    "conversation": {("conversation",), ("conversation", "id")},
}
FIELDS = [("session", path) for path in sorted(set(paths(FULL)), key=str)] + [
    ("conversation", path) for path in sorted(set(paths(FULL_TALK)), key=str)
]
ODD = st.sampled_from([..., None, 0, 7.5, True, "", "x", [], [1], {}, {"id": 7}, 10**400, "\ud800"])


@laws
@given(st.sampled_from(FIELDS), ODD)
def test_one_field_costs_nothing(field: tuple[ResourceName, Path], odd: Any) -> None:
    """Removed, null or of any other type: a start stays usable, unless the field is required."""
    word, path = field
    resource = RESOURCES[word]
    answer: Any = json.loads(json.dumps(FULL if word == "session" else FULL_TALK))
    *way, last = path
    holder = answer
    for name in way:
        holder = holder[name]
    if odd is ...:
        del holder[last]
    else:
        holder[last] = odd
    decoded = resource.create.decode(json.dumps(answer).encode())
    if isinstance(decoded, Structured):
        assert resource.address_of(decoded.value) or path[-1] == "serverUrl"
        assert len(decoded.unreadable) <= 2
    else:
        assert path in ESSENTIAL[word]


@few
@given(STATUSES.filter(lambda s: s >= 200), BODIES, st.sampled_from(["", "2", "x", "0"]))
async def test_any_answer_ends_in_a_listed_result(status: int, body: bytes, after: str) -> None:
    """Over a real socket: a value, or an error of ours; a start is never sent twice in doubt."""

    async def behave(connection: Connection) -> None:
        connection.act()
        headers = f"Retry-After: {after}\r\n" if after else ""
        await connection.reply(status, body, headers)

    request = CreateSessionPassRequest(
        name="x", avatar="a", agent="b", consumer_identity=EquosParticipantIdentity("u", "n")
    )
    async with RawServer([behave, behave]) as server:
        async with EquosClient(
            KEY, endpoint=server.endpoint, clock=SkippingClock(), timeouts=TIMEOUTS
        ) as client:
            await outcome(client.start_session(request))
            starts = sum("stop" not in path for path in server.paths)
            told = Outcome(status=status, retry_after=2.0 if after in {"2", "0"} else None)
            assert starts == 1 or classify(told, CREATE.retry) is Verdict.RETRY
            await outcome(client.stop_session(GONE))


MOMENTS = st.datetimes(
    datetime(1970, 1, 2),
    datetime(9000, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)


# The longer before what they begin with.
MODELS = (
    *("Server", "Avatar", "Agent", "Reference", "Identity", "Session"),
    *("Utterance", "Entry", "Host", "Character", "Conversation"),
)


def instances(cls: Any) -> st.SearchStrategy[Any]:
    """Values of one of the contract's types, from the types of its fields."""
    attrs.resolve_types(cls)
    return st.builds(cls, **{field.name: values(field) for field in attrs.fields(cls)})


def values(field: Any) -> st.SearchStrategy[Any]:
    """Values of a field that the wire can carry."""
    kind = str(field.type)
    inner: st.SearchStrategy[Any] | None = next(
        (
            instances(getattr(models, name))
            for name in MODELS
            for name in [n for n in vars(models) if n.startswith("Equos") and n.endswith(name)]
            if f"models.{name}" in kind
        ),
        None,
    )
    if inner is None:
        plain: dict[str, st.SearchStrategy[Any]] = {
            "str": st.text(min_size=1),
            "float": st.floats(0.001, 1e9),
            "bool": st.booleans(),
            "datetime": MOMENTS,
            "Mapping": st.dictionaries(st.text(), st.text(), max_size=3),
            "Any": st.none() | st.dictionaries(st.text(), st.text(), max_size=2),
        }
        names = ("Mapping", "datetime", "Any", "str", "float", "bool")
        inner = plain[next(name for name in names if name in kind)]
    if "tuple" in kind:
        inner = st.lists(inner, max_size=2).map(tuple)
    return inner | st.none() if field.default is None else inner


def spelled(value: Any) -> Any:
    """A value as the contract spells it, without what is not set."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [spelled(one) for one in cast("tuple[object, ...]", value)]
    kind = cast("Any", type(value))
    if not attrs.has(kind):
        return value
    return {
        codec.camel(field.name): spelled(getattr(value, field.name))
        for field in attrs.fields(kind)
        if getattr(value, field.name) is not None
    }


def can_stand_in_a_path(session_id: str) -> bool:
    """The rule for ids in the answer to a start, besides their type."""
    body = dump({**STARTED, "session": {**SESSION, "id": session_id}})
    return not isinstance(START_SESSION.decode(body), answers.Unreadable)


STARTS = st.one_of(
    instances(models.CreateEquosSessionResponse),
    instances(models.CreateEquosConversationResponse),
)
THINGS = st.one_of(instances(models.EquosSession), instances(models.EquosConversation))


def resource_about(value: object) -> Resource[Any, Any, Any]:
    """The resource of a model."""
    return RESOURCES["conversation" if "Conversation" in type(value).__name__ else "session"]


@few
@given(STARTS)
def test_a_start_answer_is_read_as_it_was_meant(value: Any) -> None:
    """Whatever its fields hold, all of it arrives, and every type is what it was."""
    resource = resource_about(value)
    assume(can_stand_in_a_path(resource.id_of(value)))
    assert resource.create.decode(dump(spelled(value))) == Structured(value)


@few
@given(THINGS)
def test_a_stop_answer_is_read_as_it_was_meant(value: Any) -> None:
    """The same of a session, or a conversation, alone."""
    resource = resource_about(value)
    for row in (*resource.ends, resource.get):
        assert row.decode(dump(spelled(value))) == Structured(value)


@few
@given(
    st.one_of(
        instances(models.CreateSessionPassRequest),
        instances(models.CreateEquosConversationRequest),
    )
)
def test_a_request_is_written_as_it_is_meant(value: Any) -> None:
    """All of it leaves, under the names of the contract, and nothing else."""
    resource = resource_of(value)
    assert resource is resource_about(value)
    assert json.loads(resource.create.body(value)) == spelled(value)


@few
@given(STARTS | THINGS)
def test_there_and_back_is_the_same(value: Any) -> None:
    """An answer that the package writes is read back as the same value."""
    resource = resource_about(value)
    body = resource.create.body(value)
    if hasattr(value, "id"):
        assert resource.get.decode(body) == Structured(value)
    else:
        assume(can_stand_in_a_path(resource.id_of(value)))
        assert resource.create.decode(body) == Structured(value)


class TestRetry:
    @laws
    @given(
        OUTCOMES,
        st.sampled_from([CREATE.retry, END.retry, READ.retry]),
        st.integers(1, 9),
        st.floats(0.001, 120),
        st.floats(0, 1, exclude_max=True),
    )
    def test_no_wait_is_too_long(
        self, told: Outcome, rules: RetryRules, attempts: int, left: float, chance: float
    ) -> None:
        """Never beyond the deadline, nor above the cap unless asked, nor below what is asked."""
        policy = RetryPolicy()
        wait = delay(policy, rules, told, attempts=attempts, left=left, chance=chance)
        if wait is not None:
            assert 0 <= wait < left
            assert attempts < rules.attempts(policy)
            if told.retry_after is None:
                assert wait <= policy.cap
            else:
                assert wait >= told.retry_after
                assert rules.patient or told.retry_after <= policy.max_retry_after

    @laws
    @given(OUTCOMES)
    def test_a_start_is_repeated_only_where_it_was_not_processed(self, told: Outcome) -> None:
        """Not sent, or refused by a status that says so."""
        if classify(told, CREATE.retry) is Verdict.RETRY:
            refused = told.status in {421, 429} or (
                told.status == 503 and told.retry_after is not None
            )
            assert refused or (told.status is None and not told.sent and not told.fatal)

    @laws
    @given(st.lists(st.tuples(st.sampled_from([1.0, 5.0, 10.0]), st.floats(0, 5), st.booleans())))
    def test_the_budget_keeps_its_bounds(self, moves: list[tuple[float, float, bool]]) -> None:
        """Never negative, never above its size."""
        budget, now = RetryBudget(RetryPolicy(budget=30)), 0.0
        for tokens, passed, take in moves:
            now += passed
            if take:
                assert budget.take(tokens, now) or budget.tokens < tokens
            else:
                budget.give(tokens)
            assert 0 <= budget.tokens <= 30

    @laws
    @given(st.lists(st.tuples(st.sampled_from("elrsp"), st.floats(0, 3)), max_size=60))
    def test_limits_keep_their_limits(self, moves: list[tuple[str, float]]) -> None:
        """However they are entered, left, refused, succeeded and paused."""
        limit, gate, now = AdaptiveLimit(5, RetryPolicy()), RetryGate(RetryPolicy()), 0.0
        for move, passed in moves:
            now += passed
            if move == "e":
                for one in (limit, gate):
                    wait = one.enter(now)
                    assert wait >= 0
                    assert math.isfinite(wait) or one.in_flight > 0
            elif move == "l":
                for one in (limit, gate):
                    if one.in_flight:
                        one.leave()
            elif move == "r":
                limit.refused(now)
                gate.failed(now, 0.5)
            elif move == "s":
                limit.succeeded()
                gate.succeeded()
            else:
                limit.pause(now, 1.0)
            assert 0 <= limit.in_flight <= 5
            assert 0 <= gate.in_flight <= 8
            assert limit.window is None or 1 <= limit.window <= 5
            assert 1 <= gate.limit <= 8

    @laws
    @given(st.text(), st.text(), st.text())
    def test_any_header_is_a_wish_or_none(self, after: str, ms: str, date: str) -> None:
        """Whatever a server sends, it is a finite time that is not negative, or nothing."""
        wish = parse_retry_after({"Retry-After": after, "Retry-After-Ms": ms, "Date": date}, 0.0)
        assert wish is None or (wish >= 0 and math.isfinite(wish))

    def test_the_same_seed_gives_the_same_delays(self) -> None:
        """Chance is an argument."""

        def delays(seed: int) -> list[Again | None]:
            clock, throttle = SkippingClock(seed), ClientThrottle(RetryPolicy(), Limits())
            return [
                throttle.again(
                    Outcome(status=429),
                    END.retry,
                    attempts=attempts,
                    left=60,
                    now=0,
                    chance=clock.chance(),
                )
                for attempts in range(1, 8)
            ]

        assert delays(1) == delays(1)
        assert delays(1) != delays(2)


@few
@given(st.text(max_size=300))
async def test_an_accepted_id_is_one_segment(session_id: str) -> None:
    """Any accepted id reaches the server as one segment."""
    try:
        _validate.session_id(session_id)
    except ConfigurationError:
        return
    async with RawServer() as server:
        async with EquosClient(KEY, endpoint=server.endpoint) as client:
            await client.stop_session(session_id)
    (path,) = server.paths
    assert path.startswith("/v3/session-passes/")
    assert path.endswith("/stop")
    assert path.count("/") == 4


@laws
@given(st.text(max_size=60) | st.text("htps:/.@?#[]lo1%\\", max_size=30))
def test_any_endpoint_is_taken_or_named(value: str) -> None:
    """No text makes it raise anything else."""
    try:
        taken = _validate.endpoint(value)
    except EquosError as error:
        assert str(error).startswith("endpoint ")
    else:
        assert taken.lower().startswith(("https://", "http://"))
