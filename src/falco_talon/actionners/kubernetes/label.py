"""kubernetes:label"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from falco_talon.actionners.kubernetes._metadata import (
    MetadataActionner,
    Text,
    check_key,
    check_label_value,
)
from falco_talon.event import Event
from falco_talon.plugin import BaseParameters, Result


class Label(MetadataActionner):
    """Add, modify or remove the labels of the pod or of its node."""

    name = "kubernetes:label"
    example = """
      - action: Label the pod
        actionner: kubernetes:label
        parameters:
          level: pod
          labels:
            suspicious: "true"
            app.kubernetes.io/part-of: ""
    """

    class Parameters(BaseParameters):
        """Which labels, and of what."""

        labels: dict[
            Annotated[str, AfterValidator(check_key)],
            Annotated[Text, AfterValidator(check_label_value)],
        ] = Field(description="Labels to set, at least one. An empty value removes the label.")
        level: Literal["pod", "node"] = Field(
            "pod", description="What gets them: `pod` (default), or `node`, the node it runs on."
        )

        @field_validator("labels")
        @classmethod
        def _at_least_one(cls, labels: dict[str, str]) -> dict[str, str]:
            if not labels:
                raise PydanticCustomError(
                    "labels", "parameter 'labels' should have at least one label"
                )
            return labels

    parameters: Parameters

    async def run(self, event: Event) -> Result:
        """Set the labels, in one request for a pod and two for a node.

        :raises PluginError: if they cannot be set.
        """
        target, objects = await self.set_metadata(
            event, "labels", self.parameters.labels, self.parameters.level
        )
        return Result(f"{target} has been labeled", objects)
