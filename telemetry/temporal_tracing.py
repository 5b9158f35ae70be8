"""Traces through Temporal: from a start or a signal into the workflow, and from it into its activities.

The SDK's own interceptors put exceptions' texts into spans (docs/decisions/0019-tracing.md). The headers are the same.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn
from uuid import UUID

from temporalio import activity, client, worker, workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from telemetry import tracing

_HEADER = "_tracer-data"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
_LOWER_HALF = 2**64 - 1

Headers = Mapping[str, Payload]


class Tracing(client.Interceptor, worker.Interceptor):
    """For a client and its workers, where tracing is on."""

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:  # noqa: A002 -- the SDK's name
        """Intercept each call."""
        return _Outbound(next)

    def intercept_activity(self, next: worker.ActivityInboundInterceptor) -> worker.ActivityInboundInterceptor:  # noqa: A002 -- the SDK's name
        """Intercept each activity."""
        return _Activity(next)

    def workflow_interceptor_class(
        self,
        input: worker.WorkflowInterceptorClassInput,  # noqa: A002, ARG002 -- the SDK's name
    ) -> type[worker.WorkflowInboundInterceptor]:
        """Intercept each workflow."""
        return _Workflow


class _Outbound(client.OutboundInterceptor):
    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:  # noqa: A002 -- the SDK's name
        input.headers = _with(input.headers, tracing.traceparent())
        return await super().start_workflow(input)

    async def signal_workflow(self, input: client.SignalWorkflowInput) -> None:  # noqa: A002 -- the SDK's name
        input.headers = _with(input.headers, tracing.traceparent())
        await super().signal_workflow(input)


class _Activity(worker.ActivityInboundInterceptor):
    async def execute_activity(self, input: worker.ExecuteActivityInput) -> object:  # noqa: A002 -- the SDK's name
        parent = _traceparent(input.headers)
        if parent is None:
            return await super().execute_activity(input)
        info = activity.info()
        about: tracing.Attributes = {
            "temporalWorkflowID": info.workflow_id or "",
            "temporalActivityID": info.activity_id,
            "fastbell.attempt": info.attempt,
        }
        with tracing.span(info.activity_type, tracing.Kind.INTERNAL, tracing.context_of(parent), about) as span:
            try:
                return await super().execute_activity(input)
            except ApplicationError as error:
                if error.category is not ApplicationErrorCategory.BENIGN:
                    raise
                span.set_attribute("fastbell.again_because", error.message)
                again = error
        raise again


@dataclass(frozen=True, slots=True)
class _Lineage:
    """The place of a workflow run in its trace."""

    parent: str
    own: str
    span_id: int


class _Workflow(worker.WorkflowInboundInterceptor):
    """The run's span has no duration: a longer one is exported only at its end, so its children would have no parent.

    The span's id is computed from the run's, so that every worker that continues the run knows it.
    """

    def init(self, outbound: worker.WorkflowOutboundInterceptor) -> None:
        super().init(_WorkflowOutbound(outbound, self))

    @cached_property
    def lineage(self) -> _Lineage | None:
        parent = _traceparent(workflow.info().headers)
        parts = _TRACEPARENT.fullmatch(parent or "")
        if parent is None or parts is None:
            return None
        span_id = UUID(workflow.info().run_id).int & _LOWER_HALF
        return _Lineage(parent, f"00-{parts[1]}-{span_id:016x}-{parts[2]}", span_id)

    async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> object:  # noqa: A002 -- the SDK's name
        if self.lineage and not workflow.unsafe.is_replaying():
            name = workflow.info().workflow_type
            tracing.instant(
                name, tracing.Kind.CONSUMER, self.lineage.parent, _about_run(), span_id=self.lineage.span_id
            )
        return await super().execute_workflow(input)

    async def handle_signal(self, input: worker.HandleSignalInput) -> None:  # noqa: A002 -- the SDK's name
        """Link the sender's trace to the run's, unless the run was started by this signal."""
        sender = _traceparent(input.headers)
        if sender and self.lineage and sender != self.lineage.parent and not workflow.unsafe.is_replaying():
            name = f"{workflow.info().workflow_type} {input.signal}"
            tracing.instant(name, tracing.Kind.CONSUMER, self.lineage.own, _about_run(), link=sender)
        await super().handle_signal(input)


class _WorkflowOutbound(worker.WorkflowOutboundInterceptor):
    def __init__(self, next: worker.WorkflowOutboundInterceptor, inbound: _Workflow) -> None:  # noqa: A002 -- the SDK's name
        super().__init__(next)
        self._inbound = inbound

    def start_activity(self, input: worker.StartActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002 -- the SDK's name
        input.headers = self._below_the_run(input.headers)
        return super().start_activity(input)

    def start_local_activity(self, input: worker.StartLocalActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002 -- the SDK's name
        input.headers = self._below_the_run(input.headers)
        return super().start_local_activity(input)

    async def start_child_workflow(
        self,
        input: worker.StartChildWorkflowInput,  # noqa: A002 -- the SDK's name
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        input.headers = self._below_the_run(input.headers)
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: worker.ContinueAsNewInput) -> NoReturn:  # noqa: A002 -- the SDK's name
        lineage = self._inbound.lineage
        input.headers = _with(input.headers, lineage.parent if lineage else None)
        super().continue_as_new(input)

    def _below_the_run(self, headers: Headers) -> Headers:
        lineage = self._inbound.lineage
        return _with(headers, lineage.own if lineage else None)


def _about_run() -> tracing.Attributes:
    info = workflow.info()
    return {"temporalWorkflowID": info.workflow_id, "temporalRunID": info.run_id}


def _with(headers: Headers, traceparent: str | None) -> Headers:
    if traceparent is None:
        return headers
    return {**headers, _HEADER: PayloadConverter.default.to_payload({"traceparent": traceparent})}


def _traceparent(headers: Headers) -> str | None:
    payload = headers.get(_HEADER)
    carrier = PayloadConverter.default.from_payload(payload) if payload is not None else None
    parent = carrier.get("traceparent") if isinstance(carrier, dict) else None
    return parent if isinstance(parent, str) else None
