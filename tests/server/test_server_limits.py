import pytest

from duologue.server._rate_limits import EvictingPool, TokenBucket, network_of


def test_the_newest_entry_evicts_the_oldest_of_the_largest_network():
    gone: list[str] = []
    room: EvictingPool[str] = EvictingPool(4)
    for name, host in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.2"), ("d", "10.0.0.2")]:
        room.add(name, host, lambda name=name: gone.append(name))
    room.add("e", "10.0.0.3", lambda: gone.append("e"))
    room.add("f", "10.0.0.3", lambda: gone.append("f"))
    assert gone == ["b", "c"]
    assert (len(room), room.evicted) == (4, 2)


def test_one_address_can_not_evict_another():
    gone: list[int] = []
    room: EvictingPool[int] = EvictingPool(8)
    room.add(-1, "192.0.2.7", lambda: gone.append(-1))
    for number in range(1000):
        room.add(number, "198.51.100.1", lambda number=number: gone.append(number))
    assert -1 not in gone
    assert len(room) == 8


def test_a_removed_entry_is_not_evicted():
    gone: list[str] = []
    room: EvictingPool[str] = EvictingPool(1)
    room.add("a", "x", lambda: gone.append("a"))
    room.remove("a")
    room.remove("a")
    room.add("b", "x", lambda: gone.append("b"))
    assert gone == []


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_a_network_is_an_ipv4_address_or_an_ipv6_64(host, network):
    assert network_of(host) == network


def test_a_bucket_holds_one_second_and_a_big_cost_waits_for_all_of_it():
    budget = TokenBucket(10, now=0.0)
    assert all(budget.spend(0.0) for _ in range(10))
    assert not budget.spend(0.05)
    assert budget.spend(0.2)
    assert not budget.spend(0.9, cost=20)
    assert budget.spend(2.0, cost=20)
    assert not budget.spend(2.0)
