locals {
  name   = "whisperline-${var.environment}"
  unique = "${local.name}-${var.unique_suffix}"
  tags   = merge(var.tags, { environment = var.environment, project = "whisperline" })
  zones  = ["1", "2", "3"]
}

data "azurerm_client_config" "current" {}

resource "azurerm_resource_group" "this" {
  name     = "rg-${local.name}"
  location = var.location
  tags     = local.tags
}

# Deleting the group would take the transcripts with it.
resource "azurerm_management_lock" "this" {
  count      = var.environment == "production" ? 1 : 0
  name       = "production"
  scope      = azurerm_resource_group.this.id
  lock_level = "CanNotDelete"
  notes      = "Holds transcripts, models and backups. Remove this lock by hand before a deletion that is meant."
}
