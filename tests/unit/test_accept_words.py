"""The summary of a change of accept rules says in which direction it goes."""

import pytest

from cnictl.node.resources.accept_words import changed_sources

END = "-d 10.244.0.0/24 -o cni0 -m comment --comment cnictl:mynet -j ACCEPT"
PODS, ONE, TWO = f"-s 10.244.0.0/20 {END}", f"-s 10.0.10.51/32 {END}", f"-s fd00:10::51/128 {END}"
SENT = "-s 10.244.0.0/24 -i cni0 -m comment --comment cnictl:mynet -j ACCEPT"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ([PODS, ONE, SENT], [PODS, SENT], "stop accepting packets to pods from 10.0.10.51"),
        ([PODS, SENT], [PODS, ONE, SENT], "accept packets to pods from 10.0.10.51"),
        ([ONE], [TWO], "accept packets to pods from fd00:10::51, and no longer from 10.0.10.51,"),
        ([], [PODS, ONE, SENT], ""),
        ([ONE], [ONE, SENT], ""),
        ([ONE], [ONE], ""),
    ],
)
def test_words_of_changed_accept_rules(old: list[str], new: list[str], words: str) -> None:
    assert changed_sources(old, new) == words
