"""The built-in notifiers, in the order they are listed."""

from falco_talon.notifiers.k8sevents import K8sEvents
from falco_talon.notifiers.webhook import Webhook
from falco_talon.plugin import Notifier

NOTIFIERS: tuple[type[Notifier], ...] = (K8sEvents, Webhook)
