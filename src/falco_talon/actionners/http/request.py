"""http:request"""

from typing import Any

import msgspec
from pydantic import Field, field_validator

from falco_talon.clients.http import SUCCESS, Headers, HttpUrl, Reply, exchange, host
from falco_talon.errors import PluginError, TransientError
from falco_talon.event import Event
from falco_talon.plugin import Actionner, Artifact, BaseParameters, Result

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_WITH_EVENT = ("POST", "PUT", "PATCH")
_PARAMETERS = "falco-talon.action.parameters"


class Request(Actionner):
    """Call an HTTP endpoint, with the event as its JSON body.

    The URL is what the rule says: nothing of the event goes into it. Redirects are not followed.
    The answer is an artifact, for an output to store if the action has one.
    """

    name = "http:request"
    uses = ("http",)
    use_context = True
    artifact = "maybe"
    example = """
      - action: Open a ticket
        actionner: http:request
        parameters:
          url: https://tickets.example.com/api/incidents
          headers:
            Authorization: Bearer 0123456789
          timeout_seconds: 5
          expected_status: [201]
        output:
          target: local:file
          parameters:
            destination: /var/lib/falco-talon
    """

    class Parameters(BaseParameters):
        """What to send, where, and what to expect."""

        url: HttpUrl = Field(
            repr=False, description="Endpoint, http:// or https://, sent as it is written."
        )
        method: str = Field("POST", description=f"Method: {', '.join(_METHODS)}. Default: POST.")
        headers: Headers = Field(
            default_factory=dict,
            description="Headers of the request. Their values are never shown. Default: none but"
            " `User-Agent` and the `Content-Type` of the body.",
        )
        body: dict[str, Any] | list[Any] | str | None = Field(
            None,
            repr=False,
            description="Body in place of the event: a mapping or list is sent as JSON, text as it"
            " is. Default: the event for POST, PUT and PATCH, nothing for the others.",
        )
        timeout_seconds: float = Field(
            10, gt=0, le=300, description="Seconds for the whole exchange. Default: 10."
        )
        expected_status: list[int] = Field(
            list(SUCCESS),
            min_length=1,
            description="Statuses that mean success. Default: 200, 201, 202 and 204.",
        )
        max_reply_bytes: int = Field(
            1024 * 1024,
            ge=0,
            le=64 * 1024 * 1024,
            description="Bytes of the reply that are kept; the rest is not read. Default: 1 MiB.",
        )

        @field_validator("method")
        @classmethod
        def _known_method(cls, method: str) -> str:
            if method.upper() not in _METHODS:
                raise ValueError(f"'{method}' is none of {', '.join(_METHODS)}")
            return method.upper()

    parameters: Parameters

    async def run(self, event: Event) -> Result:
        """Send the request and keep the reply.

        :raises TransientError: if there is no reply, or one that says to try again (429, 5xx);
        :raises PluginError: if its status is another than those expected.
        """
        parameters = self.parameters
        body, content_type = self._body(event)
        headers = {"Content-Type": content_type} if content_type else {}
        given = {name: value.get_secret_value() for name, value in parameters.headers.items()}
        if any(name.lower() == "content-type" for name in given):
            headers = {}
        reply = await exchange(
            self.clients.http,
            parameters.method,
            parameters.url,
            headers={**headers, **given},
            body=body,
            seconds=parameters.timeout_seconds,
            limit=parameters.max_reply_bytes,
        )
        return self._result(reply)

    def _body(self, event: Event) -> tuple[bytes | None, str]:
        body = self.parameters.body
        if isinstance(body, str):
            return body.encode(), "text/plain; charset=utf-8"
        if body is not None:
            return msgspec.json.encode(body), "application/json"
        if self.parameters.method not in _WITH_EVENT:
            return None, ""
        # Our own parameters are in the context, and with them the credentials in our headers.
        context = {key: value for key, value in (event.context or {}).items() if key != _PARAMETERS}
        return event.with_context(context).to_json(), "application/json"

    def _result(self, reply: Reply) -> Result:
        where = host(self.parameters.url)
        if reply.status not in self.parameters.expected_status:
            expected = ", ".join(str(status) for status in self.parameters.expected_status)
            text = f"'{where}' answered {reply.line}, expected {expected}"
            if reply.transient:
                raise TransientError(text, retry_after=reply.retry_after)
            raise PluginError(text)
        objects = {"host": where}
        text = f"'{where}' answered {reply.line}"
        if reply.truncated:
            text += f" (reply truncated to {len(reply.body)} bytes)"
        if not reply.body:
            return Result(text, objects)
        return Result(text, objects, Artifact(_artifact_name(reply), reply.body, objects))


def _artifact_name(reply: Reply) -> str:
    media = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        return "reply.json"
    return "reply.txt" if media.startswith("text/") else "reply.bin"
