"""Second attempts stay within their share of the requests."""

from __future__ import annotations

from ccr_data.core.hedging import HedgeCredit
from hypothesis import given
from hypothesis import strategies as st


@given(share=st.floats(0.001, 1.0), wanted=st.lists(st.booleans(), max_size=300))
def test_never_more_than_the_share_however_they_come(share: float, wanted: list[bool]) -> None:
    """Counted from the beginning; and what is saved up is bounded, so that a calm day does not pay for a stampede."""
    credit, taken = HedgeCredit(), 0
    for count, wants in enumerate(wanted, 1):
        credit.note_request(share)
        taken += wants and credit.take()
        assert taken <= count * share + 1e-6
    assert sum(credit.take() for _ in range(100)) <= HedgeCredit.MAX_SAVED


def test_the_share_is_used() -> None:
    """If every request is slow, one in twenty is sent twice."""
    credit = HedgeCredit()

    def request() -> bool:
        credit.note_request(0.05)
        return credit.take()

    assert sum(request() for _ in range(1000)) == 50
