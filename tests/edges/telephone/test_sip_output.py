import numpy as np

from duologue.edges.telephone._sip_output import MAX_WAITING_S, SipOutput

FRAME = 160


class Stack:
    """A stack that sends a frame every 20 ms from its buffer, and what it has sent."""

    def __init__(self, output):
        self.output = output
        self.now = 0.0
        self.epoch = 1
        self.buffer = []
        self.sent = []

    def write(self):
        self.buffer += self.output.take(self.now, self.epoch, 0.02 * len(self.buffer))

    def run(self, frames):
        for _ in range(frames):
            self.write()
            if self.buffer:
                self.sent.append(int(self.buffer.pop(0)[0]))
            self.now += 0.02

    def restart(self):
        self.buffer.clear()
        self.epoch += 2


def play(output, *numbers):
    for number in numbers:
        output.play(np.full(FRAME, number, np.int16))


def test_all_audio_is_sent_in_order_with_two_frames_in_the_stack():
    output = SipOutput(8000)
    stack = Stack(output)
    play(output, *range(10))
    stack.write()
    assert len(stack.buffer) == 2
    stack.run(12)
    assert stack.sent == list(range(10))
    assert output.sent == output.given == 10 * FRAME


def test_what_a_replaced_stream_held_is_sent_again_and_nothing_is_lost():
    output = SipOutput(8000)
    stack = Stack(output)
    play(output, *range(10))
    stack.run(3)
    stack.write()
    stack.restart()
    stack.run(12)
    assert set(stack.sent) == set(range(10))
    assert stack.sent == sorted(stack.sent)
    assert len(stack.sent) <= 12
    assert output.resent


def test_a_stream_that_stops_gives_back_what_it_held():
    output = SipOutput(8000)
    stack = Stack(output)
    play(output, *range(6))
    stack.run(2)
    stack.write()
    output.stopped(stack.now)
    output.stopped(stack.now + 5)
    stack.restart()
    stack.now += 5
    stack.run(8)
    assert set(stack.sent) == set(range(6))


def test_an_interruption_drops_what_has_not_left_and_waits_for_the_flush():
    output = SipOutput(8000)
    stack = Stack(output)
    play(output, *range(10))
    stack.run(2)
    stack.write()
    assert output.clear(stack.now)
    play(output, 77)
    stack.write()
    assert [int(frame[0]) for frame in stack.buffer] == [2, 3]
    stack.buffer.clear()
    stack.run(1)
    assert stack.sent == [0, 1, 77]
    assert not SipOutput(8000).clear(0.0)


def test_audio_counts_as_heard_after_the_delay_and_dropped_audio_with_it():
    output = SipOutput(8000)
    stack = Stack(output)
    play(output, *range(5))
    stack.run(6)
    assert output.heard(0.1, 0.1) is None
    assert output.heard(0.13, 0.1) == FRAME
    assert output.heard(0.13, 0.1) is None
    assert output.heard(1.0, 0.1) == 5 * FRAME
    assert output.outstanding == 0
    play(output, 5, 6)
    output.clear(stack.now)
    assert output.outstanding == 0
    play(output, 7)
    stack.run(2)
    assert output.heard(9.0, 0.1) == 8 * FRAME


def test_the_oldest_audio_is_dropped_when_too_much_waits():
    output = SipOutput(8000)
    frames = round(MAX_WAITING_S * 50) + 3
    play(output, *range(frames))
    assert output.overflowed == 3 * FRAME
    stack = Stack(output)
    stack.run(frames)
    assert stack.sent[0] == 3
    assert output.sent == output.given
