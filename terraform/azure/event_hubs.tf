locals {
  # The topics of contracts/whisperline_contracts/topics.py; tests/terraform holds the two against each other. The provider
  # cannot set the lag of an hour before session_progress is compacted: docs/operations.md has the command.
  hubs = var.event_hubs == null ? {} : {
    "audio_chunks"                = { partitions = var.event_hubs.audio_partitions, retention_hours = 24, compacted = false }
    "session_progress"            = { partitions = var.event_hubs.audio_partitions, retention_hours = 0, compacted = true }
    "transcriptions"              = { partitions = var.event_hubs.reply_partitions, retention_hours = 24, compacted = false }
    "audio_chunks.dead_letters"   = { partitions = 1, retention_hours = 336, compacted = false }
    "transcriptions.dead_letters" = { partitions = 1, retention_hours = 336, compacted = false }
  }
}

# Premium: dead letters are kept for two weeks (Standard keeps one), partitions can be added, and capacity is the owner's alone.
# Its root key is in the state, because the provider reads it; the container with the state is as secret as that key.
resource "azurerm_eventhub_namespace" "this" {
  count                         = var.event_hubs == null ? 0 : 1
  name                          = "evhns-${local.unique}"
  location                      = azurerm_resource_group.this.location
  resource_group_name           = azurerm_resource_group.this.name
  sku                           = "Premium"
  capacity                      = var.event_hubs.processing_units
  minimum_tls_version           = "1.2"
  public_network_access_enabled = false
  local_authentication_enabled  = true # Kafka clients sign in with SASL PLAIN and a connection string
  tags                          = local.tags

  identity {
    type = "SystemAssigned"
  }
}

resource "azurerm_eventhub" "this" {
  for_each        = local.hubs
  name            = each.key
  namespace_id    = azurerm_eventhub_namespace.this[0].id
  partition_count = each.value.partitions

  retention_description {
    cleanup_policy                    = each.value.compacted ? "Compact" : "Delete"
    retention_time_in_hours           = each.value.compacted ? null : each.value.retention_hours
    tombstone_retention_time_in_hours = each.value.compacted ? 24 : null
  }

  lifecycle {
    prevent_destroy = true
  }
}
