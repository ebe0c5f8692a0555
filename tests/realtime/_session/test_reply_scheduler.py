import asyncio

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from duologue.clock import LoopClock
from duologue.realtime._session.reply_scheduler import (
    AUTOMATIC_TIMEOUT_S,
    CANCEL_TIMEOUT_S,
    MAX_BUSY_RETRIES,
    MAX_SPEECH_S,
    REQUEST_TIMEOUT_S,
    EffectRunner,
    ReplyScheduler,
    Request,
)
from duologue.realtime.commands import CancelReply, RequestReply, Say
from duologue.realtime.outputs import ReplyRefused
from duologue.testing import virtual_time


class Session(RuleBasedStateMachine):
    """A provider that behaves arbitrarily, against the promises C3 and C4."""

    def __init__(self):
        super().__init__()
        self.replies = ReplyScheduler()
        self.epoch = 0
        self.now = 0.0
        self.count = 0
        self.asked_in = {}  # request id to the epoch of the request
        self.ends = {}  # request id to how it ended
        self.at_provider = []  # requests it was sent and has not fulfilled
        self.running = {}  # reply id to its epoch
        self.cancelled = set()
        self.sent_at = {}
        self.expected = []  # epoch and time of the user turns that want a reply

    def new_id(self):
        self.count += 1
        return f"id{self.count}"

    def end(self, request_id, how):
        assert request_id in self.asked_in
        assert request_id not in self.ends, "a request ends once"
        self.ends[request_id] = how

    def apply(self, changes):
        for command in changes.commands:
            if isinstance(command, CancelReply):
                assert command.reply_id in self.running
                assert command.reply_id not in self.cancelled, "cancelled once"
                self.cancelled.add(command.reply_id)
            else:
                assert not self.running, "asked while a reply runs"
                assert self.ends.get(command.request_id) is None
                self.at_provider.append(command.request_id)
                self.sent_at[command.request_id] = self.now
        for request_id in changes.dropped:
            assert self.asked_in[request_id] < self.epoch
            self.end(request_id, "dropped")
        for refusal in changes.refused:
            self.end(refusal.request_id, "refused")

    @rule(scripted=st.booleans())
    def request(self, scripted):
        request_id = self.new_id()
        command = Say(request_id, "x") if scripted else RequestReply(request_id)
        self.asked_in[request_id] = self.epoch
        self.apply(self.replies.request(Request(command, self.epoch), self.now))

    @rule()
    def person_ends_turn(self):
        self.replies.expect(self.epoch, self.now)
        self.expected = [e for e in self.expected if e[0] >= self.epoch]
        self.expected.append((self.epoch, self.now))

    @precondition(lambda self: self.at_provider)
    @rule()
    def provider_begins_what_was_asked(self):
        request_id = self.at_provider.pop(0)
        epoch = self.asked_in[request_id]
        self.begin(request_id, epoch)
        if epoch >= self.epoch and request_id not in self.ends:
            self.end(request_id, "started")

    @precondition(lambda self: self.expected)
    @rule()
    def provider_answers_the_person(self):
        self.begin(None, self.expected.pop(0)[0])

    def begin(self, request_id, epoch):
        reply_id = self.new_id()
        self.running[reply_id] = epoch
        self.apply(self.replies.reply_started(reply_id, request_id, self.epoch, self.now))
        assert self.replies.epoch_of(reply_id) == epoch
        assert (reply_id in self.cancelled) == (epoch < self.epoch)

    @precondition(lambda self: self.at_provider)
    @rule(busy=st.booleans())
    def provider_refuses(self, busy):
        request_id = self.at_provider.pop(0)
        refusal = ReplyRefused(request_id, "code", "no", busy)
        again = (self.running or busy) and request_id not in self.ends
        self.apply(self.replies.request_refused(refusal, self.now))
        if not again:
            assert request_id in self.ends
        if request_id in self.ends:
            self.apply(self.replies.request_refused(refusal, self.now))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def provider_ends_a_reply(self, which):
        reply_id = [*self.running][which % len(self.running)]
        del self.running[reply_id]
        self.apply(self.replies.reply_done(reply_id, self.now))
        assert self.replies.epoch_of(reply_id) is None

    @rule()
    def interrupt(self):
        self.epoch += 1
        self.apply(self.replies.interrupt(self.epoch, self.now))
        assert self.cancelled >= set(self.running)
        assert not self.replies.is_pending(self.epoch)
        for request_id in self.asked_in:
            assert request_id in self.ends, "nothing that was asked before still lives"

    @rule(seconds=st.floats(0.1, 40))
    def time_passes(self, seconds):
        until = self.now + seconds
        while (deadline := self.replies.deadline) is not None and deadline <= until:
            assert deadline >= self.now
            self.now = max(self.now, deadline)
            self.poll()
            assert self.replies.deadline is None or self.replies.deadline > self.now
        self.now = until

    def poll(self):
        self.at_provider = [
            r for r in self.at_provider if self.sent_at[r] + REQUEST_TIMEOUT_S > self.now
        ]
        self.expected = [e for e in self.expected if e[1] + AUTOMATIC_TIMEOUT_S > self.now]
        changes = self.replies.poll(self.now)
        for reply_id in [*self.running]:
            if self.replies.epoch_of(reply_id) is None:
                assert reply_id in self.cancelled, "only what was cancelled is given up"
                del self.running[reply_id]
        self.apply(changes)

    @invariant()
    def one_in_flight(self):
        assert len(self.at_provider) <= 1

    @invariant()
    def what_is_awaited_is_pending(self):
        open_requests = set(self.asked_in) - set(self.ends)
        assert self.replies.pending >= bool(open_requests or self.running or self.at_provider)
        if open_requests and any(self.asked_in[r] == self.epoch for r in open_requests):
            assert self.replies.is_pending(self.epoch)

    def teardown(self):
        # The provider sends nothing more: every request still ends.
        for reply_id in [*self.running]:
            del self.running[reply_id]
            self.apply(self.replies.reply_done(reply_id, self.now))
        self.time_passes(60.0 * (len(self.asked_in) + 2))
        assert set(self.ends) == set(self.asked_in)
        assert not self.replies.pending
        assert self.replies.deadline is None


TestSession = Session.TestCase
TestSession.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def ask(replies, request_id, epoch=0, now=0.0):
    return replies.request(Request(RequestReply(request_id), epoch), now)


def test_the_next_request_waits_for_the_running_reply():
    replies = ReplyScheduler()
    assert ask(replies, "a").commands == [RequestReply("a")]
    assert ask(replies, "b").commands == []
    assert replies.reply_started("r", "a", 0, 0.1).commands == []
    assert replies.reply_done("r", 1.0).commands == [RequestReply("b")]


def test_a_request_waits_for_the_automatic_reply():
    replies = ReplyScheduler()
    replies.expect(0, 0.0)
    assert ask(replies, "a").commands == []
    replies.reply_started("r", None, 0, 0.5)
    assert replies.reply_done("r", 1.0).commands == [RequestReply("a")]
    replies = ReplyScheduler()
    replies.expect(0, 0.0)
    ask(replies, "a")
    assert replies.deadline == AUTOMATIC_TIMEOUT_S
    assert replies.poll(AUTOMATIC_TIMEOUT_S).commands == [RequestReply("a")]


def test_a_busy_refusal_is_retried_after_the_reply():
    replies = ReplyScheduler()
    ask(replies, "a")
    replies.reply_started("other", None, 0, 0.1)
    busy = ReplyRefused("a", "active", "busy", busy=True)
    assert replies.request_refused(busy, 0.2).commands == []
    assert replies.reply_done("other", 1.0).commands == [RequestReply("a")]


def test_a_late_busy_refusal_is_retried_but_not_for_ever():
    replies = ReplyScheduler()
    ask(replies, "a")
    busy = ReplyRefused("a", "active", "busy", busy=True)
    for _ in range(MAX_BUSY_RETRIES):
        assert replies.request_refused(busy, 0.2).commands == [RequestReply("a")]
    assert replies.request_refused(busy, 0.2).refused == [busy]


def test_a_stale_request_is_not_retried_and_its_end_is_reported_once():
    replies = ReplyScheduler()
    ask(replies, "a")
    assert replies.interrupt(1, 0.1).dropped == ["a"]
    assert replies.interrupt(2, 0.2).dropped == []
    assert ask(replies, "b", 2).commands == []
    changes = replies.request_refused(ReplyRefused("a", "active", "busy", busy=True), 0.3)
    assert (changes.commands, changes.refused) == ([RequestReply("b")], [])


def test_silence_ends_a_request_with_an_error():
    replies = ReplyScheduler()
    ask(replies, "a")
    ask(replies, "b")
    changes = replies.poll(REQUEST_TIMEOUT_S)
    assert [(r.request_id, r.code) for r in changes.refused] == [("a", "timeout")]
    assert changes.commands == [RequestReply("b")]


def test_a_cancelled_reply_that_never_ends_is_given_up():
    replies = ReplyScheduler()
    replies.reply_started("r", None, 0, 0.0)
    assert replies.interrupt(1, 0.0).commands == [CancelReply("r")]
    assert ask(replies, "a", 1).commands == []
    assert replies.deadline == CANCEL_TIMEOUT_S
    assert replies.poll(CANCEL_TIMEOUT_S).commands == [RequestReply("a")]


def test_an_automatic_reply_that_was_given_up_does_not_make_the_next_one_stale():
    replies = ReplyScheduler()
    replies.expect(0, 0.0)
    replies.interrupt(1, 0.5)  # The person continued, and the provider never began to reply.
    replies.expect(1, 1.0)
    assert replies.reply_started("r", None, 1, 1.2).commands == []
    assert replies.epoch_of("r") == 1


def test_an_automatic_reply_that_comes_too_late_is_cancelled():
    replies = ReplyScheduler()
    replies.expect(0, 0.0)
    replies.interrupt(1, 0.5)
    assert replies.reply_started("r", None, 1, 0.6).commands == [CancelReply("r")]


def test_close_ends_waiting_requests():
    replies = ReplyScheduler()
    ask(replies, "a")
    ask(replies, "b")
    assert sorted(replies.close()) == ["a", "b"]
    assert not replies.pending
    ask(replies, "c")
    replies.interrupt(1, 0.0)
    assert replies.close() == []


def test_a_request_that_waits_for_a_speech_may_wait_as_long_as_that():
    replies = ReplyScheduler(defers_requests=True)
    replies.request(Request(RequestReply("a"), 0), 0.0)
    assert not replies.poll(REQUEST_TIMEOUT_S + MAX_SPEECH_S - 1).refused
    (refused,) = replies.poll(REQUEST_TIMEOUT_S + MAX_SPEECH_S).refused
    assert refused.code == "timeout"


def test_what_is_pending_is_of_an_epoch():
    replies = ReplyScheduler()
    assert not replies.pending
    replies.expect(0, 0.0)
    ask(replies, "a", epoch=1)
    assert (replies.pending, replies.due_next) == (True, True)
    assert [replies.is_pending(epoch) for epoch in (0, 1, 2)] == [True, True, False]
    replies.reply_started("r", None, 0, 1.0)
    assert replies.is_pending(0)
    replies.interrupt(1, 1.0)
    assert not replies.is_pending(0)
    assert replies.running("r").cancelled_at == 1.0
    assert replies.running("s") is None


def test_a_cancelled_reply_is_in_nobodys_way_without_confirmations():
    replies = ReplyScheduler(confirms_cancel=False)
    replies.reply_started("r", None, 0, 0.0)
    assert ask(replies, "a", epoch=1).commands == []
    replies.interrupt(1, 0.1)
    assert ask(replies, "b", epoch=1).commands == [RequestReply("a")]


def test_what_is_due_and_what_is_stuck():
    replies = ReplyScheduler()
    assert (replies.due_since, replies.stuck_since) == (None, None)
    replies.expect(0, 1.0)
    assert replies.due_since is None
    replies.expect(0, 2.0, sure=True)
    assert replies.due_since == 2.0
    replies.poll(2.0 + AUTOMATIC_TIMEOUT_S)
    assert replies.due_since == 2.0, "it is overdue"
    replies.reply_started("r", None, 0, 20.0)
    replies.record_progress("r", 21.0, 4.0)
    replies.record_progress("unknown", 21.0)
    assert (replies.due_since, replies.stuck_since) == (None, 25.0)
    deferring = ReplyScheduler(defers_requests=True)
    deferring.reply_started("r", None, 0, 0.0)
    deferring.record_progress("r", 0.0, 9.0)
    deferring.reply_done("r", 1.0)
    ask(deferring, "a", now=1.0)
    assert deferring.due_since == 9.0


def test_an_expected_reply_may_be_cancelled_adopted_or_refused():
    replies = ReplyScheduler()
    replies.expect(-1, 0.0)
    ask(replies, "a")
    assert replies.cancel_expected(5, 0.1).commands == []
    assert replies.cancel_expected(-1, 0.1).commands == [RequestReply("a")]
    replies = ReplyScheduler()
    assert not replies.adopt(-1, 0)
    replies.expect(-1, 0.0)
    assert not replies.adopt(-2, 0)
    assert replies.adopt(-1, 0)
    assert replies.automatic_refused(0.1)[0] == 0
    assert replies.automatic_refused(0.1)[0] is None


def test_the_epoch_of_an_ended_reply_is_known_for_a_while():
    replies = ReplyScheduler()
    for number in range(20):
        replies.reply_started(f"{number}", None, 0, 0.0)
        replies.reply_done(f"{number}", 0.0)
    assert replies.epoch_of("19", ended=True) == 0
    assert replies.epoch_of("19") is None
    assert replies.epoch_of("0", ended=True) is None
    assert replies.reply_done("unknown", 0.0).commands == []


def test_a_lost_connection_returns_what_runs_and_requeues_what_was_sent():
    replies = ReplyScheduler()
    replies.reply_started("r", None, 0, 0.0)
    replies.expect(0, 0.0, sure=True)
    replies.poll(AUTOMATIC_TIMEOUT_S)
    running, expected = replies.connection_lost()
    assert ([reply.id for reply in running], expected) == (["r"], [0])
    assert ask(replies, "a").commands == []
    assert replies.resume(9.0).commands == [RequestReply("a")]
    assert replies.connection_lost() == ([], [])
    assert ask(replies, "b").commands == []
    assert replies.resume(10.0).commands == [RequestReply("a")]


class Observer:
    def __init__(self):
        self.reported = []

    def reply_ended(self, request_id, error):
        self.reported.append((request_id, None if error is None else error.code))

    def reply_skipped(self, epoch):
        self.reported.append(epoch)


@virtual_time
async def test_effects_are_carried_out_and_the_scheduler_is_polled_in_time():
    replies, observer, sent, polls = ReplyScheduler(), Observer(), [], []
    effects = EffectRunner(
        replies, LoopClock(), transmit=sent.append, observer=lambda: observer,
        on_timer=lambda: polls.append(1),
    )  # fmt: skip
    effects.apply(ask(replies, "early"))
    assert sent == []
    effects.is_open = True
    replies.connection_lost()
    effects.apply(replies.resume(0.0))
    assert [command.request_id for command in sent] == ["early"]
    await asyncio.sleep(REQUEST_TIMEOUT_S + 1)
    assert (observer.reported, polls) == ([("early", "timeout")], [1])
    now = asyncio.get_running_loop().time()
    replies.expect(0, now)
    effects.apply(ask(replies, "late", now=now))
    await asyncio.sleep(AUTOMATIC_TIMEOUT_S + 1)
    assert observer.reported[1:] == [0]
    effects.apply(replies.interrupt(1, now))
    assert observer.reported[2:] == [("late", None)]
    effects.close()
    await asyncio.sleep(100.0)
    assert len(polls) == 2
