"""Which replica gets the next call, when Serve's own proxies route (HAProxy does it by itself).

A module of its own, because every proxy imports it.
"""

from __future__ import annotations

import random

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica


class FewestCalls(FIFOMixin, RequestRouter):
    """Choose the replica with the fewest ongoing requests.

    Serve's own router compares two replicas at random, those of its own node first, by numbers that
    may be ten seconds old. So it finds full ones while others have places. This one asks all of
    them each time, which takes some milliseconds: a call is rare, and long.
    """

    # A busy node may take longer than the tenth of a second that Serve waits for the number, and
    # would be passed over for one that is full.
    queue_len_response_deadline_s = 1.0
    max_queue_len_response_deadline_s = 2.0

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return all replicas; Serve asks them, and takes the one with the shortest queue."""
        for replica in candidate_replicas:
            self.replica_queue_len_cache.invalidate_key(replica.replica_id)
        return [random.sample(candidate_replicas, len(candidate_replicas))]
