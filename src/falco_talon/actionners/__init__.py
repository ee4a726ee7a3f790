"""The built-in actionners, in the order they are listed."""

from falco_talon.actionners.http.request import Request
from falco_talon.actionners.kubernetes.annotation import Annotation
from falco_talon.actionners.kubernetes.label import Label
from falco_talon.actionners.kubernetes.terminate import Terminate
from falco_talon.plugin import Actionner

ACTIONNERS: tuple[type[Actionner], ...] = (Terminate, Label, Annotation, Request)
