"""Sends events to the addresses that an app's backend names: one signed request, to no private address."""
