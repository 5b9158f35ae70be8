"""A faithful fake of APNs, FCM and OAuth, with phones, for tests and for people without credentials."""

from simulator.running import Simulator
from simulator.settings import DEMO, App, Behaviour, Ports, apps_named

__all__ = ["DEMO", "App", "Behaviour", "Ports", "Simulator", "apps_named"]
