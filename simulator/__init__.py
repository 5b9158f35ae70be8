"""A faithful fake of APNs, FCM and OAuth, with phones, for tests and for people without credentials."""

from simulator.apps import DEMO, App, apps_named
from simulator.running import Simulator
from simulator.settings import Behaviour, Ports

__all__ = ["DEMO", "App", "Behaviour", "Ports", "Simulator", "apps_named"]
