# What must be there before terraform/azure can run: a place for its state, and who may run it.

data "azurerm_subscription" "current" {}

resource "azurerm_resource_group" "this" {
  name     = "rg-whisperline-state"
  location = var.location
}

resource "azurerm_management_lock" "this" {
  name       = "state"
  scope      = azurerm_storage_account.this.id
  lock_level = "CanNotDelete"
  notes      = "Without the state, Terraform no longer knows what it made. Roles on the account cannot be taken away either while this lock is there."
}

resource "azurerm_storage_account" "this" {
  #checkov:skip=CKV_AZURE_59:runners and operators reach the state from changing addresses; shared keys are off, and who signs in is what counts
  #checkov:skip=CKV2_AZURE_33:as above: there is no network yet when the state is made
  #checkov:skip=CKV_AZURE_33:the account has no queues
  #checkov:skip=CKV2_AZURE_1:encrypted twice with the platform's keys; there is no vault yet when the state is made
  name                              = "stwlstate${var.unique_suffix}"
  location                          = azurerm_resource_group.this.location
  resource_group_name               = azurerm_resource_group.this.name
  account_kind                      = "StorageV2"
  account_tier                      = "Standard"
  account_replication_type          = "GZRS"
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  allow_nested_items_to_be_public   = false
  shared_access_key_enabled         = false
  local_user_enabled                = false
  default_to_oauth_authentication   = true
  cross_tenant_replication_enabled  = false
  infrastructure_encryption_enabled = true
  public_network_access_enabled     = true # GitHub's runners have no fixed addresses; who signs in is what counts

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = 90
    }

    container_delete_retention_policy {
      days = 90
    }
  }

  sas_policy {
    expiration_period = "01.00:00:00"
    expiration_action = "Block"
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_storage_container" "this" {
  #checkov:skip=CKV2_AZURE_21:versions keep every state that there was, and sign-ins are in Entra's log; there is no workspace yet when the state is made
  name                  = "tfstate"
  storage_account_id    = azurerm_storage_account.this.id
  container_access_type = "private"

  lifecycle {
    prevent_destroy = true
  }
}
