"""
The conformance tests of dialects: what every dialect must do, and what its protocol is declared to say.

As a class, for pytest or any runner that calls methods named `test_…`:

    from llmproxy_core.testing import DialectConformance, Recorded

    class TestParley(DialectConformance):
        dialect = ParleyDialect()
        says = {"system", "temperature", "max_output_tokens"}
        samples = [Recorded(api="parley.talk", request=b"...", reply=b"...")]

As a function, and check by check:

    check_dialect(DeclaredDialect(dialect=ParleyDialect(), says={"system"}))

    @pytest.mark.parametrize("check", DIALECT_CHECKS, ids=lambda check: check.__name__)
    def test_parley_conforms(check: DialectCheck) -> None:
        check(DECLARED)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from llmproxy_core.dialect import Api, Dialect
from llmproxy_core.testing.dialect.check_calls import (
    is_found_at_its_paths,
    keeps_keys_in_headers,
    lets_the_right_headers_cross,
)
from llmproxy_core.testing.dialect.check_errors import (
    ends_failed_streams,
    hides_what_is_said_of_our_key,
    keeps_what_was_said_before_an_error,
    passes_its_own_errors,
    reads_every_error,
    tells_errors_in_its_own_words,
)
from llmproxy_core.testing.dialect.check_operations import counts_tokens, embeds, lists_models
from llmproxy_core.testing.dialect.check_replies import (
    answers_what_it_declares,
    keeps_untouched_replies,
    rewrites_the_text_of_replies_alone,
    scans_replies,
)
from llmproxy_core.testing.dialect.check_requests import (
    edits_one_message_alone,
    keeps_untouched_requests,
    prepares_what_it_is_asked,
    reads_heads,
    says_what_it_declares,
)
from llmproxy_core.testing.dialect.check_streams import (
    copies_streams,
    keeps_clients_waiting_in_its_own_words,
    never_completes_a_cut_stream,
    reads_events_in_order,
    reads_streams_however_they_are_cut,
    rewrites_the_text_of_streams_alone,
    tells_what_was_generated,
)
from llmproxy_core.testing.dialect.check_translation import (
    answers_as_others_did,
    carries_signatures,
    says_or_refuses_what_others_ask,
    sends_no_signature_of_another,
    survives_odd_histories,
)
from llmproxy_core.testing.dialect.check_writing import says_the_same_plain_and_streamed, takes_events_in_any_order
from llmproxy_core.testing.dialect.declared import DeclaredDialect, Recorded, RecordedError, grammar_of
from llmproxy_core.testing.verdict import NotConforming

DialectCheck = Callable[[DeclaredDialect], None]
"""Raises NotConforming, which says what the author can do."""

DIALECT_CHECKS: Sequence[DialectCheck] = (
    is_found_at_its_paths,
    keeps_keys_in_headers,
    lets_the_right_headers_cross,
    says_what_it_declares,
    reads_heads,
    keeps_untouched_requests,
    edits_one_message_alone,
    prepares_what_it_is_asked,
    answers_what_it_declares,
    keeps_untouched_replies,
    rewrites_the_text_of_replies_alone,
    scans_replies,
    reads_events_in_order,
    reads_streams_however_they_are_cut,
    copies_streams,
    rewrites_the_text_of_streams_alone,
    never_completes_a_cut_stream,
    tells_what_was_generated,
    keeps_clients_waiting_in_its_own_words,
    says_the_same_plain_and_streamed,
    takes_events_in_any_order,
    reads_every_error,
    hides_what_is_said_of_our_key,
    passes_its_own_errors,
    tells_errors_in_its_own_words,
    ends_failed_streams,
    keeps_what_was_said_before_an_error,
    says_or_refuses_what_others_ask,
    survives_odd_histories,
    sends_no_signature_of_another,
    answers_as_others_did,
    carries_signatures,
    embeds,
    lists_models,
    counts_tokens,
)


def check_dialect(declared: DeclaredDialect) -> None:
    """Run all checks; NotConforming with everything that was found."""
    found: list[str] = []
    for check in DIALECT_CHECKS:
        try:
            check(declared)
        except NotConforming as finding:
            found.append(f"{check.__name__}: {finding}")
    if found:
        name = declared.dialect.name
        raise NotConforming(f"the dialect {name!r} fails {len(found)} checks:\n" + "\n".join(found))


class DialectConformance:
    """
    Inherit it, say what your protocol can say, and each check is a test.

    The attributes are those of `DeclaredDialect`, which says what each means. `dialect` must be given.
    """

    dialect: ClassVar[Dialect]
    says: ClassVar[Collection[str]] = ()
    """Each a `Says`, or its word."""
    apis: ClassVar[Collection[str]] = ()
    model: ClassVar[str] = "scripted-1"
    never_together: ClassVar[Collection[Collection[str]]] = ()
    samples: ClassVar[Sequence[Recorded]] = ()
    errors: ClassVar[Sequence[RecordedError]] = ()
    examples: ClassVar[int] = 40

    def grammar(self, api: Api, stream: bytes, *, failed: bool) -> Sequence[str]:
        """What is wrong with a stream that clients are to take (`StreamGrammar`); override it for a new protocol."""
        return grammar_of(self.dialect.name)(api, stream, failed=failed)

    def asks_again(self, reply: bytes) -> bytes | None:
        """The body of the next request of a client that got *reply*; None: not tested."""
        return None

    def declared(self) -> DeclaredDialect:
        asks = type(self).asks_again is not DialectConformance.asks_again

        def asks_again(reply: bytes) -> bytes:
            body = self.asks_again(reply)
            assert body is not None
            return body

        return DeclaredDialect(
            dialect=self.dialect,
            says=self.says,
            apis=self.apis,
            model=self.model,
            never_together=self.never_together,
            samples=self.samples,
            errors=self.errors,
            grammar=self.grammar,
            asks_again=asks_again if asks else None,
            examples=self.examples,
        )

    def test_it_is_found_at_its_paths(self) -> None:
        is_found_at_its_paths(self.declared())

    def test_keys_are_in_headers_alone(self) -> None:
        keeps_keys_in_headers(self.declared())

    def test_the_right_headers_cross(self) -> None:
        lets_the_right_headers_cross(self.declared())

    def test_it_says_what_is_declared(self) -> None:
        says_what_it_declares(self.declared())

    def test_heads_tell_what_requests_say(self) -> None:
        reads_heads(self.declared())

    def test_untouched_requests_keep_their_bytes(self) -> None:
        keeps_untouched_requests(self.declared())

    def test_an_edit_changes_one_message_alone(self) -> None:
        edits_one_message_alone(self.declared())

    def test_it_prepares_what_it_is_asked(self) -> None:
        prepares_what_it_is_asked(self.declared())

    def test_it_answers_what_is_declared(self) -> None:
        answers_what_it_declares(self.declared())

    def test_untouched_replies_keep_their_bytes(self) -> None:
        keeps_untouched_replies(self.declared())

    def test_a_rewritten_text_changes_nothing_else_of_a_reply(self) -> None:
        rewrites_the_text_of_replies_alone(self.declared())

    def test_scanned_replies_tell_what_read_ones_say(self) -> None:
        scans_replies(self.declared())

    def test_events_come_in_order(self) -> None:
        reads_events_in_order(self.declared())

    def test_a_stream_is_read_alike_however_it_is_cut(self) -> None:
        reads_streams_however_they_are_cut(self.declared())

    def test_a_copied_stream_keeps_its_bytes(self) -> None:
        copies_streams(self.declared())

    def test_a_rewritten_text_changes_nothing_else_of_a_stream(self) -> None:
        rewrites_the_text_of_streams_alone(self.declared())

    def test_a_cut_stream_is_never_complete(self) -> None:
        never_completes_a_cut_stream(self.declared())

    def test_what_was_generated_is_told(self) -> None:
        tells_what_was_generated(self.declared())

    def test_keep_alives_change_nothing(self) -> None:
        keeps_clients_waiting_in_its_own_words(self.declared())

    def test_plain_and_streamed_answers_say_the_same(self) -> None:
        says_the_same_plain_and_streamed(self.declared())

    def test_events_are_taken_in_any_order(self) -> None:
        takes_events_in_any_order(self.declared())

    def test_every_error_is_read(self) -> None:
        reads_every_error(self.declared())

    def test_what_is_said_of_our_key_is_hidden(self) -> None:
        hides_what_is_said_of_our_key(self.declared())

    def test_its_own_errors_pass(self) -> None:
        passes_its_own_errors(self.declared())

    def test_errors_are_told_in_its_own_words(self) -> None:
        tells_errors_in_its_own_words(self.declared())

    def test_failed_streams_end_in_an_error(self) -> None:
        ends_failed_streams(self.declared())

    def test_what_was_said_before_an_error_is_kept(self) -> None:
        keeps_what_was_said_before_an_error(self.declared())

    def test_what_others_ask_is_said_or_refused(self) -> None:
        says_or_refuses_what_others_ask(self.declared())

    def test_odd_histories_are_survived(self) -> None:
        survives_odd_histories(self.declared())

    def test_no_signature_of_another_is_sent(self) -> None:
        sends_no_signature_of_another(self.declared())

    def test_answers_of_others_arrive(self) -> None:
        answers_as_others_did(self.declared())

    def test_signatures_of_others_are_carried(self) -> None:
        carries_signatures(self.declared())

    def test_embeddings_survive(self) -> None:
        embeds(self.declared())

    def test_model_lists_survive(self) -> None:
        lists_models(self.declared())

    def test_token_counts_survive(self) -> None:
        counts_tokens(self.declared())
