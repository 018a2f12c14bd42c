"""Passwords do not survive ``mask``, and addresses without any do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.masking import holds_secret, mask

WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
PASSWORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters='"'), min_size=1
).map(lambda text: f"pw-{text}-wp")
SCHEME = st.sampled_from(["postgresql", "postgresql+psycopg2", "mysql", "https", "s3", "redis"])


@given(SCHEME, WORD | st.just(""), PASSWORD, WORD)
def test_a_password_is_masked_wherever_the_address_stands(
    scheme: str, user: str, password: str, host: str
) -> None:
    address = f"{scheme}://{user}:{password}@{host}:5432/db"
    said = mask(f"'{address}': cannot be reached (see {address}).")
    assert password not in said
    assert said.count(f"{scheme}://{user}:***@{host}:5432/db") == 2
    assert holds_secret(address)
    assert not holds_secret(mask(address))


@given(SCHEME, WORD, st.integers(1, 65535), WORD)
def test_an_address_without_a_password_stays_as_it_is(
    scheme: str, host: str, port: int, path: str
) -> None:
    for address in (
        f"{scheme}://{host}:{port}/{path}",
        f"{scheme}://{host}/{path}?sslmode=require&keepalives=1",
        f"models:/{path}@champion",
    ):
        assert mask(address) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://ghp_token@host/x", "https://***@host/x"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://h/db?user=me&password=a+b", "postgresql://h/db?user=me&password=***"),
        ("postgresql://h/db?sslpassword=x&a=b", "postgresql://h/db?sslpassword=***&a=b"),
        ("https://h/x?X-Amz-Signature=ab%2F&v=1", "https://h/x?X-Amz-Signature=***&v=1"),
        ("https://h/c?sv=2022&sig=abc%3D", "https://h/c?sv=2022&sig=***"),
        ("postgresql://u:p/a@ss@host/db", "postgresql://u:***@host/db"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("critic.depth=4", "critic.depth=4"),
    ],
)
def test_examples(text: str, said: str) -> None:
    assert mask(text) == said
