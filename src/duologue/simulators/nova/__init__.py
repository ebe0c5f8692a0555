"""The server's side of Nova Sonic's protocol on HTTP/2; needs the ``simulate`` extra."""
