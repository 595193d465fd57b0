"""The order in which services start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisperline_local.errors import LocalError
from whisperline_local.service import Service, start_order, with_dependencies


def service(name: str, *after: str) -> Service:
    return Service(name=name, command=("true",), after=after)


@st.composite
def acyclic(draw: st.DrawFn) -> list[Service]:
    names = draw(st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=8))
    needs = [draw(st.sets(st.sampled_from(names[:i]))) if i else set() for i in range(len(names))]
    return draw(st.permutations([service(name, *after) for name, after in zip(names, needs, strict=True)]))


@given(acyclic())
def test_a_service_comes_after_all_that_it_needs(services: list[Service]) -> None:
    """Each service is in exactly one wave, and what it needs is in earlier ones."""
    waves = start_order(services)
    wave_of = {name: number for number, wave in enumerate(waves) for name in wave}
    assert sorted(wave_of) == sorted(each.name for each in services)
    assert sum(map(len, waves)) == len(services)
    assert all(wave_of[need] < wave_of[each.name] for each in services for need in each.after)


@given(acyclic(), st.data())
def test_a_part_of_the_stack_brings_what_it_needs_and_no_more(services: list[Service], data: st.DataObject) -> None:
    """A selection holds the chosen services and all that they need, and no others."""
    chosen = data.draw(st.sets(st.sampled_from([each.name for each in services])) if services else st.just(set()))
    part = with_dependencies(services, chosen)
    names = {each.name for each in part}
    needed = {need for each in part for need in each.after}
    assert names == chosen | needed


def test_services_that_wait_for_each_other_are_refused() -> None:
    """The error names the services of a dependency cycle."""
    with pytest.raises(LocalError, match=r"a -> b -> a|b -> a -> b"):
        start_order([service("a", "b"), service("b", "a")])


def test_a_need_that_is_not_there_is_refused() -> None:
    """The error names a needed service that does not exist."""
    with pytest.raises(LocalError, match="no such service: z"):
        start_order([service("a", "z")])
    with pytest.raises(LocalError, match="no such service: z"):
        with_dependencies([service("a")], ["z"])
