"""What every request passes through: connection, bounds, caller, rates, log, problems, headers."""
