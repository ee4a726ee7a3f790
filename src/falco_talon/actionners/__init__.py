"""The built-in actionners, in the order they are listed."""

from falco_talon.actionners.http.request import Request
from falco_talon.actionners.kubernetes.annotation import Annotation
from falco_talon.actionners.kubernetes.cordon import Cordon
from falco_talon.actionners.kubernetes.delete import Delete
from falco_talon.actionners.kubernetes.download import Download
from falco_talon.actionners.kubernetes.drain import Drain
from falco_talon.actionners.kubernetes.exec import Exec
from falco_talon.actionners.kubernetes.label import Label
from falco_talon.actionners.kubernetes.log import Log
from falco_talon.actionners.kubernetes.networkpolicy import NetworkPolicy
from falco_talon.actionners.kubernetes.script import Script
from falco_talon.actionners.kubernetes.sysdig import Sysdig
from falco_talon.actionners.kubernetes.tcpdump import Tcpdump
from falco_talon.actionners.kubernetes.terminate import Terminate
from falco_talon.plugin import Actionner

ACTIONNERS: tuple[type[Actionner], ...] = (
    Terminate,
    Label,
    Annotation,
    NetworkPolicy,
    Exec,
    Script,
    Log,
    Delete,
    Cordon,
    Drain,
    Download,
    Tcpdump,
    Sysdig,
    Request,
)
