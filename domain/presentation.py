"""How an app's notifications look: link, badge, sound, channel, level, and texts in each language."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from domain.kinds import RULES, Kind
from domain.locales import fallbacks
from domain.preferences import Preview


class Badge(StrEnum):
    """What the number on an app's icon counts."""

    NONE = "none"  # pushes do not set it
    UNREAD = "unread"  # items of the log that this installation has not synced


class InterruptionLevel(StrEnum):
    """Apple's interruption level of a notification that may sound."""

    PASSIVE = "passive"
    ACTIVE = "active"
    TIME_SENSITIVE = "time-sensitive"


class DeliveryPriority(StrEnum):
    """How urgently Google delivers to a sleeping phone."""

    HIGH = "high"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Look:
    """How phones show one kind of notification, beside its text."""

    sound: str = "default"  # or a file of the app; empty: none
    channel: str | None = None  # Android's; None, or one that the app lacks: its default channel
    quiet_channel: str = "quiet"  # Android's, of low importance, for a push without a sound
    category: str | None = None  # APNs
    level: InterruptionLevel | None = None  # APNs; None: Apple's default, active
    relevance: float | None = None  # APNs, 0 to 1
    thread: str | None = None  # APNs; `{id}` is the fast or conversation. None: each of them by itself
    priority: DeliveryPriority = DeliveryPriority.HIGH  # Android
    icon: str | None = None  # Android: a drawable of the app
    color: str | None = None  # Android: #rrggbb


@dataclass(frozen=True, slots=True)
class Gap:
    """Where a text has a value: left, text, or label.NAME."""

    name: str


Template = tuple[str | Gap, ...]  # literal text and gaps; values are put in as they are, never read as templates
Forms = Mapping[str, Template]  # by CLDR's plural category; `other` is always there


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one kind in one locale."""

    title: Forms
    body: Forms
    now: Forms | None = None  # body of a reminder at the end itself; None: `body`


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The texts of one kind in all locales."""

    of: Mapping[str, Texts]  # by BCP 47 tag in lower case
    default: str  # the tag for phones that none of them serves

    def serving(self, locale: str | None) -> tuple[str, Texts]:
        """Find the texts for a phone's locale, and their tag."""
        tag = next((each for each in fallbacks(locale) if each in self.of), self.default)
        return tag, self.of[tag]


@dataclass(frozen=True, slots=True)
class Presentation:
    """All of one app's presentation, as one version of its file has it."""

    link: str  # with `{path}`
    badge: Badge
    looks: Mapping[Kind, Look]
    texts: Mapping[tuple[Kind, Preview], Catalogue]
    own: frozenset[str] = field(default=frozenset(), compare=False)  # keys of texts that the app's file has

    def url(self, kind: Kind, conversation_id: UUID) -> str:
        """Give the deep link that a tap opens."""
        return self.link.replace("{path}", RULES[kind].path_to(conversation_id))

    def thread_id(self, kind: Kind, conversation_id: UUID, default: str) -> str:
        """Name the group of notifications on an iPhone's lock screen."""
        thread = self.looks[kind].thread
        return default if thread is None else thread.replace("{id}", str(conversation_id))


class Presentations:
    """The presentation of each app. A file that changes replaces its app's presentation as a whole."""

    def __init__(self, default: Presentation, named: Mapping[str, Presentation] | None = None) -> None:
        """`named` are the apps of APPS_FILE; None: all phones belong to the default app."""
        self._default, self._named = default, named

    def of(self, app_id: str | None) -> Presentation:
        """Find an app's presentation; that of the default app where no app has its own."""
        return self._default if self._named is None or app_id is None else self._named.get(app_id, self._default)

    def at_present(self) -> "Presentations":
        """Give these as they are now, whatever changes afterwards."""
        return Presentations(self._default, self._named)

    def replace(self, default: Presentation, named: Mapping[str, Presentation] | None) -> None:
        """Use these from now on."""
        self._default, self._named = default, named
