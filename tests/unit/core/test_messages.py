"""The wording that many messages share."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from isthmus.core.messages import did_you_mean, listing, one_line, unknown_key, unknown_name, validation_fault
from isthmus.recipes.config import make_config
from isthmus.recipes.extend import ExtendConfig


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    count: int = Field(default=1, ge=1)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = ""
    rows: list[_Row] = []

    @model_validator(mode="after")
    def _check(self) -> _Table:
        if self.title == "bad":
            raise ValueError("the title is bad")
        return self


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"titel": "x"}, "f.toml has the unknown key 'titel'. Did you mean title? Valid keys: title, rows."),
        (
            {"rows": [{"nam": "x"}]},
            "f.toml has the unknown key 'rows.0.nam'. Did you mean name? Valid keys: name, count.",
        ),
        ({"rows": [{}]}, "f.toml lacks the key 'rows.0.name'. Keys there: name, count."),
        (
            {"rows": [{"name": "x", "count": 0}]},
            "f.toml key 'rows.0.count' got 0: Input should be greater than or equal to 1.",
        ),
        ({"title": "bad"}, "f.toml: the title is bad."),
        ({"title": 3}, "f.toml key 'title' got 3: Input should be a valid string."),
    ],
)
def test_what_pydantic_refuses_is_one_line(values: dict, text: str):
    with pytest.raises(ValidationError) as caught:
        _Table(**values)
    assert validation_fault(caught.value, _Table, "f.toml") == text


def test_no_message_about_a_key_is_longer_than_a_message_may_be():
    from isthmus.errors import ConfigError

    for values in ({"epochss": 3}, {"x" * 500: 1}, {"epochs": "y" * 5000}):
        with pytest.raises(ConfigError) as caught:
            make_config(ExtendConfig, values)
        assert len(str(caught.value)) <= 400


def test_names():
    assert did_you_mean("epoch", ["epochs", "seed"]) == " Did you mean epochs?"
    assert did_you_mean("zzz", ["epochs"]) == ""
    assert unknown_name("unknown method", "rigde", ["ridge", "cca"]) == (
        "unknown method 'rigde'. Did you mean ridge? Expected one of ridge, cca."
    )
    assert unknown_key("--set", "c", ["b"], "a.") == "--set has the unknown key 'a.c'. Valid keys: a.b."
    assert listing([]) == "none"
    assert listing([f"name{n:02}" for n in range(60)]).endswith(" and 35 more")


def test_an_error_of_another_library_is_its_first_line():
    assert one_line(ValueError("first\nsecond")) == "first"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 999))) == 160
