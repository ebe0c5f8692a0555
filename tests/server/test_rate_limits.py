import pytest

from duologue.server._rate_limits import EvictingPool, TokenBucket, network_of


def test_the_newest_entry_evicts_the_oldest_of_the_largest_network():
    evicted: list[str] = []
    pool: EvictingPool[str] = EvictingPool(4)
    for name, host in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.2"), ("d", "10.0.0.2")]:
        pool.add(name, host, lambda name=name: evicted.append(name))
    pool.add("e", "10.0.0.3", lambda: evicted.append("e"))
    pool.add("f", "10.0.0.3", lambda: evicted.append("f"))
    assert evicted == ["b", "c"]
    assert (len(pool), pool.evicted) == (4, 2)


def test_one_address_can_not_evict_another():
    evicted: list[int] = []
    pool: EvictingPool[int] = EvictingPool(8)
    pool.add(-1, "192.0.2.7", lambda: evicted.append(-1))
    for number in range(1000):
        pool.add(number, "198.51.100.1", lambda number=number: evicted.append(number))
    assert -1 not in evicted
    assert len(pool) == 8


def test_a_removed_entry_is_not_evicted():
    evicted: list[str] = []
    pool: EvictingPool[str] = EvictingPool(1)
    pool.add("a", "x", lambda: evicted.append("a"))
    pool.remove("a")
    pool.remove("a")
    pool.add("b", "x", lambda: evicted.append("b"))
    assert evicted == []


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
