"""webhook"""

from typing import Any

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from falco_talon.clients.http import Headers, HttpUrl, exchange, require_success
from falco_talon.plugin import BaseParameters, Notifier
from falco_talon.report import Report


class Webhook(Notifier):
    """Send the report, as JSON, to an HTTP endpoint.

    200, 201, 202 and 204 mean that it was taken. Redirects are not followed.
    """

    name = "webhook"
    uses = ("http",)
    example = """
      webhook:
        url: https://example.com/talon
        custom_headers:
          Authorization: Bearer 0123456789
    """

    class Parameters(BaseParameters):
        """Where to, and how."""

        url: HttpUrl = Field(
            repr=False, description="Endpoint, http:// or https://, sent as it is written."
        )
        http_method: str = Field(
            "POST",
            pattern="^[A-Z]{3,16}$",
            description="Method. GET sends no body. Default: POST.",
        )
        content_type: str = Field(
            "application/json; charset=utf-8",
            pattern=r"^[\x20-\x7e]+$",
            description="Content-Type of the body. Default: application/json; charset=utf-8.",
        )
        user_agent: str = Field(
            "falco-talon",
            pattern=r"^[\x20-\x7e]+$",
            description="User-Agent of the request. Default: falco-talon.",
        )
        custom_headers: Headers = Field(
            default_factory=dict,
            description="More headers. Their values are never shown. Default: none.",
        )

        @model_validator(mode="before")
        @classmethod
        def _url_given(cls, data: Any) -> Any:
            if isinstance(data, dict) and not data.get("url"):
                raise PydanticCustomError("url", "wrong `url` setting")
            return data

        @field_validator("http_method", mode="before")
        @classmethod
        def _upper(cls, method: Any) -> Any:
            return method.upper() if isinstance(method, str) else method

    parameters: Parameters

    async def run(self, report: Report) -> None:
        """Send it.

        :raises TransientError: if there is no answer, or one that says to try again (429, 5xx);
        :raises PluginError: if it was refused.
        """
        parameters = self.parameters
        given = {n: value.get_secret_value() for n, value in parameters.custom_headers.items()}
        reply = await exchange(
            self.clients.http,
            parameters.http_method,
            parameters.url,
            headers={
                **given,
                "User-Agent": parameters.user_agent,
                "Content-Type": parameters.content_type,
            },
            body=None if parameters.http_method == "GET" else report.to_json(),
        )
        require_success(reply)
