"""The server side of a new HTTP/2 connection: its settings, its receive window, its header coding."""

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

DEFAULT_WINDOW = 65_535  # bytes, RFC 9113
_LARGEST_HEADER_LIST = 8192
_UNLIMITED = 2**31 - 1


def server_side(stream_limit: int, receive_window: int) -> H2Connection:
    """Make a connection whose greeting waits in `data_to_send`."""
    connection = H2Connection(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            normalize_inbound_headers=False,
        )
    )
    connection.decoder.max_header_list_size = _LARGEST_HEADER_LIST
    connection.local_settings = _settings(stream_limit)
    connection.initiate_connection()
    # h2 would end the whole connection over one stream too many; Http2Connection refuses that stream instead.
    connection.local_settings = _settings(_UNLIMITED)
    if receive_window > DEFAULT_WINDOW:
        connection.increment_flow_control_window(receive_window - DEFAULT_WINDOW)
    return connection


def _settings(stream_limit: int) -> Settings:
    values = {
        SettingCodes.MAX_CONCURRENT_STREAMS: stream_limit,
        SettingCodes.MAX_HEADER_LIST_SIZE: _LARGEST_HEADER_LIST,
        SettingCodes.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW,
    }
    return Settings(client=False, initial_values=values)
