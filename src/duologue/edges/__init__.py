"""Where the person is: a browser, a microphone, a line, a file."""
