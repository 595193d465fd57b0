# Who may do what. The provider is mocked: nothing is asked of Azure.

mock_provider "azurerm" {
  mock_data "azurerm_role_definition" {
    defaults = {
      role_definition_id = "00000000-0000-0000-0000-00000000000b"
    }
  }
}

variables {
  location      = "westeurope"
  unique_suffix = "test"
}

run "without_github_nobody_but_the_named_may_apply" {
  command = plan

  variables {
    deployers = ["00000000-0000-0000-0000-000000000001"]
  }

  assert {
    condition     = length(azurerm_user_assigned_identity.github) == 0 && toset(keys(azurerm_role_assignment.contributor)) == toset(["00000000-0000-0000-0000-000000000001"])
    error_message = "somebody else may apply"
  }
}

run "a_pull_request_may_read_and_an_environment_may_apply" {
  command = plan

  variables {
    github_repository = "octocat@123456/speech@456789"
  }

  assert {
    condition     = azurerm_federated_identity_credential.github["plan-pull-request"].subject == "repo:octocat@123456/speech@456789:pull_request"
    error_message = "a pull request cannot plan"
  }

  assert {
    condition     = azurerm_federated_identity_credential.github["plan-main"].subject == "repo:octocat@123456/speech@456789:ref:refs/heads/main"
    error_message = "main cannot plan before its approval"
  }

  assert {
    condition     = toset(keys(azurerm_federated_identity_credential.github)) == toset(["plan-main", "plan-pull-request", "apply-environment-production", "apply-environment-staging"])
    error_message = "the environment production cannot apply"
  }

  assert {
    condition     = toset(keys(azurerm_role_assignment.reader)) == toset(["plan"]) && toset(keys(azurerm_role_assignment.contributor)) == toset(["github"])
    error_message = "a pull request could change Azure"
  }

  assert {
    condition     = toset(keys(azurerm_role_assignment.state_writer)) == toset(["github"])
    error_message = "a pull request could write the state"
  }

  assert {
    condition     = toset(keys(azurerm_role_assignment.locks)) == toset(["github"])
    error_message = "who applies cannot lock production's data, or a pull request could unlock it"
  }
}

run "a_repository_from_before_the_ids_is_named_without" {
  command = plan

  variables {
    github_repository = "octocat/speech"
  }

  assert {
    condition     = azurerm_federated_identity_credential.github["apply-environment-production"].subject == "repo:octocat/speech:environment:production"
    error_message = "an older repository cannot apply"
  }
}

run "roles_are_handed_out_only_from_the_list" {
  command = plan

  variables {
    github_repository = "octocat/speech"
  }

  assert {
    condition     = length(regexall("GuidEquals \\{00000000-0000-0000-0000-00000000000b", azurerm_role_assignment.role_administrator["github"].condition)) == 2
    error_message = "who applies could make itself owner"
  }
}

run "repository_with_half_of_its_ids" {
  command         = plan
  expect_failures = [var.github_repository]
  variables { github_repository = "octocat/speech@456789" }
}

run "repository_without_owner" {
  command         = plan
  expect_failures = [var.github_repository]
  variables { github_repository = "speech" }
}
