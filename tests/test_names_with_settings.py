"""A name may carry settings: "powersgd:rank=2:alternate=true"."""

from __future__ import annotations

import pytest

from hvd_compress import (
    QSGD,
    AllGather,
    ConfigurationError,
    Identity,
    PowerSGD,
    TwoWay,
    UnknownCompressorError,
    resolve,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("powersgd:rank=2", PowerSGD(rank=2)),
        ("PowerSGD:rank=2:alternate=true", PowerSGD(rank=2, alternate=True)),
        ("powersgd:error_feedback=False:min_saving=1.5", PowerSGD(error_feedback=False, min_saving=1.5)),
        ("dense", Identity()),
    ],
)
def test_settings_follow_the_name(text: str, expected: object) -> None:
    assert resolve(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("powersgd:ranks=2", "no setting 'ranks'; it has alternate, error_feedback"),
        ("powersgd:rank", "'rank' is no setting; write name=value"),
        ("powersgd:=2", "'=2' is no setting"),
        ("powersgd:rank=0", "rank must be a whole number of at least 1"),
        ("powersgd:rank=two", "PowerSGD(rank='two')"),
        ("identity:rank=2", "Identity has no setting 'rank'"),
    ],
)
def test_a_wrong_setting_is_told_in_one_sentence(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_name_with_settings_is_told_its_nearest() -> None:
    with pytest.raises(UnknownCompressorError, match="did you mean 'powersgd'"):
        resolve("powersdg:rank=2")


def test_a_setting_of_the_codec_inside_is_reached() -> None:
    assert resolve("qsgd:levels=3:bucket=64") == AllGather(QSGD(levels=3, bucket=64))
    assert resolve("qsgdtwoway:levels=3:server_feedback=true") == TwoWay(QSGD(levels=3), server_feedback=True)
    with pytest.raises(ConfigurationError, match=r"no setting 'lvls'.*bucket, codec, levels"):
        resolve("qsgd:lvls=3")
