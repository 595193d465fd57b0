resource "azurerm_log_analytics_workspace" "this" {
  name                         = "log-${local.name}"
  location                     = azurerm_resource_group.this.location
  resource_group_name          = azurerm_resource_group.this.name
  sku                          = "PerGB2018"
  retention_in_days            = var.log_retention_days
  local_authentication_enabled = false # the keys in the state open nothing
  tags                         = local.tags
}

resource "azurerm_monitor_data_collection_rule" "logs" {
  name                = "dcr-${local.name}-logs"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  kind                = "Linux"
  tags                = local.tags

  destinations {
    log_analytics {
      name                  = "logs"
      workspace_resource_id = azurerm_log_analytics_workspace.this.id
    }
  }

  data_flow {
    streams      = ["Microsoft-ContainerLogV2", "Microsoft-KubeEvents"]
    destinations = ["logs"]
  }

  data_sources {
    extension {
      name           = "ContainerInsightsExtension"
      extension_name = "ContainerInsights"
      streams        = ["Microsoft-ContainerLogV2", "Microsoft-KubeEvents"]
      extension_json = jsonencode({
        dataCollectionSettings = { interval = "1m", namespaceFilteringMode = "Off", enableContainerLogV2 = true }
      })
    }
  }
}

resource "azurerm_monitor_data_collection_rule_association" "logs" {
  name                    = "ContainerInsightsExtension"
  target_resource_id      = azurerm_kubernetes_cluster.this.id
  data_collection_rule_id = azurerm_monitor_data_collection_rule.logs.id
}

# Managed Prometheus: the add-on scrapes, this workspace stores, KEDA and people query.
resource "azurerm_monitor_workspace" "this" {
  name                = "amw-${local.name}"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_monitor_data_collection_endpoint" "metrics" {
  name                = "dce-${local.name}-metrics"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  kind                = "Linux"
  tags                = local.tags
}

resource "azurerm_monitor_data_collection_rule" "metrics" {
  name                        = "dcr-${local.name}-metrics"
  location                    = azurerm_resource_group.this.location
  resource_group_name         = azurerm_resource_group.this.name
  kind                        = "Linux"
  data_collection_endpoint_id = azurerm_monitor_data_collection_endpoint.metrics.id
  tags                        = local.tags

  destinations {
    monitor_account {
      name               = "metrics"
      monitor_account_id = azurerm_monitor_workspace.this.id
    }
  }

  data_flow {
    streams      = ["Microsoft-PrometheusMetrics"]
    destinations = ["metrics"]
  }

  data_sources {
    prometheus_forwarder {
      name    = "PrometheusDataSource"
      streams = ["Microsoft-PrometheusMetrics"]
    }
  }
}

resource "azurerm_monitor_data_collection_rule_association" "metrics" {
  name                    = "metrics"
  target_resource_id      = azurerm_kubernetes_cluster.this.id
  data_collection_rule_id = azurerm_monitor_data_collection_rule.metrics.id
}

locals {
  # Who did what: changes through the Kubernetes API, reads of secrets, models and backups, sign-ins to the database.
  audited = merge(
    {
      cluster = { id = azurerm_kubernetes_cluster.this.id, categories = ["kube-audit-admin", "guard", "cluster-autoscaler"] }
      vault   = { id = azurerm_key_vault.this.id, categories = ["AuditEvent"] }
      storage = { id = "${azurerm_storage_account.this.id}/blobServices/default", categories = ["StorageRead", "StorageWrite", "StorageDelete"] }
    },
    var.postgresql == null ? {} : {
      postgresql = { id = azurerm_postgresql_flexible_server.this[0].id, categories = ["PostgreSQLLogs"] }
    },
    var.event_hubs == null ? {} : {
      event-hubs = { id = azurerm_eventhub_namespace.this[0].id, categories = ["RuntimeAuditLogs", "OperationalLogs"] }
    },
  )
}

resource "azurerm_monitor_diagnostic_setting" "this" {
  for_each                   = local.audited
  name                       = "audit"
  target_resource_id         = each.value.id
  log_analytics_workspace_id = azurerm_log_analytics_workspace.this.id

  dynamic "enabled_log" {
    for_each = each.value.categories

    content {
      category = enabled_log.value
    }
  }
}
