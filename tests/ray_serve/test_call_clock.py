from duologue.ray._call_clock import CallClock, End, Warn


def test_warns_once_and_then_ends_each_call_by_its_own_age():
    clock = CallClock(max_call_s=100, warn_s=30)
    running = {"one": object()}
    assert clock.check(0, running) == []
    running["two"] = object()
    assert clock.check(50, running) == []
    assert clock.check(75, running) == [Warn("one", 25)]
    assert clock.check(76, running) == []
    assert clock.check(100, running) == [End("one")]
    del running["one"]
    assert clock.check(125, running) == [Warn("two", 25)]
    assert clock.check(151, running) == [End("two")]


def test_warns_of_a_short_call_at_half_of_it():
    clock = CallClock(max_call_s=10, warn_s=30)
    assert clock.check(0, {"one": object()}) == []
    assert clock.check(5, {"one": object()}) == [Warn("one", 5)]


def test_forgets_calls_that_have_ended():
    clock = CallClock(max_call_s=10, warn_s=0)
    clock.check(0, {"one": object()})
    clock.check(5, {})
    assert clock.check(11, {"one": object()}) == []
