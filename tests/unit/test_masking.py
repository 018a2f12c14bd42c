"""Passwords do not survive ``mask``, and addresses without any do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.redaction import holds_secret, mask

WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
PASSWORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters='"'), min_size=1
).map(lambda text: f"pw-{text}-wp")
SCHEME = st.sampled_from(["postgresql", "postgresql+psycopg2", "mysql", "https", "s3", "redis"])


@given(SCHEME, WORD | st.just(""), PASSWORD, WORD)
def test_a_password_is_masked_anywhere_in_a_text(
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
        ("postgresql://u:a\"b'c@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:pass word with @ blanks@h/db", "postgresql://u:***@h/db"),
        ("http://h:5000 has no models:/m@champion", "http://h:5000 has no models:/m@champion"),
        ("http://[::1]:8265 has no segan@champion", "http://[::1]:8265 has no segan@champion"),
        ("http://host: not reached by me@x", "http://host: not reached by me@x"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Ds", "mssql+pyodbc:///?odbc_connect=***"),
        ("DRIVER={X};UID=u;PWD={a;b c};Encrypt=yes", "DRIVER={X};UID=u;PWD=***;Encrypt=yes"),
        ("DRIVER={X};PWD=a b;Encrypt=yes", "DRIVER={X};PWD=***;Encrypt=yes"),
        ("host=h password='a \\' b' user=u", "host=h password='***' user=u"),
        ("https://h/?auth=a&b=1", "https://h/?auth=***&b=1"),
        ("https://h/?author=me", "https://h/?author=me"),
        ("http://127.0.0.1:5000/#token=abc", "http://127.0.0.1:5000/#token=***"),
        ("http://127.0.0.1:5000/#/experiments/1", "http://127.0.0.1:5000/#/experiments/1"),
        ('https://h/?password=a"b c&x=1', "https://h/?password=***&x=1"),
        ("Authorization: Bearer abc.def refused", "Authorization: Bearer *** refused"),
        ("MLFLOW_TRACKING_PASSWORD=abc", "MLFLOW_TRACKING_PASSWORD=***"),
        ("postgresql://h/db?password=a b", "postgresql://h/db?password=***"),
        ("postgresql://h/db?user=me&password=a b c", "postgresql://h/db?user=me&password=***"),
        ("DRIVER={X};PWD=a b", "DRIVER={X};PWD=***"),
        ("'postgresql://h/db?password=a b': refused", "'postgresql://h/db?password=***': refused"),
        ("see https://h/?key=a: it is away", "see https://h/?key=*** it is away"),
        ("postgresql://h/db?password=a b (away).", "postgresql://h/db?password=***)."),
        ("s3://b?key=a b or http://h/x", "s3://b?key=*** http://h/x"),
        ("postgresql://me:12345 6@h/db", "postgresql://me:***@h/db"),
        ("postgresql://me:1 2 @ 3@h.org:5432/db", "postgresql://me:***@h.org:5432/db"),
        ("postgresql://me:1 2@h/a http://h:80 b@c/", "postgresql://me:***@h/a http://h:***@c/"),
        ('{"password": "a b", "x": 1}', '{"password": "***", "x": 1}'),
    ],
)
def test_examples(text: str, said: str) -> None:
    assert mask(text) == said
    assert mask(said) == said


@given(PASSWORD, st.sampled_from([" ", "'", '"', "@", ":", "/", " @", "' "]), PASSWORD)
def test_a_password_with_blanks_and_quotes_is_masked(start: str, mark: str, end: str) -> None:
    said = mask(f"postgresql://me:{start}{mark}{end}@host/db: cannot be reached.")
    assert said == "postgresql://me:***@host/db: cannot be reached."


@pytest.mark.parametrize(
    "piece",
    [
        "a", "a://b:", "://", "://a:b ", "://a:b@ ", "?", "?token", "token.", "?password=",
        "?password= ", "?password=' ", "password={ ", "password='\\", "?key= x", ";key= x",
        "?key= ://", "?key=a ", "?key=a b ://",
        ";pwd=a b", "?key=a' ", "?key=a''", "?key=*** ", "a://b:1 ", "a://b:1 @c/", "http://a",
        "authorization: ", "\n://a:", "://[", "://[1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["", "@", "&", ";", "://"])
def test_a_long_text_is_masked_in_time_that_grows_with_it(piece: str, end: str) -> None:
    # In quadratic time this would take minutes.
    assert mask(piece * (200_000 // len(piece)) + end)
