locals {
  name   = "whisperline-${var.environment}"
  unique = "${local.name}-${var.unique_suffix}"
  tags   = merge(var.tags, { environment = var.environment, project = "whisperline" })
  zones  = ["1", "2", "3"]

  with_data = merge(
    { storage = azurerm_storage_account.this.id },
    var.postgresql == null ? {} : { postgresql = azurerm_postgresql_flexible_server.this[0].id },
    var.event_hubs == null ? {} : { event-hubs = azurerm_eventhub_namespace.this[0].id },
  )
}

data "azurerm_client_config" "current" {}

resource "azurerm_resource_group" "this" {
  name     = "rg-${local.name}"
  location = var.location
  tags     = local.tags
}

# Against a hand that slips in the portal. What holds no data is not locked: a lock would stop Terraform from changing it, too.
resource "azurerm_management_lock" "data" {
  for_each   = var.environment == "production" ? local.with_data : {}
  name       = "production"
  scope      = each.value
  lock_level = "CanNotDelete"
  notes      = "Holds what cannot be made again. Remove this lock by hand before a deletion that is meant."
}
