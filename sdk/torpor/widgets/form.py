"""A form that submits a job: its fields, bounds and words are the platform's answer to ``GET /job-options``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import ipywidgets as widgets

from torpor.client import Client, job_name
from torpor.errors import ApiError, ServerError, TorporError
from torpor.job_handle import Job
from torpor.snapshots import FONT, SOFT
from torpor.widgets.card import JobCard

GIB = 1024**3
MIB = 1024**2
FIELDS = ("command", "kind", "name", "cores", "memory", "environment")
# Which field a problem's pointer means; the longest that fits counts.
POINTERS = {
    "/spec/amount/memory_bytes": "memory",
    "/spec/amount": "cores",
    "/spec/environment": "environment",
    "/spec/kind": "kind",
    "/spec/name": "name",
    "/spec/code": "command",
    "/bundle": "command",
}
ALERT = "color:var(--jp-error-color1,#d32f2f);line-height:1.35"
LABEL_WIDTH, FIELD_WIDTH = "120px", "360px"


class JobForm(widgets.VBox):  # type: ignore[misc]
    """A form for ``fn(*args, **kwargs)``, or for a command typed into it. After a submit the job's card is below it.

    ``job`` is the job of the last submit, ``client`` the platform (by default the configured one).
    """

    def __init__(
        self, fn: Callable[..., Any] | None = None, *args: Any, client: Client | None = None, **kwargs: Any
    ) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self._client = client or _configured()
        self.job: Job | None = None
        self.options: Mapping[str, Any] = self._client.job_options()
        self.fields = _fields(self.options, fn)
        self.errors = {name: widgets.HTML(layout={"display": "none"}) for name in (*FIELDS, "form")}
        self.submit_button = widgets.Button(description="Submit", button_style="primary", tooltip="Submit the job")
        self.submit_button.on_click(lambda _: self.submit())
        self.card_place = widgets.VBox()
        shown = [name for name in FIELDS if name in self.fields]
        rows = [_row(name, self.fields[name], self._help(name), self.errors[name]) for name in shown]
        self._help_of_kind = next(
            row.children[1].children[1] for name, row in zip(shown, rows, strict=True) if name == "kind"
        )
        self.fields["kind"].observe(lambda _: self._show_kind(), names="value")
        end = widgets.HBox([widgets.Label(layout={"width": f"calc({LABEL_WIDTH} + 4px)"}), self.submit_button])
        super().__init__([_title(self.options, fn), *rows, self.errors["form"], end, self.card_place])

    def submit(self) -> Job | None:
        """Submit what the form says. Returns the job, or None when it was refused; the reason is then beside its field."""
        self._clear()
        self.submit_button.disabled = True
        self.submit_button.description = "Submitting…"
        try:
            code, args, kwargs = self._code()
            self.job = self._client.submit(code, *args, **kwargs, **self._asked())
        except (TorporError, ValueError) as error:
            self._show_error(error)
            return None
        finally:
            self.submit_button.disabled = False
            self.submit_button.description = "Submit"
        for card in self.card_place.children:
            card.close()
        self.card_place.children = (JobCard(self.job),)
        return self.job

    def _code(self) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        if self._fn is not None:
            return self._fn, self._args, self._kwargs
        words = shlex.split(self.fields["command"].value)
        if not words:
            raise ValueError("Say what to run, for example: python train.py")
        return words, (), {}

    def _asked(self) -> dict[str, Any]:
        value = {name: field.value for name, field in self.fields.items()}
        return {
            "kind": value["kind"],
            "name": value["name"].strip() or None,
            "cores": value["cores"],
            "memory": round(value["memory"] * GIB),
            "environment": value["environment"],
        }

    def _help(self, name: str) -> str:
        most = self.options["most"]
        texts = {
            "kind": self._kind_description(),
            "cores": f"At most {most['cpu_milli'] / 1000:g}.",
            "memory": f"In GiB, at most {most['memory_bytes'] / GIB:.4g}.",
            "name": "What you find it by; letters, digits and hyphens.",
            "environment": str(self.options.get("notice") or ""),
        }
        return texts.get(name, "")

    def _kind_description(self) -> str:
        chosen = self.fields["kind"].value
        return next((str(kind["description"]) for kind in self.options["kinds"] if kind["kind"] == chosen), "")

    def _show_kind(self) -> None:
        self._help_of_kind.value = _soft(self._kind_description())

    def _clear(self) -> None:
        for place in self.errors.values():
            place.value, place.layout.display = "", "none"

    def _show_error(self, error: Exception) -> None:
        pointer = error.pointer if isinstance(error, ApiError) else ""
        named = [field for known, field in POINTERS.items() if pointer.startswith(known)]
        field = named[0] if named else ("command" if isinstance(error, ValueError) else "form")
        place = self.errors[field if field in self.fields else "form"]
        place.value = f'<div role="alert" style="{FONT};{ALERT}">{escape(_said(error))}</div>'
        place.layout.display = ""


def _said(error: Exception) -> str:
    """Return the sentences of an error; the request id only where an operator needs it."""
    if isinstance(error, TorporError) and not isinstance(error, ServerError):
        return f"{error.message} {error.next_step}".strip()
    return str(error)


def _configured() -> Client:
    import torpor

    return torpor._client()


def _fields(options: Mapping[str, Any], fn: Callable[..., Any] | None) -> dict[str, Any]:
    default, most = options["default"], options["most"]
    wide = {"width": FIELD_WIDTH}
    kinds = [(kind["title"], kind["kind"]) for kind in options["kinds"]]
    environments = [(choice["title"], choice["value"]) for choice in options["environments"]]
    cores = {"min": 0.1, "max": most["cpu_milli"] / 1000, "step": 0.5}
    memory = {"min": 64 * MIB / GIB, "max": most["memory_bytes"] / GIB, "step": 0.5}
    fields = {
        "kind": widgets.Dropdown(options=kinds, value=default["kind"], layout=wide),
        "name": widgets.Text(value=job_name(getattr(fn, "__name__", "job")) if fn else "", layout=wide),
        "cores": widgets.BoundedFloatText(value=default["amount"]["cpu_milli"] / 1000, layout=wide, **cores),
        "memory": widgets.BoundedFloatText(value=default["amount"]["memory_bytes"] / GIB, layout=wide, **memory),
        "environment": widgets.Dropdown(options=environments, value=default["environment"], layout=wide),
    }
    if fn is None:
        fields["command"] = widgets.Text(placeholder="python train.py --rounds 20", layout=wide)
    return fields


def _row(name: str, field: Any, help_text: str, error: Any) -> Any:
    field.tooltip = help_text
    field.description = name.capitalize()
    field.style = {"description_width": LABEL_WIDTH}
    field.layout.width = f"calc({LABEL_WIDTH} + {FIELD_WIDTH})"
    beside = widgets.VBox(
        [error, widgets.HTML(_soft(help_text))], layout={"margin": f"0 0 4px calc({LABEL_WIDTH} + 8px)"}
    )
    return widgets.VBox([field, beside])


def _title(options: Mapping[str, Any], fn: Callable[..., Any] | None) -> Any:
    what = f"Run <code>{escape(getattr(fn, '__name__', repr(fn)))}</code> as a job" if fn else "Run a command as a job"
    tenant = escape(str(options.get("tenant", "")))
    where = f' <span style="{SOFT}">in tenant {tenant}</span>' if tenant else ""
    return widgets.HTML(f'<div style="{FONT};font-weight:600;margin-bottom:4px">{what}{where}</div>')


def _soft(text: str) -> str:
    return f'<div style="{FONT};{SOFT};line-height:1.3">{escape(text)}</div>' if text else ""
