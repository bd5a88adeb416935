"""What went wrong with a request, and the error that a user reads for it. No key ever gets into either.

What an answer means stands in one table, `answers.RULES`; beside its kinds there is `unsafe`: no connection that can be trusted
or used (certificate, proxy, address).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftbridge.errors import DataError, FtbridgeError, ModelUnavailable, ProviderRefused, UsageError
from ftbridge.errors import ServiceUnavailable as ServiceUnavailable
from ftbridge.http import retry_after
from ftbridge.providers.openai.sampling.answers import CLOSED as _CLOSED
from ftbridge.providers.openai.sampling.answers import UNPAID as _UNPAID
from ftbridge.providers.openai.sampling.answers import HttpAnswer, Kind, kind_of
from ftbridge.redaction import whole_characters, without_secrets

_LONGEST = 500


class NotTheService(Exception):
    """A reply that is not the JSON of OpenAI's API, such as a proxy's HTML page."""


class SentElsewhere(Exception):
    """A redirect to another origin, which gets neither key nor data: the request was not sent on."""


@dataclass(frozen=True)
class ServiceFault:
    """One failed request. `message` contains no secret.

    `retry_after` is in seconds, when the service says so. `sure` is whether the answer is the service's own word in its
    API's form, so that a refusal means that nothing was done.
    """

    kind: Kind
    message: str
    status: int | None = None
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    sure: bool = False


def clean(text: object) -> str:
    """Text without keys, whoever put them there, on one line and not too long."""
    one_line = " ".join(whole_characters(without_secrets(str(text))).split())
    return one_line if len(one_line) <= _LONGEST else one_line[: _LONGEST - 1] + "…"


def fault_of(error: Exception) -> ServiceFault:
    """What kind of failure an SDK exception (or `NotTheService`) tells of. Anything unforeseen counts as lost."""
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return _without_answer(error)
    code, param, message, is_error_object = _body(error)
    if (location := _led_to(error)) is not None:
        return ServiceFault("foreign", f"it was redirected to {location}", status)
    error_response = HttpAnswer(status, code, param, message, is_error_object, _creates_job(error))
    return ServiceFault(kind_of(error_response), message, status, code, param, _retry_after(error), is_error_object)


def error_of(fault: ServiceFault, doing: str, service: str) -> FtbridgeError:
    """The error that a user reads: `doing` is what was tried ("creating the job")."""
    at = f"{doing}: {service}"
    if fault.kind == "lost":
        return ServiceUnavailable(f"{at} gave no usable response ({fault.message}).", hint=_RESUME)
    if fault.kind == "foreign":
        status = f" ({fault.status})" if fault.status is not None else ""
        hint = f"A firewall, a proxy or a login page may be in front of the service. {_RESUME}"
        return ServiceUnavailable(f"{at} itself did not respond{status}: {fault.message}.", hint=hint)
    if fault.kind == "data":
        hint = "Fix the data and start a new run; `ftbridge lint` names the lines."
        return DataError(f"{at} rejects the data ({fault.message}).", hint=hint)
    if fault.kind == "later":
        return ServiceUnavailable(f"{at} accepts no more requests for now ({fault.message}).", hint=_RESUME)
    if fault.kind == "tomorrow":
        hint = "Resume the run tomorrow; nothing was started."
        return ServiceUnavailable(f"{at} accepts no more jobs today ({fault.message}).", hint=hint)
    if fault.kind == "not_ready":
        return ServiceUnavailable(f"{at} does not see the processed file yet ({fault.message}).", hint=_RESUME)
    if fault.kind == "unsafe":
        return _unsafe(fault, at)
    if fault.code in _CLOSED:
        hint = "Train on your own machine instead: ftbridge run SPEC --provider local"
        return ProviderRefused(
            f"{service} no longer allows this organisation to create fine-tuning jobs ({fault.message}).", hint=hint
        )
    if fault.code in _UNPAID:
        hint = "Check the plan and the billing of this account; then resume the run."
        return ProviderRefused(f"{at} says the account cannot pay ({fault.message}).", hint=hint)
    if fault.status == 401:
        hint = "Check the key, and that openai.target, base_url, organization and project match it."
        return ProviderRefused(f"{at} does not accept the API key ({fault.message}).", hint=hint)
    if fault.kind == "missing":
        return ModelUnavailable(
            f"{at} does not have what was requested ({fault.message}).", hint="Check names and openai.base_url."
        )
    code = f" [{fault.code}]" if fault.code else ""
    hint = "The account lacks a permission for this." if fault.status == 403 else "Change what it rejects."
    return ProviderRefused(f"{at} refuses ({fault.status}{code}: {fault.message}).", hint=hint)


def require_fields(response: Any, *names: str) -> Any:
    """The answer, once it is seen to have these fields. Raises `NotTheService` for a page, or an object without them."""
    if isinstance(response, (str, bytes)):
        text = response.decode("utf-8", "replace") if isinstance(response, bytes) else response
        kind = "an HTML page" if "<" in text[:200] else "text"
        raise NotTheService(f"the response is {kind} instead of JSON: {clean(text)[:120]!r}")
    for name in names:
        if getattr(response, name, None) is None:
            raise NotTheService(f"the response has no {name}")
    return response


_RESUME = "Nothing is lost or paid for twice: resume the run when the service responds again."


def _body(error: Exception) -> tuple[str | None, str | None, str, bool]:
    """Code, parameter, message, and whether it has the form of OpenAI's error objects or a similar one.

    OpenAI's is {"error": {"message": …}}; the SDK hands out the inner object. An object with a bare `message` and no
    `code` is what firewalls and gateways write.
    """
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(inner, dict):
        text = clean(inner if isinstance(inner, str) else error)
        return None, None, "an HTML page instead of an error" if "<" in text[:20] else text, False
    code, param, message = inner.get("code"), inner.get("param"), inner.get("message")
    is_error_object = bool(message or code) and ("type" in inner or "code" in inner or "param" in inner)
    return (
        str(code) if code is not None else None,
        str(param) if param is not None else None,
        clean(message or error),
        is_error_object,
    )


def _led_to(error: Exception) -> str | None:
    """Where redirects led a request whose answer this is, if to another path than it asked for: a login page, a portal."""
    response = getattr(error, "response", None)
    history = getattr(response, "history", None)
    if response is None or not history:
        return None
    first, last = (str(getattr(earlier.url, "path", "")).rstrip("/") for earlier in (history[0], response))
    return None if first == last else clean(last or "/")


def _creates_job(error: Exception) -> bool:
    """Whether the request that failed was to create a job."""
    request = getattr(error, "request", None)
    path = str(getattr(getattr(request, "url", None), "path", ""))
    return getattr(request, "method", "") == "POST" and path.rstrip("/").endswith("/fine_tuning/jobs")


def _retry_after(error: Exception) -> float | None:
    """Seconds to wait as the error's response asks; None where it does not."""
    return retry_after(getattr(getattr(error, "response", None), "headers", {}))


def _without_answer(error: Exception) -> ServiceFault:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    names = {type(link).__name__ for link in chain}
    text = clean("; ".join(dict.fromkeys(str(link) or type(link).__name__ for link in chain)))
    if any(isinstance(link, SentElsewhere) for link in chain):
        return ServiceFault("unsafe", text, code="redirect")
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSLCertVerificationError" in names:
        return ServiceFault("unsafe", text, code="certificate")
    if "ProxyError" in names:
        return ServiceFault("unsafe", text, code="proxy")
    if "LocalProtocolError" in names or "UnsupportedProtocol" in names or "InvalidURL" in names:
        return ServiceFault("unsafe", text, code="address")
    if "UnicodeEncodeError" in names:
        return ServiceFault("unsafe", "the key contains characters that no key has", code="address")
    if isinstance(error, FtbridgeError):
        raise error
    return ServiceFault("lost", text)


def _unsafe(fault: ServiceFault, at: str) -> FtbridgeError:
    if fault.code == "certificate":
        hint = "Behind a company proxy, point SSL_CERT_FILE at its certificate; never turn verification off."
        return ServiceUnavailable(f"{at} has a certificate that cannot be verified ({fault.message}).", hint=hint)
    if fault.code == "redirect":
        hint = "If the new address is right, set it as the service's address (openai.base_url)."
        return UsageError(
            f"{at} redirects requests to another address, to which no key and no data are sent ({fault.message}).",
            hint=hint,
        )
    if fault.code == "proxy":
        hint = "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
        return ServiceUnavailable(f"{at} cannot be reached through the proxy ({fault.message}).", hint=hint)
    return UsageError(
        f"{at} cannot be reached ({fault.message}).", hint="Check openai.base_url and the key for stray characters."
    )
