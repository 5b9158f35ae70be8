"""The doctor's look at clocks: bearer tokens, provider tokens and due instants need ours to agree with others'."""

from commands.doctor_lines import Area, Line

_NOTICED = 2.0  # seconds; an HTTP date is up to one second old
_TOO_MUCH = 10.0  # seconds; bearer tokens have this leeway
_TO_DO = "Let this machine and that one follow a time server (chrony, systemd-timesyncd)."


def clock_line(area: Area, whose: str, theirs: float, ours: float) -> Line:
    """Compare two clocks, in UNIX seconds."""
    ahead = ours - theirs
    found = f"this machine's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} that of {whose}"
    if abs(ahead) > _TOO_MUCH:
        return area.failure(found, _TO_DO)
    if abs(ahead) > _NOTICED:
        return area.warning(found, _TO_DO)
    return area.ok(f"the clock agrees with that of {whose}")
