"""The media path over WebRTC (contract C11); needs the extra ``webrtc``."""
