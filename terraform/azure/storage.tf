# Exported models before they become images, and PostgreSQL's base backups and write-ahead log.
resource "azurerm_storage_account" "this" {
  #checkov:skip=CKV_AZURE_33:the account has no queues
  #checkov:skip=CKV2_AZURE_1:encrypted twice with the platform's keys (infrastructure_encryption_enabled); own keys are a choice of whoever must rotate them
  name                              = "stwl${var.environment}${var.unique_suffix}"
  location                          = azurerm_resource_group.this.location
  resource_group_name               = azurerm_resource_group.this.name
  account_kind                      = "StorageV2"
  account_tier                      = "Standard"
  account_replication_type          = var.storage_replication
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  allow_nested_items_to_be_public   = false
  shared_access_key_enabled         = false # the keys in the state open nothing
  local_user_enabled                = false
  default_to_oauth_authentication   = true
  cross_tenant_replication_enabled  = false
  infrastructure_encryption_enabled = true
  public_network_access_enabled     = false
  tags                              = local.tags

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = 30
    }

    container_delete_retention_policy {
      days = 30
    }
  }

  network_rules {
    default_action = "Deny"
    bypass         = ["AzureServices"]
  }

  sas_policy {
    expiration_period = "01.00:00:00"
    expiration_action = "Block"
  }
}

resource "azurerm_storage_container" "this" {
  #checkov:skip=CKV2_AZURE_21:reads are logged by the diagnostic setting of the blob service in monitoring.tf, which this check does not know
  for_each              = toset(["models", "postgresql-backups"])
  name                  = each.value
  storage_account_id    = azurerm_storage_account.this.id
  container_access_type = "private"
}

# Barman deletes a backup that is older than its retention; what it deleted need not be kept as a version for ever.
resource "azurerm_storage_management_policy" "this" {
  storage_account_id = azurerm_storage_account.this.id

  rule {
    name    = "old-versions"
    enabled = true

    filters {
      blob_types = ["blockBlob"]
    }

    actions {
      version {
        delete_after_days_since_creation = 30
      }
    }
  }
}
