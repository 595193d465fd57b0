"""Test that every argument and reference in terraform/ exists in the pinned provider."""

from pathlib import Path

import pytest
from configuration import (
    ROOTS,
    SCHEMAS,
    blocks,
    broken_references,
    faults,
    files,
    labelled,
    parse,
    provider_schema,
    schema_of,
)

by_root = pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)


@by_root
def test_every_resource_has_the_arguments_that_its_type_takes(root: Path) -> None:
    """No argument is unknown, read-only or missing."""
    found = [
        fault
        for block in blocks(files(root))
        for fault in faults(block.body, schema_of(block.kind, block.type), block.address)
    ]
    assert not found


@by_root
def test_every_reference_meets_an_attribute(root: Path) -> None:
    """Every reference names a declared block and an attribute of its type."""
    assert not list(broken_references(files(root)))


@by_root
def test_every_provider_has_the_arguments_that_it_takes(root: Path) -> None:
    """The arguments of the providers' own blocks exist as well."""
    found = [
        fault for name, body in labelled(files(root), "provider") for fault in faults(body, provider_schema(name), name)
    ]
    assert not found


@by_root
def test_providers_are_pinned_to_the_versions_that_were_checked(root: Path) -> None:
    """A configuration requires exactly the version whose schema is stored here."""
    settings = next(file["terraform"][0] for file in files(root) if "terraform" in file)
    pinned = {
        name: wanted["version"].strip('"')
        for name, wanted in settings["required_providers"][0].items()
        if isinstance(wanted, dict)
    }
    assert pinned
    assert pinned == {name: SCHEMAS[name]["version"] for name in pinned}


IDENTITY = """resource "azurerm_user_assigned_identity" "one" {
  name                = "one"
  location            = "westeurope"
  resource_group_name = "group"
  %s
}
"""


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('lokation = "x"', "lokation: no such argument"),
        ('client_id = "x"', "client_id: read-only"),
        ("tags = {}", None),
    ],
)
def test_a_wrong_argument_is_found(line: str, fault: str | None) -> None:
    """The check fails on an argument that Azure would refuse."""
    block = blocks([parse(IDENTITY % line)])[0]
    found = list(faults(block.body, schema_of(block.kind, block.type), "one"))
    assert found == ([f"one.{fault}"] if fault else [])


def test_a_missing_argument_is_found() -> None:
    """The check fails on a resource without a required argument or block."""
    block = blocks([parse('resource "azurerm_kubernetes_cluster" "one" {\n  name = "one"\n}\n')])[0]
    found = list(faults(block.body, schema_of(block.kind, block.type), "one"))
    assert "one.location: required" in found
    assert "one.default_node_pool: required" in found


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        (
            "azurerm_user_assigned_identity.one.principal",
            "azurerm_user_assigned_identity.one.principal: no such attribute",
        ),
        ("azurerm_user_assigned_identity.two.id", "azurerm_user_assigned_identity.two: not declared"),
        ('azurerm_user_assigned_identity.one["a"].principal_id', None),
    ],
)
def test_a_wrong_reference_is_found(expression: str, fault: str | None) -> None:
    """The check fails on a reference to something undeclared."""
    found = list(broken_references([parse((IDENTITY % "") + f"\nlocals {{\n  value = {expression}\n}}\n")]))
    assert found == ([fault] if fault else [])
