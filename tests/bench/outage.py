"""The outage model: many callers, one server that breaks, and a policy between them.

A discrete-event simulation. ``equos_async._retry`` decides here exactly as it does in the client:
the same objects are asked with the same arguments, the queues included; only the clock and the
chance are the model's.

What is assumed:

* **Callers** form a closed loop: each thinks (exponentially, 25 s on average), makes one call,
  waits for its end, good or bad, and thinks again. So 10,000 callers ask for 400 requests a
  second. 500 callers share one process, which means one client: one budget, one lane, one gate.
* **The server** answers 600 requests a second per 10,000 callers (the capacity grows with the
  callers, so the load is two thirds at any size), first come, first served, plus a round trip of
  50 to 150 ms. It queues no more than half a second of work and answers the rest 429 at once. An
  attempt that its client gave up is worked on all the same.
* **The outage** lasts 30 s, after 10 s of calm; callers go on for 60 s after it. Its kinds:

  * *503 at once*: every request is answered 503, without ``Retry-After``.
  * *hang*: nobody answers a connection, so each attempt fails after the connect timeout, provably
    unsent: the kind of hang in which a start may be repeated. What was queued waits it out.
  * *brown-out*: the capacity falls to 30 %.
  * *Retry-After*: 503 with the whole seconds that are left; afterwards 429 says "1".

* **Timeouts** are the library's defaults for every policy, so that only the policies differ.
  A peer has no deadline of its own and repeats any failure, as they do.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Generator
from enum import Enum
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

from attrs import define, field, frozen

from equos_async import Limits, RetryPolicy, Timeouts
from equos_async._api.effects import CREATE, END, Effect
from equos_async._retry.classify import Outcome, Verdict
from equos_async._retry.queue import Limit, Queue
from equos_async._retry.throttle import ClientThrottle

CALM = 10.0
OUTAGE = 30.0
AFTER = 60.0
OUTAGE_END = CALM + OUTAGE

THINK = 25.0
CALLERS_PER_PROCESS = 500
CAPACITY_PER_CALLER = 600 / 10_000
BROWN_OUT = 0.3
QUEUE_SECONDS = 0.5
ROUND_TRIP = (0.05, 0.15)

TICKS = 10
"""Request counts are kept for this many parts of each second."""

_T = TypeVar("_T")


@define(eq=False)
class Signal:
    """A signal that one process waits for."""

    world: World
    value: bool | None = field(default=None, init=False)
    resume: Callable[[], None] | None = field(default=None, init=False)

    def fire(self, value: bool) -> None:
        """Let the process continue with a value, unless it has one already."""
        if self.value is None:
            self.value = value
            if self.resume is not None:
                self.world.at(self.world.now, self.resume)


Process: TypeAlias = Generator[float | Signal, None, _T]
"""Code that runs in model time: it yields seconds to sleep, or a signal to wait for."""


class World:
    """The model's clock: a heap of what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a time; actions at the same time keep their order."""
        self._planned += 1
        heapq.heappush(self._heap, (when, self._planned, action))

    def spawn(self, process: Process[None]) -> None:
        """Run a process until it waits, and again whenever its wait is over."""
        for wait in process:
            resume = partial(self.spawn, process)
            if isinstance(wait, (int, float)):
                self.at(self.now + wait, resume)
                return
            if wait.value is None:
                wait.resume = resume
                return

    def run(self) -> None:
        """Let everything happen."""
        while self._heap:
            self.now, _, action = heapq.heappop(self._heap)
            action()


class Kind(Enum):
    """How the server fails."""

    REFUSE = "503 at once"
    HANG = "hang"
    BROWN_OUT = "brown-out to 30 %"
    ANNOUNCED = "Retry-After"


class Server:
    """One server: the outcome of a request, and the time of its answer.

    Work is counted in requests. ``_work_by`` is how much can have been done by a time, and
    ``_promised`` how much will have been when the last accepted request is through: the
    difference is the queue.
    """

    def __init__(self, world: World, kind: Kind, capacity: float, rng: random.Random) -> None:
        self.requests = [0] * math.ceil((OUTAGE_END + AFTER) * TICKS)
        self._world = world
        self._kind = kind
        self._capacity = capacity
        self._rng = rng
        self._timeouts = Timeouts()
        self._promised = 0.0
        working = {Kind.HANG: 0.0, Kind.BROWN_OUT: BROWN_OUT}.get(kind, 1.0)
        self._outage_rate = capacity * working

    def request(self, timeout: float) -> Process[Outcome]:
        """One attempt, from its first byte to its answer or its timeout."""
        now = self._world.now
        self._count(now)
        if CALM <= now < OUTAGE_END and self._kind is Kind.HANG:
            yield self._timeouts.connect
            return Outcome(sent=False)
        trip = self._rng.uniform(*ROUND_TRIP)
        refusal = self._refusal(now)
        if refusal is not None:
            yield trip
            return refusal
        self._promised = max(self._promised, self._work_by(now)) + 1.0
        took = self._time_of(self._promised) - now + trip
        yield min(took, timeout)
        return Outcome(status=201) if took <= timeout else Outcome()

    def _refusal(self, now: float) -> Outcome | None:
        """The server's immediate refusal, if it does not do the work."""
        announces = self._kind is Kind.ANNOUNCED
        if CALM <= now < OUTAGE_END and self._kind in {Kind.REFUSE, Kind.ANNOUNCED}:
            left = float(math.ceil(OUTAGE_END - now))
            return Outcome(status=503, retry_after=left if announces else None)
        if self._promised - self._work_by(now) >= QUEUE_SECONDS * self._capacity:
            return Outcome(status=429, retry_after=1.0 if announces else None)
        return None

    def _work_by(self, when: float) -> float:
        outage = min(max(0.0, when - CALM), OUTAGE)
        return (when - outage) * self._capacity + outage * self._outage_rate

    def _time_of(self, work: float) -> float:
        before = CALM * self._capacity
        during = OUTAGE * self._outage_rate
        if work <= before:
            return work / self._capacity
        if work <= before + during:
            return CALM + (work - before) / self._outage_rate
        return OUTAGE_END + (work - before - during) / self._capacity

    def _count(self, now: float) -> None:
        tick = int(now * TICKS)
        if tick < len(self.requests):
            self.requests[tick] += 1


class Line:
    """A queue of the library's in model time: its waiters are signals."""

    def __init__(self, world: World, limit: Limit) -> None:
        self._world = world
        self._queue: Queue[Signal] = Queue(limit, lambda waiter: waiter.value is not None)
        self._look_at = math.inf

    def enter(self, deadline: float) -> Process[bool]:
        """Wait for a permit; False if the deadline came first."""
        if self._queue.enter(self._world.now):
            return True
        admitted = Signal(self._world)
        self._queue.join(admitted, deadline)
        self._world.at(deadline, partial(admitted.fire, False))
        self.look()
        yield admitted
        self._queue.drop(admitted)
        return admitted.value is True

    def leave(self) -> None:
        """Give the permit back and let the next one in."""
        self._queue.leave()
        self.look()

    def turn_away(self, before: float) -> None:
        """End the wait of calls whose deadline is not after a time."""
        for waiter in self._queue.before(before):
            waiter.fire(False)

    def look(self) -> None:
        """Admit calls as far as the limit allows, and check again at the queue's time."""
        admission = self._queue.admit(self._world.now)
        for waiter in admission.admitted:
            waiter.fire(True)
        # Rounding must not stop the clock.
        look_at = max(admission.look_at, self._world.now + 1e-6)
        if look_at < math.inf and look_at != self._look_at:
            self._look_at = look_at
            self._world.at(look_at, self.look)


@define
class Call:
    """One call of one caller, for the statistics."""

    began: float
    ended: float = field(default=math.inf, init=False)
    attempts: int = field(default=0, init=False)
    done: bool = field(default=False, init=False)


class Client(Protocol):
    """The state of the tested policy, which the callers of one process share."""

    def call(self, call: Call) -> Process[bool]:
        """Make one call; whether it succeeded."""
        ...


@frozen
class Site:
    """The part of the model that a client needs."""

    world: World
    server: Server
    rng: random.Random


class OurClient:
    """The library's policy for one effect: its throttle and queues, driven as the client does."""

    def __init__(self, site: Site, *, effect: Effect) -> None:
        self._world, self._server, self._rng = site.world, site.server, site.rng
        self._rules = effect.retry
        self._attempt = effect.attempt(Timeouts())
        self._deadline = effect.deadline(Timeouts())
        self._throttle = ClientThrottle(RetryPolicy(), Limits())
        self._limit = self._throttle.limits[self._rules.name]
        self._line = Line(self._world, self._limit)
        self._gate = Line(self._world, self._throttle.gate)

    def call(self, call: Call) -> Process[bool]:
        """One call with its retries."""
        world = self._world
        deadline = world.now + self._deadline
        paid = 0.0
        while True:
            gated = self._rules.gated and call.attempts > 0
            if gated and not (yield from self._gate.enter(deadline)):
                return False
            if world.now + self._limit.pause_left(world.now) >= deadline:
                return False
            if not (yield from self._line.enter(deadline)):
                return False
            call.attempts += 1
            outcome = yield from self._server.request(min(self._attempt, deadline - world.now))
            verdict = self._learn(outcome, call.attempts, paid)
            self._line.leave()
            if gated:
                self._gate.leave()
            if verdict is not Verdict.RETRY:
                return verdict is Verdict.ACCEPTED
            again = self._throttle.again(
                outcome,
                self._rules,
                attempts=call.attempts,
                left=deadline - world.now,
                now=world.now,
                chance=self._rng.random(),
            )
            if again is None:
                return False
            paid = again.paid
            yield again.wait

    def _learn(self, outcome: Outcome, attempts: int, paid: float) -> Verdict:
        now = self._world.now
        verdict, pause = self._throttle.learn(
            outcome,
            self._rules,
            attempts=attempts,
            paid=paid,
            now=now,
            chance=self._rng.random(),
        )
        if pause is not None and self._rules.pauses == self._rules.name:
            self._line.turn_away(now + pause)
        self._gate.look()
        self._line.look()
        return verdict


Wait: TypeAlias = Callable[[int, float, Outcome], float]
"""How long a peer waits: retries made so far, a draw in [0, 1), what the last attempt brought."""


@define
class Quota:
    """The retry quota of the AWS SDKs: tokens for retries, given back by successes."""

    capacity: float = 500.0
    cost: float = 14.0
    success: float = 1.0
    tokens: float = field(default=500.0, init=False)

    def take(self) -> bool:
        """Pay for one retry if there are enough tokens."""
        if self.tokens < self.cost:
            return False
        self.tokens -= self.cost
        return True

    def give(self, retried: bool) -> None:
        """A call succeeded."""
        self.tokens = min(self.capacity, self.tokens + (self.cost if retried else self.success))


class PeerClient:
    """A policy of other clients: a number of retries after any failure, with waits between them."""

    def __init__(
        self, site: Site, *, retries: int, wait: Wait, quota: Callable[[], Quota] | None = None
    ) -> None:
        self._server, self._rng = site.server, site.rng
        self._retries = retries
        self._wait = wait
        self._quota = quota() if quota else None
        self._timeout = Timeouts().start_attempt

    def call(self, call: Call) -> Process[bool]:
        """One call with its retries."""
        while True:
            call.attempts += 1
            outcome = yield from self._server.request(self._timeout)
            if outcome.status == 201:
                if self._quota is not None:
                    self._quota.give(retried=call.attempts > 1)
                return True
            if call.attempts > self._retries:
                return False
            if self._quota is not None and not self._quota.take():
                return False
            yield self._wait(call.attempts - 1, self._rng.random(), outcome)


def at_once(_retries: int, _chance: float, _outcome: Outcome) -> float:
    """No backoff at all."""
    return 0.0


def full_jitter(retries: int, chance: float, _outcome: Outcome) -> float:
    """A uniform share of 1, 2, 4 ... 20 s."""
    return chance * min(20.0, 2.0**retries)


def openai(retries: int, chance: float, outcome: Outcome) -> float:
    """The waits of OpenAI's and Anthropic's SDKs: the server's wish, else 0.5 to 8 s less 25 %."""
    if outcome.retry_after is not None and 0 < outcome.retry_after <= 60:
        return outcome.retry_after
    return min(8.0, 0.5 * 2.0**retries) * (1.0 - 0.25 * chance)


@frozen
class Policy:
    """A row of the table and a line of the picture.

    Attributes:
        name: For people.
        client: Makes one process's client.
        operation: The library's call that it is; None for a peer, which knows no difference.
    """

    name: str
    client: Callable[[Site], Client]
    operation: str | None = None


VENDOR = Policy("vendor's browser SDK (1 retry)", partial(PeerClient, retries=1, wait=at_once))
NAIVE = Policy("naive, 3 retries", partial(PeerClient, retries=3, wait=at_once))
OPENAI = Policy("openai/anthropic, 2 retries", partial(PeerClient, retries=2, wait=openai))
JITTER = Policy("full jitter, 3 retries", partial(PeerClient, retries=3, wait=full_jitter))
QUOTA = Policy(
    "full jitter + AWS quota", partial(PeerClient, retries=3, wait=full_jitter, quota=Quota)
)
START = Policy("equos_async start", partial(OurClient, effect=CREATE), "start")
STOP = Policy("equos_async stop", partial(OurClient, effect=END), "stop")

POLICIES = (VENDOR, NAIVE, OPENAI, JITTER, QUOTA, START, STOP)


@frozen
class Run:
    """The records of one run, and the numbers computed from them."""

    policy: Policy
    kind: Kind
    capacity: float
    calls: list[Call]
    requests: list[int]

    @property
    def amplification(self) -> float:
        """Attempts per call begun in the outage, whenever they were made."""
        calls = self._begun_in_outage()
        return sum(call.attempts for call in calls) / len(calls)

    @property
    def done(self) -> float:
        """The share of the calls begun in the outage that succeeded in the end."""
        calls = self._begun_in_outage()
        return sum(call.done for call in calls) / len(calls)

    @property
    def last_done(self) -> float:
        """Seconds after the outage until the last call begun in it was over."""
        return max(call.ended for call in self._begun_in_outage()) - OUTAGE_END

    @property
    def recovery(self) -> float:
        """Seconds after the outage from which on every new call succeeds within a second."""
        bad = [call.began for call in self.calls if call.began >= OUTAGE_END and not _good(call)]
        return max(bad, default=OUTAGE_END) - OUTAGE_END

    @property
    def p99(self) -> float:
        """Seconds that 99 % of the calls begun 5 s after the outage or later stay within."""
        new = sorted(
            call.ended - call.began if call.done else math.inf
            for call in self.calls
            if call.began >= OUTAGE_END + 5.0
        )
        return new[math.ceil(0.99 * len(new)) - 1]

    @property
    def peak(self) -> float:
        """The most requests in any second after the outage, as a multiple of the capacity."""
        after = self.requests[round(OUTAGE_END * TICKS) :]
        seconds = (sum(after[i : i + TICKS]) for i in range(len(after) - TICKS + 1))
        return max(seconds) / self.capacity

    def _begun_in_outage(self) -> list[Call]:
        return [call for call in self.calls if CALM <= call.began < OUTAGE_END]


def _good(call: Call) -> bool:
    return call.done and call.ended - call.began <= 1.0


def run(policy: Policy, kind: Kind, *, callers: int, seed: int) -> Run:
    """Run one policy through one outage. The same seed gives the same run."""
    rng = random.Random(seed)
    world = World()
    capacity = callers * CAPACITY_PER_CALLER
    server = Server(world, kind, capacity, rng)
    site = Site(world, server, rng)
    calls: list[Call] = []
    clients = [policy.client(site) for _ in range(max(1, callers // CALLERS_PER_PROCESS))]
    for number in range(callers):
        world.spawn(_caller(site, clients[number % len(clients)], calls))
    world.run()
    return Run(policy, kind, capacity, calls, server.requests)


def _caller(site: Site, client: Client, calls: list[Call]) -> Process[None]:
    """Think, call, think again."""
    world = site.world
    yield site.rng.expovariate(1 / THINK)
    while world.now < OUTAGE_END + AFTER:
        call = Call(began=world.now)
        calls.append(call)
        call.done = yield from client.call(call)
        call.ended = world.now
        yield site.rng.expovariate(1 / THINK)
