"""Amazon Nova Sonic, simulated: Bedrock's bidirectional stream on HTTP/2."""
