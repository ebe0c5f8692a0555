"""What programs import to test their agents: virtual time and scripted models."""
