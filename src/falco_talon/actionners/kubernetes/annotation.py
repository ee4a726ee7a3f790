"""kubernetes:annotation"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from falco_talon.actionners.kubernetes._metadata import MetadataActionner, Text, check_key
from falco_talon.event import Event
from falco_talon.plugin import BaseParameters, Result


class Annotation(MetadataActionner):
    """Add, modify or remove the annotations of the pod or of its node."""

    name = "kubernetes:annotation"
    example = """
      - action: Annotate the pod
        actionner: kubernetes:annotation
        parameters:
          level: pod
          annotations:
            example.com/reviewed: "false"
            example.com/owner: ""
    """

    class Parameters(BaseParameters):
        """Which annotations, and of what."""

        annotations: dict[Annotated[str, AfterValidator(check_key)], Text] = Field(
            description="Annotations to set, at least one. An empty value removes the annotation."
        )
        level: Literal["pod", "node"] = Field(
            "pod", description="What gets them: `pod` (default), or `node`, the node it runs on."
        )

        @field_validator("annotations")
        @classmethod
        def _at_least_one(cls, annotations: dict[str, str]) -> dict[str, str]:
            if not annotations:
                raise PydanticCustomError(
                    "annotations", "parameter 'annotations' should have at least one annotation"
                )
            return annotations

    parameters: Parameters

    async def run(self, event: Event) -> Result:
        """Set the annotations, in one request for a pod and two for a node.

        :raises PluginError: if they cannot be set.
        """
        target, objects = await self.set_metadata(
            event, "annotations", self.parameters.annotations, self.parameters.level
        )
        return Result(f"{target} has been annotated", objects)
