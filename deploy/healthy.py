"""Tell whether a local address answers 200, and holds a word: `healthy.py 9464/metrics temporal_num_pollers`."""

import http.client
import sys


def main(address: str, word: str = "") -> int:
    """Ask once; 0 is healthy."""
    port, _, path = address.partition("/")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=4)
    try:
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        return 0 if answer.status == 200 and word.encode() in answer.read() else 1
    except (OSError, http.client.HTTPException):
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
