locals {
  # What pods may do in Azure: one identity a purpose, one role each, over one thing.
  grants = {
    secrets = { role = "Key Vault Secrets User", scope = azurerm_key_vault.this.id }
    metrics = { role = "Monitoring Data Reader", scope = azurerm_monitor_workspace.this.id }
    backups = { role = "Storage Blob Data Contributor", scope = azurerm_storage_container.this["postgresql-backups"].id }
    models  = { role = "Storage Blob Data Contributor", scope = azurerm_storage_container.this["models"].id }
  }

  federations = merge([
    for purpose, accounts in var.service_accounts : {
      for account in accounts : "${purpose}-${replace(account, "/", "-")}" => {
        purpose = purpose
        subject = "system:serviceaccount:${replace(account, "/", ":")}"
      }
    }
  ]...)
}

resource "azurerm_user_assigned_identity" "workload" {
  for_each            = local.grants
  name                = "id-${local.name}-${each.key}"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_role_assignment" "workload" {
  for_each             = local.grants
  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.workload[each.key].principal_id
  principal_type       = "ServicePrincipal"
}

# A pod with this service account is this identity; there is no password to keep.
resource "azurerm_federated_identity_credential" "workload" {
  for_each                  = local.federations
  name                      = each.key
  user_assigned_identity_id = azurerm_user_assigned_identity.workload[each.value.purpose].id
  issuer                    = azurerm_kubernetes_cluster.this.oidc_issuer_url
  subject                   = each.value.subject
  audience                  = ["api://AzureADTokenExchange"]
}
