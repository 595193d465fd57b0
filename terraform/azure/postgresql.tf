resource "azurerm_private_dns_zone" "postgresql" {
  count               = var.postgresql == null ? 0 : 1
  name                = "${local.unique}.private.postgres.database.azure.com"
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "postgresql" {
  count               = var.postgresql == null ? 0 : 1
  name                = "postgresql"
  private_dns_zone_id = azurerm_private_dns_zone.postgresql[0].id
  virtual_network_id  = azurerm_virtual_network.this.id
  tags                = local.tags
}

resource "azurerm_postgresql_flexible_server" "this" {
  #checkov:skip=CKV2_AZURE_57:it lies in a delegated subnet of its own, and has no public address to put an endpoint beside
  count                             = var.postgresql == null ? 0 : 1
  name                              = "psql-${local.unique}"
  location                          = azurerm_resource_group.this.location
  resource_group_name               = azurerm_resource_group.this.name
  version                           = var.postgresql.version
  sku_name                          = var.postgresql.sku_name
  storage_mb                        = var.postgresql.storage_mb
  auto_grow_enabled                 = true
  delegated_subnet_id               = azurerm_subnet.postgresql[0].id
  private_dns_zone_id               = azurerm_private_dns_zone.postgresql[0].id
  public_network_access_enabled     = false
  administrator_login               = "whisperline"
  administrator_password_wo         = var.postgresql_password
  administrator_password_wo_version = var.postgresql.password_version
  backup_retention_days             = var.postgresql.backup_retention_days
  geo_redundant_backup_enabled      = var.postgresql.geo_redundant_backup
  zone                              = "1"
  tags                              = local.tags

  # The deployables sign in with a password from the vault; people with their Entra account.
  authentication {
    password_auth_enabled         = true
    active_directory_auth_enabled = true
    tenant_id                     = data.azurerm_client_config.current.tenant_id
  }

  dynamic "high_availability" {
    for_each = var.postgresql.zone_redundant ? ["2"] : []

    content {
      mode                      = "ZoneRedundant"
      standby_availability_zone = high_availability.value
    }
  }

  maintenance_window {
    day_of_week  = 2
    start_hour   = 2
    start_minute = 0
  }

  lifecycle {
    prevent_destroy = true
    # After a failover the two zones have changed places.
    ignore_changes = [zone, high_availability[0].standby_availability_zone]
  }

  depends_on = [azurerm_private_dns_zone_virtual_network_link.postgresql]
}

resource "azurerm_postgresql_flexible_server_database" "this" {
  count     = var.postgresql == null ? 0 : 1
  name      = "whisperline"
  server_id = azurerm_postgresql_flexible_server.this[0].id
  charset   = "UTF8"

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_postgresql_flexible_server_configuration" "this" {
  for_each = var.postgresql == null ? {} : {
    # Connections come and go with gateways; the log of both is what a breach is found in.
    log_connections    = "on"
    log_disconnections = "on"
    # A statement that took a second is a missing index.
    log_min_duration_statement = "1000"
  }
  name      = each.key
  server_id = azurerm_postgresql_flexible_server.this[0].id
  value     = each.value
}
