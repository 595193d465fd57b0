"""Test that the deployer has all rights that terraform/azure needs: a mock refuses nothing, Azure would."""

import re

from configuration import ROOT, blocks, files, labelled

AZURE, BOOTSTRAP = files(ROOT / "terraform" / "azure"), files(ROOT / "terraform" / "bootstrap")
TYPES = {block.type for block in blocks(AZURE) if block.kind == "resource"}

# A Contributor's rights leave out the writing of Microsoft.Authorization: what is made there needs a role of its own.
NOT_A_CONTRIBUTORS = {
    "azurerm_management_lock": "Locks Contributor",
    "azurerm_role_assignment": "Role Based Access Control Administrator",
}
# The resource provider that makes a type, by the longest prefix of its name; None: every subscription has it.
MAKERS = {
    "azurerm_eventhub": "Microsoft.EventHub",
    "azurerm_federated_identity_credential": "Microsoft.ManagedIdentity",
    "azurerm_key_vault": "Microsoft.KeyVault",
    "azurerm_kubernetes_cluster": "Microsoft.ContainerService",
    "azurerm_log_analytics": "Microsoft.OperationalInsights",
    "azurerm_management_lock": None,
    "azurerm_monitor_": "Microsoft.Insights",
    "azurerm_monitor_workspace": "Microsoft.Monitor",
    "azurerm_network_security_group": "Microsoft.Network",
    "azurerm_postgresql": "Microsoft.DBforPostgreSQL",
    "azurerm_private_": "Microsoft.Network",
    "azurerm_resource_group": None,
    "azurerm_role_assignment": None,
    "azurerm_storage": "Microsoft.Storage",
    "azurerm_subnet": "Microsoft.Network",
    "azurerm_user_assigned_identity": "Microsoft.ManagedIdentity",
    "azurerm_virtual_network": "Microsoft.Network",
}


def roles_of(principals: str) -> set[str]:
    """Return the roles that bootstrap gives to each of these principals."""
    assignments = [block.body for block in blocks(BOOTSTRAP) if block.type == "azurerm_role_assignment"]
    return {body["role_definition_name"].strip('"') for body in assignments if principals in body["for_each"]}


def test_who_applies_has_the_roles_that_the_resources_need() -> None:
    """The deployer is Contributor, and has a further role for each type that a Contributor may not create."""
    needed = {role for type_name, role in NOT_A_CONTRIBUTORS.items() if type_name in TYPES}
    assert len(needed) == 2
    assert roles_of("local.appliers") >= needed | {"Contributor"}


def test_who_applies_may_hand_out_the_roles_that_are_handed_out() -> None:
    """Bootstrap lets the deployer assign exactly the roles that azure/ assigns."""
    (listed,) = (found["assignable"] for file in BOOTSTRAP for found in file.get("locals", []))
    text = "".join(file.read_text() for file in (ROOT / "terraform" / "azure").glob("*.tf"))
    handed_out = set(re.findall(r'\brole(?:_definition_name)?\s+= "([^"]+)"', text))
    assert {role.strip('"') for role in listed} == handed_out


def test_every_resource_provider_is_registered_beforehand() -> None:
    """Bootstrap, which an owner runs, registers every resource provider, because a read-only plan cannot."""
    by_owner, by_plan = (dict(labelled(parsed, "provider"))["azurerm"] for parsed in (BOOTSTRAP, AZURE))
    registered = {name.strip('"') for name in by_owner["resource_providers_to_register"]}
    makers = {MAKERS[max(filter(type_name.startswith, MAKERS), key=len)] for type_name in TYPES}
    assert len(makers) > 5
    assert makers - {None} <= registered
    assert "resource_providers_to_register" not in by_plan
