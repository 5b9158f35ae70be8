"""Request bodies on their way out, no faster than the peer's windows let them (RFC 9113, section 5.2)."""

from push.http2_call import Call
from push.http2_frames import END_STREAM, FRAME_AT_MOST, WINDOW, WINDOW_AT_MOST, BrokenProtocol, Kind, written


class Bodies:
    """Writes DATA frames for the calls of one connection."""

    def __init__(self, calls: dict[int, Call], out: list[bytes]) -> None:
        self._calls = calls
        self._out = out
        self._stream_window = WINDOW
        self._frame_at_most = FRAME_AT_MOST
        self.window = WINDOW  # bytes that the peer has leave for on all streams together

    def begin(self, stream_id: int, call: Call) -> None:
        """Send what the windows allow of a new call."""
        call.window = self._stream_window
        self._send(stream_id, call)

    def credit(self, size: int) -> None:
        """Go on with what the peer has leave for again; raises BrokenProtocol."""
        self.window += size
        if not size or self.window > WINDOW_AT_MOST:
            raise BrokenProtocol("impossible credit")
        for stream_id, call in self._calls.items():
            if call.unsent:
                self._send(stream_id, call)

    def credit_stream(self, stream_id: int, call: Call, size: int) -> bool:
        """Go on with one call; False where such a credit is impossible."""
        call.window += size
        if not size or call.window > WINDOW_AT_MOST:
            return False
        self._send(stream_id, call)
        return True

    def limit_frames(self, size: int) -> None:
        """Keep to the peer's SETTINGS_MAX_FRAME_SIZE."""
        self._frame_at_most = max(size, FRAME_AT_MOST)

    def set_stream_window(self, size: int) -> None:
        """Keep to the peer's SETTINGS_INITIAL_WINDOW_SIZE, which changes streams that are open, too."""
        if size > WINDOW_AT_MOST:
            raise BrokenProtocol("impossible window")
        more, self._stream_window = size - self._stream_window, size
        for stream_id, call in self._calls.items():
            call.window += more
            self._send(stream_id, call)

    def _send(self, stream_id: int, call: Call) -> None:
        while call.unsent:
            size = min(len(call.unsent), self.window, call.window, self._frame_at_most)
            if size <= 0:
                return  # the next credit goes on
            piece, call.unsent = call.unsent[:size], call.unsent[size:]
            self.window -= size
            call.window -= size
            self._out.append(written(Kind.DATA, 0 if call.unsent else END_STREAM, stream_id, piece))
