"""The metrics of calls: what each is called, and what it means. docs/metrics.md tells more."""

from __future__ import annotations

from llmproxy_server.metrics.values import Family

DURATION_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
FIRST_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)
OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# -- per model: as it is asked for, where the configuration or a price list has that name ----------------------------

REQUESTS = Family("llmproxy_requests_total", "counter", "Calls that are over, by the status that was sent.")
DURATION = Family(
    "llmproxy_request_duration_seconds", "histogram", "From the head of a request to the end of its answer.", DURATION_S
)
FIRST_TOKEN = Family(
    "llmproxy_time_to_first_token_seconds",
    "histogram",
    "From the head of a request to the first bytes of the streamed answer.",
    FIRST_TOKEN_S,
)
PER_TOKEN = Family(
    "llmproxy_time_per_output_token_seconds",
    "histogram",
    "The mean time between two tokens of a streamed answer, one value for each answer.",
    PER_TOKEN_S,
)
ACTIVE = Family("llmproxy_active_requests", "gauge", "Calls that are being served.")
TOKENS = Family(
    "llmproxy_tokens_processed_total", "counter", "Tokens of models that worked; input and output include the others."
)
COST = Family("llmproxy_cost_usd_total", "counter", "What models cost, in US dollars, where the price is known.")
AVAILABLE = Family(
    "llmproxy_model_availability",
    "gauge",
    "1 while an LLM that serves the model is available, else 0.",
)

# -- of all calls ----------------------------------------------------------------------------------------------------

STREAMS = Family("llmproxy_active_streams", "gauge", "Calls being served whose clients asked for a stream.")
OVERHEAD = Family(
    "llmproxy_overhead_seconds",
    "histogram",
    "Time of a call during which no upstream was at work: our own part of it.",
    OVERHEAD_S,
)

# -- per LLM ---------------------------------------------------------------------------------------------------------

UPSTREAM = Family(
    "llmproxy_upstream_duration_seconds", "histogram", "Attempts on an LLM, from start to the end.", DURATION_S
)
UPSTREAM_ERRORS = Family("llmproxy_upstream_errors_total", "counter", "Attempts that failed, by the kind of error.")
ABANDONED = Family(
    "llmproxy_upstream_abandoned_total", "counter", "Attempts that were given up before the LLM had answered."
)
LAST_SUCCESS = Family(
    "llmproxy_upstream_last_success_timestamp_seconds", "latest", "When an LLM answered last, since the epoch."
)
LAST_FAILURE = Family(
    "llmproxy_upstream_last_failure_timestamp_seconds",
    "latest",
    "When an attempt on an LLM failed last by the fault of its provider, since the epoch.",
)
LLM_AVAILABLE = Family(
    "llmproxy_llm_availability",
    "gauge",
    "1 while the LLM can be called, and the last attempt or probe did not fail by the fault of its provider, else 0.",
)
LLM_IN_FLIGHT = Family("llmproxy_llm_in_flight", "gauge", "Calls that an LLM is at work on.")
LLM_DRAINED = Family("llmproxy_llm_drained", "latest", "1 while an LLM is out of service, else 0.")
BREAKER = Family("llmproxy_breaker_state", "latest", "Of the breaker of an LLM's key: 0 closed, 0.5 half open, 1 open.")
SHUT = Family("_shut", "latest", "1: the LLM is drained, or its breakers are open.")
"""For `LLM_AVAILABLE`; not shown."""
SERVES = Family("_serves", "latest", "1: the LLM can be asked for the model.")
"""For `AVAILABLE`; not shown."""
CONFIGURED = Family("_configured", "latest", "1: the LLM is one that can be called.")
"""For `LLM_AVAILABLE`, since what a reload takes away has series, too; not shown."""
