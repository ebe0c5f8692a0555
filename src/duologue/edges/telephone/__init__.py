"""Callers on a telephone, whose carrier streams the audio over a WebSocket (extra ``telephone``).

`mount` adds the webhook and the socket of a carrier to a web app; each call gets an agent whose
edge is a `MediaStream`. `dial` calls a number. `SIP` takes and places calls over SIP (extra
``sip``), each with a `SIPCall` as its edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names
from duologue.edges.telephone.calls import PhoneCall, PhoneControl, TelephoneError
from duologue.edges.telephone.media_stream import MediaStream

if TYPE_CHECKING:
    from duologue.edges.telephone.app import mount, routes
    from duologue.edges.telephone.carrier import Carrier, dial
    from duologue.edges.telephone.plivo import Plivo
    from duologue.edges.telephone.sip import SIP
    from duologue.edges.telephone.sip_call import SIPCall
    from duologue.edges.telephone.telnyx import Telnyx
    from duologue.edges.telephone.twilio import Twilio
    from duologue.edges.telephone.vonage import Vonage

__all__ = [
    "PhoneControl",
    "Carrier",
    "MediaStream",
    "PhoneCall",
    "Plivo",
    "SIP",
    "SIPCall",
    "TelephoneError",
    "Telnyx",
    "Twilio",
    "Vonage",
    "dial",
    "mount",
    "routes",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.edges.telephone.carrier": ["Carrier", "dial"],
            "duologue.edges.telephone.plivo": ["Plivo"],
            "duologue.edges.telephone.sip": ["SIP"],
            "duologue.edges.telephone.sip_call": ["SIPCall"],
            "duologue.edges.telephone.app": ["mount", "routes"],
            "duologue.edges.telephone.telnyx": ["Telnyx"],
            "duologue.edges.telephone.twilio": ["Twilio"],
            "duologue.edges.telephone.vonage": ["Vonage"],
        },
    )
