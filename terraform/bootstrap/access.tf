locals {
  # `plan` reads; `apply` changes. Workflows of pull requests and of main get the first, an approved environment's the second.
  github = var.github_repository == null ? {} : {
    plan = {
      pull-request = "repo:${var.github_repository}:pull_request"
      main         = "repo:${var.github_repository}:ref:refs/heads/main"
    }
    apply = { for name in var.github_environments : "environment-${name}" => "repo:${var.github_repository}:environment:${name}" }
  }

  subjects = merge([
    for access, subjects in local.github : {
      for name, subject in subjects : "${access}-${name}" => { access = access, subject = subject }
    }
  ]...)

  appliers = merge(
    { for id in var.deployers : id => id },
    { for access, identity in azurerm_user_assigned_identity.github : "github" => identity.principal_id if access == "apply" },
  )

  # The roles that terraform/azure hands out, and no others: so that who applies it cannot make itself owner.
  assignable = [
    "Azure Kubernetes Service RBAC Cluster Admin",
    "Key Vault Secrets Officer",
    "Key Vault Secrets User",
    "Monitoring Data Reader",
    "Network Contributor",
    "Storage Blob Data Contributor",
  ]
  assignable_ids = join(", ", [for role in data.azurerm_role_definition.assignable : role.role_definition_id])
}

data "azurerm_role_definition" "assignable" {
  for_each = toset(local.assignable)
  name     = each.value
  scope    = data.azurerm_subscription.current.id
}

resource "azurerm_user_assigned_identity" "github" {
  for_each            = local.github
  name                = "id-whisperline-github-${each.key}"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
}

resource "azurerm_federated_identity_credential" "github" {
  for_each                  = local.subjects
  name                      = each.key
  user_assigned_identity_id = azurerm_user_assigned_identity.github[each.value.access].id
  issuer                    = "https://token.actions.githubusercontent.com"
  subject                   = each.value.subject
  audience                  = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "reader" {
  for_each             = { for access, identity in azurerm_user_assigned_identity.github : access => identity.principal_id if access == "plan" }
  scope                = data.azurerm_subscription.current.id
  role_definition_name = "Reader"
  principal_id         = each.value
}

# Reading a cluster, for Terraform, includes the kubeconfig of its users. It has no credentials: local accounts are off.
resource "azurerm_role_assignment" "cluster_user" {
  for_each             = { for access, identity in azurerm_user_assigned_identity.github : access => identity.principal_id if access == "plan" }
  scope                = data.azurerm_subscription.current.id
  role_definition_name = "Azure Kubernetes Service Cluster User Role"
  principal_id         = each.value
}

# A plan reads the state and, run with -lock=false, writes nothing.
resource "azurerm_role_assignment" "state_reader" {
  for_each             = { for access, identity in azurerm_user_assigned_identity.github : access => identity.principal_id if access == "plan" }
  scope                = azurerm_storage_container.this.id
  role_definition_name = "Storage Blob Data Reader"
  principal_id         = each.value
}

resource "azurerm_role_assignment" "state_writer" {
  for_each             = local.appliers
  scope                = azurerm_storage_container.this.id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = each.value
}

resource "azurerm_role_assignment" "contributor" {
  for_each             = local.appliers
  scope                = data.azurerm_subscription.current.id
  role_definition_name = "Contributor"
  principal_id         = each.value
}

# Production's data is locked against deletion, and a Contributor may do nothing that Microsoft.Authorization is asked for.
resource "azurerm_role_assignment" "locks" {
  for_each             = local.appliers
  scope                = data.azurerm_subscription.current.id
  role_definition_name = "Locks Contributor"
  principal_id         = each.value
}

resource "azurerm_role_assignment" "role_administrator" {
  for_each             = local.appliers
  scope                = data.azurerm_subscription.current.id
  role_definition_name = "Role Based Access Control Administrator"
  principal_id         = each.value
  condition_version    = "2.0"
  condition            = <<-EOT
    (
      !(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})
      OR
      @Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {${local.assignable_ids}}
    )
    AND
    (
      !(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'})
      OR
      @Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {${local.assignable_ids}}
    )
  EOT
}
